"""One session with Snowflake: bounded statements, lost connections, errors that quote no row."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from snowflake.connector import SnowflakeConnection, errors
from snowflake.connector.cursor import SnowflakeCursor

from edfi_dagster.config.warehouse import STATEMENT_TIMEOUT
from edfi_dagster.warehouse import clock
from edfi_dagster.warehouse.contract import WarehouseError

COMMIT_SECONDS = 60
# The server ends a statement by itself; only where it does not answer does the client give up, this much later.
_ANSWER_SECONDS = 10
# Codes for a session that Snowflake does not know (any more): it has not run the statement.
_REFUSED = frozenset({390104, 390111, 390112, 390113, 390114, 390115, 390195, 290401})
# Those, and codes for one that is closed or out of reach (snowflake.connector: errorcode, network).
_GONE = frozenset({250001, 250002, 250003, 250005, 251011, 251012, 252007}) | _REFUSED
_TIMED_OUT = frozenset({604, 630})
# Snowflake lets 20 statements wait for a table and turns the next away, unless one waited for longer than LOCK_TIMEOUT.
_TURNED_AWAY = 625
_LONGEST_PAUSE = 10.0
# The connector lets some errors of its HTTP library through, and those are OSErrors.
_ERRORS = (errors.Error, OSError)


class ConnectionLost(WarehouseError):
    """The session is no more, and with it what it held: its transaction, its temporary tables."""


class _SessionRefused(ConnectionLost):
    """The session was no more when the statement came, which was therefore not run."""


class Session:
    """One session at a time, signed in to when first needed; for one thread at a time.

    A session that has died is replaced by the next statement outside of a transaction. The statement that finds it
    dead is repeated only where nothing had been done since ``borrow``, as what the session held is gone with it, and
    where it was not run: of one without an answer that is not known. One that is turned away, as too many others wait
    for its table, comes again for as long as it might have waited.
    """

    def __init__(self, sign_in: Callable[[], SnowflakeConnection], seconds: int) -> None:
        self._sign_in = sign_in
        self._seconds = seconds
        self._login: SnowflakeConnection | None = None
        self._is_fresh = True
        self._began: float | None = None

    def borrow(self) -> None:
        """Begin a piece of work that needs nothing the session held before."""
        self._is_fresh = True

    @property
    def is_reusable(self) -> bool:
        return self._login is not None and self._began is None

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> SnowflakeCursor:
        """Raises WarehouseError; a transaction can then only be rolled back."""
        bound = tuple(parameters) or None
        return self._answered(lambda cursor, seconds: cursor.execute(sql, bound, timeout=seconds))

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a statement, fetched as they are asked for. Raises WarehouseError, also between two of them."""
        cursor = self.execute(sql, parameters)
        try:
            for row in cursor:
                yield tuple(row)
        except _ERRORS as error:
            raise self._explained(error) from None

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """One statement for many rows of bound values."""
        self._answered(lambda cursor, seconds: cursor.executemany(sql, rows, timeout=seconds))

    def begin(self) -> None:
        self.execute("BEGIN TRANSACTION")
        self._began = clock.seconds()

    def commit(self) -> None:
        """Raises WarehouseError where the transaction was open for too long: it is not committed then."""
        assert self._began is not None
        if clock.seconds() - self._began > self._seconds:
            raise WarehouseError(
                f"Snowflake: a transaction took longer than {self._seconds} s and is not committed; "
                f"use a larger warehouse or raise session_parameters.{STATEMENT_TIMEOUT}"
            )
        limits = {STATEMENT_TIMEOUT: str(COMMIT_SECONDS)}
        try:
            self._current().cursor().execute("COMMIT", timeout=COMMIT_SECONDS, _statement_params=limits)
        except _ERRORS as error:
            if self._is_lost(error):
                raise ConnectionLost(
                    f"Snowflake: no answer to a commit ({_code(error)}), which may have been done or not; "
                    "run again, the ledger knows"
                ) from None
            raise self._explained(error) from None
        self._began = None

    def rollback(self) -> None:
        """Never raises: a session that cannot roll back is closed, and Snowflake rolls back by itself."""
        self._began = None
        if self._login is not None:
            try:
                self._login.cursor().execute("ROLLBACK", timeout=COMMIT_SECONDS)
            except _ERRORS:
                self.close()

    def close(self) -> None:
        login, self._login = self._login, None
        if login is not None:
            with suppress(*_ERRORS):
                login.close(retry=False)

    def _answered(self, ask: Callable[[SnowflakeCursor, int], object]) -> SnowflakeCursor:
        try:
            return self._ask(ask)
        except _SessionRefused:
            if not self._is_fresh:
                raise
        return self._ask(ask)

    def _ask(self, ask: Callable[[SnowflakeCursor, int], object]) -> SnowflakeCursor:
        try:
            cursor = self._admitted(ask)
        except _ERRORS as error:
            raise self._explained(error) from None
        except BaseException:
            self.close()  # interrupted: what the statement did to the session is not known
            raise
        self._is_fresh = False
        return cursor

    def _admitted(self, ask: Callable[[SnowflakeCursor, int], object]) -> SnowflakeCursor:
        """Ask again after a pause while Snowflake turns the statement away, which leaves its transaction as it was."""
        until, pause = clock.seconds() + self._time_left() - _ANSWER_SECONDS, 0.5
        while True:
            cursor = self._current().cursor()
            try:
                ask(cursor, self._time_left())
            except errors.DatabaseError as error:
                if error.errno != _TURNED_AWAY or clock.seconds() + pause > until:
                    raise
            else:
                return cursor
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _current(self) -> SnowflakeConnection:
        if self._login is None:
            if self._began is not None:
                raise ConnectionLost("Snowflake: the session of this transaction is lost; run again")
            self._login = self._sign_in()
        return self._login

    def _time_left(self) -> int:
        """Seconds after which the client gives up on the next statement."""
        spent = 0.0 if self._began is None else clock.seconds() - self._began
        return max(1, math.ceil(self._seconds - spent)) + _ANSWER_SECONDS

    def _is_lost(self, error: Exception) -> bool:
        """Whether the session is dead, which is then let go of: an error that is not the database's is the network's."""
        if isinstance(error, errors.DatabaseError) and error.errno not in _GONE:
            return False
        self.close()
        return True

    def _explained(self, error: Exception) -> WarehouseError:
        """Our error for one of Snowflake's, which may quote the row it stumbled over and is then not passed on."""
        if self._is_lost(error) or not isinstance(error, errors.Error):
            doing = "" if self._began is None else "; nothing of its transaction is committed"
            lost = _SessionRefused if getattr(error, "errno", None) in _REFUSED else ConnectionLost
            return lost(f"Snowflake: the connection was lost ({_code(error)}){doing}; run again")
        if error.errno in _TIMED_OUT:
            return WarehouseError(
                f"Snowflake: a statement took longer than {self._seconds} s ({_code(error)}); use a larger warehouse "
                f"or raise session_parameters.{STATEMENT_TIMEOUT}"
            )
        speaks_of_rows = (error.sqlstate or "").startswith("22") or 100000 <= (error.errno or 0) < 101000
        said = "" if speaks_of_rows else f": {' '.join(str(error.raw_msg or '').split())[:400]}"
        return WarehouseError(f"Snowflake: {_code(error)}{said}")


def _code(error: Exception) -> str:
    if not isinstance(error, errors.Error):
        return type(error).__name__
    query = f", query {error.sfqid}" if error.sfqid else ""
    return f"error {error.errno or type(error).__name__}{query}"
