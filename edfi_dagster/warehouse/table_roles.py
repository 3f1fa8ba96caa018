"""Which shared table has which role, as the warehouse remembers it: so that a new name in the configuration is noticed.

Without that, a run under a new name of ``tables.deletes`` would find no tombstone, and deleted students would live
again. ``_meta_tables`` holds a row per role. A warehouse without it, such as Airflow's, has the default names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.warehouse.contract import ROLES, Connection, WarehouseError

_VIEW = "_current"
_ROLES = tuple(role for role in TableNames.model_fields if role != "asset_prefix")


def check_names(
    connection: Connection, names: TableNames, tables: Collection[str], *, all_must_exist: bool
) -> None:
    """Raise WarehouseError where the rows of a shared table lie under another name than the configured one.

    ``tables`` are the tables that exist, in lower case, views not among them. With ``all_must_exist`` one that was
    there before and has gone is an error too.
    """
    found = list(problems(connection, names, tables, all_must_exist=all_must_exist))
    if found:
        raise WarehouseError("; ".join(found))


def problems(
    connection: Connection, names: TableNames, tables: Collection[str], *, all_must_exist: bool
) -> Iterator[str]:
    """What ``check_names`` would say, a sentence for each role."""
    noted = _noted(connection) if ROLES in tables else {}
    for role, now in _names(names).items():
        was = noted.get(role, str(TableNames.model_fields[role].default))
        if now.lower() == was.lower():
            if all_must_exist and role in noted and now.lower() not in tables:
                yield (
                    f"table {connection.table(now)} (tables.{role}) was there and is gone; if it was renamed, write its new "
                    f"name under tables.{role}, else run edfi-dagster setup-warehouse, which makes an empty one"
                )
        elif was.lower() in tables and _has_rows(connection, was):
            is_made = now.lower() in tables
            if role in noted or not is_made or not _has_rows(connection, now):
                yield _remedy(connection, role, was, now, is_made=is_made)


def drop_stale_views(connection: Connection, names: TableNames, found: set[str]) -> set[str]:
    """Drop the views of current rows where a table that they read has another name now; ``found`` without them.

    Whoever prepares their tables next makes them anew.
    """
    noted = _noted(connection) if ROLES in found else {}
    if all(noted.get(role, now).lower() == now.lower() for role, now in _names(names).items()):
        return found
    views = {name for name in found if name.endswith(_VIEW) and name.removesuffix(_VIEW) in found}
    views |= {f"{name}{_VIEW}" for name in noted.values() if f"{name}{_VIEW}".lower() in found}
    for view in sorted(views):
        connection.run(f"DROP VIEW IF EXISTS {connection.table(view)}")
    return found - views


def note_names(connection: Connection, names: TableNames) -> None:
    """Remember the configured names, once ``check_names`` has found nothing. Short statements, and only on a change."""
    noted, table = _noted(connection), connection.table(ROLES)
    for role, now in _names(names).items():
        if role not in noted:
            connection.run(f"INSERT INTO {table} (role, name) VALUES (?, ?)", [role, now])
        elif noted[role].lower() != now.lower():
            connection.run(f"UPDATE {table} SET name = ? WHERE role = ?", [now, role])


def _names(names: TableNames) -> dict[str, str]:
    return {role: str(getattr(names, role)) for role in _ROLES}


def _noted(connection: Connection) -> dict[str, str]:
    found = connection.rows(f"SELECT role, name FROM {connection.table(ROLES)}")
    return {str(role): str(name) for role, name in found}


def _has_rows(connection: Connection, name: str) -> bool:
    return bool(connection.rows(f"SELECT 1 FROM {connection.table(name)} LIMIT 1"))


def _remedy(connection: Connection, role: str, was: str, now: str, *, is_made: bool) -> str:
    told = f"tables.{role} is {now}, but the rows lie in {connection.table(was)}; write tables.{role}: {was}"
    if is_made and _has_rows(connection, now):
        return f"{told} ({connection.table(now)} is another table, which has rows)"
    drop = f"DROP TABLE {connection.table(now)}; " if is_made else ""
    return f"{told}, or rename the table: {drop}{connection.renaming(was, now)}"
