"""Rows that lie under a former name of their endpoint: they move to its name of today, with their watermarks.

A name changes when another endpoint of the same name is chosen beside it, when an extension is spelled otherwise in the
configuration, and once with the rule by which names are given. Nothing is read anew because of that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint, prefixed, snake_case, standard_endpoints
from edfi_dagster.ods.source import Source, same_endpoint
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Connection, WarehouseError
from edfi_dagster.warehouse.lease import Lease

_PAIR = "tenant_code = ? AND api_year = ?"


def move_renamed(
    connection: Connection,
    lease: Lease,
    noted: ledger.Noted,
    endpoints: Sequence[Endpoint],
    standard: str,
) -> list[str]:
    """Move what is stored under former names of ``endpoints``, which are all of the pair; a sentence for each.

    ``noted`` is what the ledger says before. What an endpoint of the data ``standard`` may have left, chosen or not, is
    taken for no other's. Each moves in one transaction. Raises NotCommitted, WarehouseError where nobody can tell whose
    the rows are.
    """
    sentences = []
    for endpoint, former in _renamed(lease.pair, noted.latest, endpoints, standard):
        with connection.transaction():
            lease.check(connection)
            _move(connection, lease.pair, endpoint, former)
        sentences.append(
            f"{lease.pair} {endpoint.path}: is called {endpoint.snake} now; what was stored as {former} has moved there"
        )
    return sentences


def _renamed(
    pair: TenantYear, noted: Mapping[str, Source | None], endpoints: Iterable[Endpoint], standard: str
) -> list[tuple[Endpoint, str]]:
    """Endpoints without a row under their name, and the former name that has theirs."""
    chosen = list(endpoints)
    names = {endpoint.snake for endpoint in (*chosen, *standard_endpoints(standard))}
    found: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in chosen:
        if endpoint.snake not in noted:
            for former in _former_names(endpoint, noted, names):
                found[former].append(endpoint)
    for former, claiming in found.items():
        if len(claiming) > 1:
            paths = " and ".join(endpoint.path for endpoint in claiming)
            raise WarehouseError(
                f"{pair}: rows are stored as {former}, and nobody noted whether they are of {paths}; take out the one that "
                "they are not of, run once, and add it again"
            )
    return [(claiming[0], former) for former, claiming in found.items()]


def _former_names(
    endpoint: Endpoint, noted: Mapping[str, Source | None], names: Iterable[str]
) -> Iterable[str]:
    own = [name for name, source in noted.items() if source and same_endpoint(source.endpoint, endpoint.path)]
    if own:
        return own[:1]
    bare = snake_case(endpoint.name)
    possible = {bare, prefixed(endpoint.namespace, bare)}.difference(names)
    return [name for name in sorted(possible) if name in noted and noted[name] is None]


def _move(connection: Connection, pair: TenantYear, endpoint: Endpoint, former: str) -> None:
    """Rows first, the ledger last; what bundles put there goes along."""
    names, ours = connection.names, connection.table(connection.names.change_versions)
    stored = connection.rows(f"SELECT DISTINCT name FROM {ours} WHERE {_PAIR}", list(pair))
    moving = [str(n) for (n,) in stored if str(n) == former or str(n).startswith(f"{former}__")]
    others = [names.descriptors] if endpoint.is_descriptor else [names.deletes, names.key_changes]
    for name in moving:
        now = f"{endpoint.snake}{name.removeprefix(former)}"
        if not endpoint.is_descriptor:
            _move_rows(connection, pair, (former, name), (endpoint.snake, now))
        for table in (*others, names.total_counts, names.change_versions):
            connection.run(
                f"UPDATE {connection.table(table)} SET name = ? WHERE {_PAIR} AND name = ?",
                [now, *pair, name],
            )


def _move_rows(
    connection: Connection, pair: TenantYear, former: tuple[str, str], now: tuple[str, str]
) -> None:
    """Between raw tables: (table, name) each."""
    columns = ", ".join(RAW_COLUMNS)
    values = ", ".join("?" if column == "name" else column for column in RAW_COLUMNS)
    old, new = connection.table(former[0]), connection.table(now[0])
    connection.run(
        f"INSERT INTO {new} ({columns}) SELECT {values} FROM {old} WHERE {_PAIR} AND name = ?",
        [now[1], *pair, former[1]],
    )
    connection.run(f"DELETE FROM {old} WHERE {_PAIR} AND name = ?", [*pair, former[1]])
