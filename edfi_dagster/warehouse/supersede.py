"""Which raw rows a load makes untrue, and their removal; and which ids nothing but a natural key speaks against.

dbt tells records apart by natural key and applies a tombstone to every row of its id for ever; it does not read
``_key_changes``. So after a key change or a re-creation only taking the superseded raw rows away leaves the truth
(measured: a synthetic delete removes both sessions, none leaves both).

An older row of an id that was read with another key is superseded by that id itself. Two ids with one natural key are
only suspected: the key may be wrong, or another's. The ODS says by id which of them are gone, and the manifest notes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse.contract import Connection
from edfi_dagster.warehouse.current import identity, keyed
from edfi_dagster.warehouse.staging import SCOPE, batches, marks

_READ = "TIMESTAMP '9999-12-31 00:00:00'"


@dataclass(frozen=True)
class Judged:
    """Suspects that the ODS was asked for: those it gave, ``alive``, and those it would not show, ``unseen``."""

    alive: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Suspects:
    """Ids that share their natural key with another: ``read`` in this pull, or ``stored`` before it."""

    read: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()

    @property
    def ids(self) -> frozenset[str]:
        return self.read | self.stored


class Suspected(Exception):
    """A load must not go on before the ODS was asked for ``suspects`` (endpoint name → ids)."""

    def __init__(self, suspects: Mapping[str, Suspects]) -> None:
        super().__init__(f"ids that share a natural key: {', '.join(suspects)}")
        self.suspects = suspects


def undecided(suspects: Mapping[str, Suspects], judged: Mapping[str, Judged] | None) -> frozenset[str]:
    """The suspects that stay though nobody knows whether they live. Raises Suspected where the ODS can be asked.

    ``judged`` is what it said when it was asked (endpoint name → suspects); None where it cannot be.
    """
    found = {name: of_name.ids for name, of_name in suspects.items()}
    if judged is None:
        return frozenset().union(*found.values())
    open_ = {n: ids - (j := judged.get(n, Judged())).alive - j.unseen for n, ids in found.items()}
    if any(open_.values()):
        raise Suspected(
            {n: Suspects(suspects[n].read & ids, suspects[n].stored & ids) for n, ids in open_.items() if ids}
        )
    return frozenset().union(*(ids & judged.get(n, Judged()).unseen for n, ids in found.items()))


def make_room(connection: Connection) -> None:
    """Make the temporary table of doomed rows; before a transaction, as DDL would commit it on Snowflake."""
    connection.run("CREATE OR REPLACE TEMPORARY TABLE doomed (id VARCHAR, pull_timestamp TIMESTAMP)")


@dataclass(frozen=True)
class Search:
    """What a search for untrue rows goes by: ids that are ``gone``, what is staged, and whether all rows are in question.

    The ``whole`` table is, after a switch from a pipeline that did not handle key changes.
    """

    gone: Sequence[str] = ()
    has_records: bool = True
    has_deletes: bool = True
    whole: bool = False


def find_superseded(connection: Connection, pair: TenantYear, endpoint: Endpoint, search: Search) -> Suspects:
    """Note in ``doomed`` the raw rows whose natural key their id no longer has; return the ids to be asked for.

    Suspected is who shares a key with an id that was read, or with any. Who has a tombstone is no suspect but dead; its
    rows go as well.
    """
    make_room(connection)
    _note_keys(connection, pair, endpoint, search)
    connection.run(
        """INSERT INTO doomed SELECT r.id, r.pull_timestamp FROM known_keys r JOIN keys_now n ON n.id = r.id
        WHERE r.natural_key <> n.natural_key AND NOT r.is_read"""
    )
    dead = (
        f"SELECT {identity(connection)} AS id FROM {connection.table(connection.names.deletes)} WHERE {SCOPE}"
    )
    if search.has_deletes:
        dead += " UNION ALL SELECT id FROM staged_deletes"
    found = connection.rows(
        f"""WITH dead AS (SELECT DISTINCT id FROM ({dead}) tombstones)
        SELECT DISTINCT b.id, b.is_read, d.id IS NOT NULL
        FROM keys_now a JOIN keys_now b ON b.folded = a.folded AND b.id <> a.id LEFT JOIN dead d ON d.id = b.id
        WHERE a.pull_timestamp >= b.pull_timestamp{"" if search.whole else " AND a.is_read"}""",
        [*pair, endpoint.snake],
    )
    for batch in batches([record_id for record_id, is_read, is_dead in found if is_dead and not is_read]):
        connection.run(
            f"INSERT INTO doomed SELECT id, pull_timestamp FROM known_keys WHERE id IN ({marks(batch)})",
            batch,
        )
    living = [(record_id, is_read) for record_id, is_read, is_dead in found if not is_dead]
    return Suspects(
        frozenset(record_id for record_id, is_read in living if is_read),
        frozenset(record_id for record_id, is_read in living if not is_read),
    )


def doom_gone(connection: Connection, ids: Sequence[str], pair: TenantYear, endpoint: Endpoint) -> None:
    """Note in ``doomed`` every raw row of ids that left the ODS without a visible tombstone."""
    table = connection.table(endpoint.snake)
    for batch in batches(ids):
        connection.run(
            f"""INSERT INTO doomed SELECT id, pull_timestamp FROM (
              SELECT {identity(connection)} AS id, pull_timestamp FROM {table} WHERE {SCOPE}) scoped
            WHERE id IN ({marks(batch)})""",
            [*pair, endpoint.snake, *batch],
        )


def suspects_read(connection: Connection) -> dict[str | None, Suspects]:
    """Name → the staged ids that share a natural key."""
    found = connection.rows(
        """SELECT DISTINCT s.name, s.id FROM staged_records s JOIN (
          SELECT name, folded FROM staged_records GROUP BY 1, 2 HAVING count(DISTINCT id) > 1) t
        ON t.folded = s.folded AND t.name IS NOT DISTINCT FROM s.name"""
    )
    names = {name for name, _ in found}
    return {name: Suspects(frozenset(i for n, i in found if n == name)) for name in names}


def remove_superseded(connection: Connection, pair: TenantYear, endpoint: Endpoint) -> int:
    """Remove the ``doomed`` rows. Returns how many there were.

    A SELECT looks first: a DELETE that hits nothing still locks the table on Snowflake.
    """
    ((doomed,),) = connection.rows("SELECT count(*) FROM doomed")
    return _remove_doomed(connection, pair, endpoint, doomed)


def remove_replaced(connection: Connection, pair: TenantYear, endpoint: Endpoint) -> int:
    """Remove rows of tombstoned ids whose natural key another id's row of the same or a later stamp holds.

    Such an id was replaced, not deleted: its tombstone would win over the living row. Returns the rows removed.
    """
    doomed = connection.run(
        f"""INSERT INTO doomed
        WITH raw AS (SELECT id, folded, pull_timestamp FROM ({_raw_keys(connection, endpoint)}) rows_)
        SELECT DISTINCT raw.id, raw.pull_timestamp FROM raw JOIN raw AS other
          ON other.folded = raw.folded AND other.id <> raw.id
        WHERE raw.id IN (SELECT id FROM staged_deletes) AND other.pull_timestamp >= raw.pull_timestamp""",
        [*pair, endpoint.snake],
    )
    return _remove_doomed(connection, pair, endpoint, doomed)


def _note_keys(connection: Connection, pair: TenantYear, endpoint: Endpoint, search: Search) -> None:
    """``known_keys``: the natural keys of raw and staged rows; ``keys_now``: those of each id's latest."""
    columns = "id VARCHAR, natural_key VARCHAR, folded VARCHAR, pull_timestamp TIMESTAMP, is_read BOOLEAN"
    connection.run(f"CREATE OR REPLACE TEMPORARY TABLE known_keys ({columns})")
    connection.run(
        f"""INSERT INTO known_keys
        SELECT id, natural_key, folded, pull_timestamp, FALSE FROM ({_raw_keys(connection, endpoint)}) r""",
        [*pair, endpoint.snake],
    )
    for batch in batches(search.gone):
        connection.run(f"DELETE FROM known_keys WHERE id IN ({marks(batch)})", batch)
    if search.has_records:
        connection.run(
            f"INSERT INTO known_keys SELECT id, natural_key, folded, CAST({_READ} AS TIMESTAMP), TRUE FROM staged_records"
        )
    connection.run(
        """CREATE OR REPLACE TEMPORARY TABLE keys_now AS SELECT * FROM known_keys
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY pull_timestamp DESC) = 1"""
    )


def _raw_keys(connection: Connection, endpoint: Endpoint) -> str:
    """A query of the endpoint's raw rows, by their scope, with id, natural key and stamp."""
    table, key = connection.table(endpoint.snake), tuple(endpoint.key.values())
    return keyed(connection, table, key, ("pull_timestamp",), where=f"WHERE {SCOPE}")


def _remove_doomed(connection: Connection, pair: TenantYear, endpoint: Endpoint, doomed: int) -> int:
    """Remove the ``doomed`` rows, if any: a DELETE that hits nothing still locks the table on Snowflake."""
    if not doomed:
        return 0
    removed = connection.run(
        f"DELETE FROM {connection.table(endpoint.snake)} WHERE {SCOPE} "
        f"AND ({identity(connection)}, pull_timestamp) IN (SELECT id, pull_timestamp FROM doomed)",
        [*pair, endpoint.snake],
    )
    connection.run("DELETE FROM doomed")
    return removed
