"""A stand-in for Snowflake: fakesnow's HTTP server, in a process of its own, and what that leaves out.

``python -m edfi_dagster_tests.warehouse.snowflake_server PORT_FILE``. The connector that talks to it is the real one, and
so is every statement but these: COPY with metadata columns and REMOVE, which fakesnow cannot run, are taken apart here,
refused where they are not of the form that Snowflake documents, and done with DuckDB on the session's connection.
It also notes statements and logins, fails on request, and notes DDL in a transaction, which Snowflake would commit.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import duckdb
import fakesnow.cursor
import fakesnow.dialect
import fakesnow.server
import uvicorn
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.server import app as fakesnow_app
from fakesnow.server import sessions, shared_fs
from fakesnow.transforms import stage as stages
from sqlglot import exp

COPY = re.compile(
    r"COPY INTO (?P<into>[A-Za-z_]\w*) \(v, filename, file_row_number\)\n"
    r"FROM \(SELECT \$1, metadata\$filename, metadata\$file_row_number FROM @(?P<stage>[^/\s]+)/(?P<folder>[\w.=/-]*/)\)\n"
    r"FILES = \((?P<files>'[\w.=/-]+'(, '[\w.=/-]+')*)\)\n"
    r"FILE_FORMAT = \(FORMAT_NAME = '(?P<format>[\w$.]+)'\)\n"
    r"ON_ERROR = ABORT_STATEMENT FORCE = TRUE"
)
REMOVE = re.compile(r"REMOVE @(?P<stage>[^/\s]+)/(?P<folder>[\w.=/-]+/)")
DDL = re.compile(r"\s*(CREATE|ALTER|DROP|TRUNCATE|GRANT)\b", re.IGNORECASE)
QUERY = "/queries/v1/query-request"
LOGIN = "/session/v1/login-request"
CONTROL = "/_stand_in"


@dataclass
class Fault:
    """The ``nth`` statement that ``match`` finds from now on is not run: ``code`` is its error, as Snowflake has them.

    Code 0 cuts the connection instead: before the statement is run, or ``after`` it.
    """

    match: str
    code: int
    message: str = "refused by the stand-in"
    nth: int = 1
    after: bool = False
    sqlstate: str = "57014"


@dataclass
class Noted:
    """What was asked of the server. ``stages``: name of an external stage → where its root lies."""

    statements: list[dict[str, str]] = field(default_factory=list)
    logins: list[dict[str, Any]] = field(default_factory=list)
    ddl_in_transactions: list[str] = field(default_factory=list)
    in_transaction: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)


class Refused(Exception):
    """A statement that Snowflake would refuse."""


class StandIn:
    """An ASGI application around fakesnow's."""

    def __init__(self) -> None:
        self.noted = Noted()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or (path not in {QUERY, LOGIN} and not path.startswith(CONTROL)):
            await fakesnow_app(scope, receive, send)
            return
        document = await _document(scope, receive)
        if path.startswith(CONTROL):
            await _answer(send, self._control(scope["method"], path.removeprefix(f"{CONTROL}/"), document))
        elif path == LOGIN:
            self.noted.logins.append(document["data"])
            await _forward(scope, document, _with_master_token(send))
        else:
            await self._query(scope, document, send)

    async def _query(self, scope: Any, document: dict[str, Any], send: Any) -> None:
        token = dict(scope["headers"])[b"authorization"].decode()[17:-1]
        text = document["sqlText"]
        self._note(token, text)
        fault = self._fault(text)
        if fault is not None and not fault.after:
            if fault.code == 0:
                await _cut(send)
            else:
                await _answer(send, _error(fault.code, fault.message, fault.sqlstate))
            return
        try:
            document["sqlText"] = await asyncio.to_thread(self._runnable, token, text)
        except Refused as error:
            await _answer(send, _error(1003, f"SQL compilation error:\n{error}", "42000"))
            return
        except duckdb.InvalidInputException as error:
            await _answer(send, _error(100069, f"Error parsing JSON: {error}", "22P02"))
            return
        if fault is None:
            await _forward(scope, document, send)
        else:
            await _forward(scope, document, _nowhere)
            await _cut(send)

    def _note(self, token: str, text: str) -> None:
        connection = sessions.get(token)
        database = str(connection.database) if connection else ""
        self.noted.statements.append({"sql": text, "session": token, "database": database})
        word = text.split(maxsplit=1)[0].upper().rstrip(";")
        if word == "BEGIN":
            self.noted.in_transaction.add(token)
        elif word in {"COMMIT", "ROLLBACK"}:
            self.noted.in_transaction.discard(token)
        elif DDL.match(text) and token in self.noted.in_transaction:
            self.noted.ddl_in_transactions.append(text)

    def _fault(self, text: str) -> Fault | None:
        for fault in self.noted.faults:
            if re.search(fault.match, text):
                fault.nth -= 1
                if fault.nth == 0:
                    self.noted.faults.remove(fault)
                    return fault
        return None

    # -- what fakesnow cannot run ---------------------------------------------------------------------------

    def _runnable(self, token: str, text: str) -> str:
        if text.startswith("PUT "):
            # fakesnow reads the quotes around the file's address as a part of it.
            return re.sub(r"^PUT 'file://([^'\\]*)'", r"PUT file://\1", text)
        if text.startswith("REMOVE "):
            return self._remove(token, text)
        if not text.startswith("COPY "):
            return text
        found = COPY.fullmatch(text)
        if found is None:
            raise Refused(f"no COPY that Snowflake knows: {text}")
        files = [name.strip("' ") for name in found["files"].split(",")]
        rows = 0
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                place, staged = self._place(token, found["stage"], found["folder"] + file, Path(scratch))
                rows += self._copy(token, found["into"], place, staged)
        return f"SELECT 'LOADED' AS status, {rows} AS rows_loaded"

    def _place(self, token: str, stage: str, path: str, scratch: Path) -> tuple[Path, str]:
        """A file of a stage on this disk, and what metadata$filename calls it."""
        external = self.noted.stages.get(stage)
        if external is None:
            local = self._internal(token, stage) / path
            return local, path
        root = urlsplit(external["root"])
        if root.scheme != "s3":
            return Path(external["root"]) / path, path
        key = f"{root.path.strip('/')}/{path}".lstrip("/")
        local = scratch / path.replace("/", "_")
        client = boto3.client("s3", **external["client"])
        client.download_file(root.netloc, key, str(local))
        return local, key

    def _copy(self, token: str, into: str, place: Path, staged: str) -> int:
        if not place.is_file():
            raise Refused(f"remote file {staged} was not found")
        compression = "zstd" if staged.endswith(".zst") else "gzip"
        counted = (
            sessions[token]
            ._duck_conn.execute(
                f"INSERT INTO {into} (v, filename, file_row_number) SELECT json, ?, row_number() OVER () "
                "FROM read_json_objects(?, format='newline_delimited', maximum_object_size=268435456, "
                f"compression='{compression}')",
                [staged, str(place)],
            )
            .fetchone()
        )
        assert counted
        return int(counted[0])

    def _remove(self, token: str, text: str) -> str:
        found = REMOVE.fullmatch(text)
        if found is None:
            raise Refused(f"no REMOVE that Snowflake knows: {text}")
        removed = 0
        for path in sorted(
            (self._internal(token, found["stage"]) / found["folder"]).rglob("*"), reverse=True
        ):
            removed += path.is_file()
            path.unlink() if path.is_file() else path.rmdir()
        return f"SELECT 'removed' AS result, {removed} AS files"

    def _internal(self, token: str, stage: str) -> Path:
        connection = sessions[token]
        names = stages.parts_from_var(stage, connection.database, connection.schema)
        return Path(stages.internal_dir(".".join(names)))

    # -- control ------------------------------------------------------------------------------------------

    def _control(self, method: str, path: str, document: dict[str, Any]) -> Any:
        noted = self.noted
        if (method, path) == ("GET", "noted"):
            return {
                "statements": noted.statements,
                "logins": noted.logins,
                "ddl_in_transactions": noted.ddl_in_transactions,
                "faults": [asdict(fault) for fault in noted.faults],
                "sessions": len(sessions),
            }
        if (method, path) == ("DELETE", "noted"):
            for notes in (noted.statements, noted.logins, noted.ddl_in_transactions, noted.faults):
                notes.clear()
        elif (method, path) == ("POST", "faults"):
            noted.faults.append(Fault(**document))
        elif (method, path) == ("POST", "stages"):
            noted.stages[document["name"]] = document
        elif (method, path) == ("POST", "end_sessions"):
            self._end_sessions(document["database"])
        elif (method, path) == ("POST", "empty"):
            self._end_sessions(document["database"])
            _empty(document["database"])
        return {}

    def _end_sessions(self, database: str) -> None:
        """Roll back and close, as Snowflake does in time with the sessions of a client that has died."""
        for token, connection in list(sessions.items()):
            if connection.database == database:
                del sessions[token]
                self.noted.in_transaction.discard(token)
                connection._duck_conn.close()


def _empty(database: str) -> None:
    with shared_fs.duck_conn.cursor() as connection:
        found = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_catalog = ? AND table_type = 'BASE TABLE' AND table_schema = 'EDFI3'",
            [database],
        ).fetchall()
        for schema, table in found:
            connection.execute(f'DELETE FROM "{database}"."{schema}"."{table}"')


def _error(code: int, message: str, sqlstate: str) -> dict[str, Any]:
    text = f"{code:06d}"
    return {
        "data": {"errorCode": text, "sqlState": sqlstate, "queryId": "01b2-stand-in"},
        "code": text,
        "message": message,
        "success": False,
    }


async def _document(scope: Any, receive: Any) -> dict[str, Any]:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if dict(scope["headers"]).get(b"content-encoding") == b"gzip":
        body = gzip.decompress(body)
    document: dict[str, Any] = json.loads(body) if body else {}
    return document


async def _forward(scope: Any, document: dict[str, Any], send: Any) -> None:
    body = json.dumps(document).encode()
    headers = [(k, v) for k, v in scope["headers"] if k not in {b"content-encoding", b"content-length"}]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    await fakesnow_app({**scope, "headers": headers}, receive, send)


def _with_master_token(send: Any) -> Any:
    """Without a master token, which fakesnow does not give, the connector cannot end its session."""

    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            document = json.loads(message["body"])
            if document["success"]:
                document["data"]["masterToken"] = document["data"]["token"]
            await _answer(send, document)

    return sending


async def _answer(send: Any, document: Any) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _cut(send: Any) -> None:
    """End the connection in the middle of an answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
    raise ConnectionError("cut by the stand-in")


async def _nowhere(message: Any) -> None:
    return


def remember_translations() -> None:
    """Let fakesnow translate and describe each text once: it walks a statement whole 76 times to translate it."""
    parse, translate = fakesnow.dialect.parse_one, FakeSnowflakeCursor._transform
    describe = FakeSnowflakeCursor._describe_last_sql
    translated: dict[tuple[str, str | None, str | None], Any] = {}
    described: dict[tuple[str, str | None, str | None], Any] = {}

    def parse_marked(text: str) -> Any:
        expression = parse(text)
        expression.meta["text"] = text
        return expression

    def translate_once(cursor: FakeSnowflakeCursor, expression: Any, params: Any) -> Any:
        text = expression.meta.get("text", "")
        is_plain = isinstance(expression, exp.Query | exp.Insert | exp.Update | exp.Delete)
        if not is_plain and not text.startswith("CREATE OR REPLACE TEMPORARY TABLE"):
            return translate(cursor, expression, params)
        key = (text, cursor._conn.database, cursor._conn.schema)
        if key not in translated:
            translated[key] = translate(cursor, expression, params)
        return translated[key]

    def describe_once(cursor: FakeSnowflakeCursor) -> Any:
        text = str(cursor._last_sql)
        if "SELECT *" in text.upper():
            return describe(cursor)
        key = (text, cursor._conn.database, cursor._conn.schema)
        if key not in described:
            described[key] = describe(cursor)
        return described[key]

    setattr(fakesnow.cursor, "parse_one", parse_marked)  # noqa: B010
    setattr(fakesnow.server, "parse_one", lru_cache(None)(parse))  # noqa: B010
    setattr(FakeSnowflakeCursor, "_transform", translate_once)  # noqa: B010
    setattr(FakeSnowflakeCursor, "_describe_last_sql", describe_once)  # noqa: B010


def main(port_file: Path) -> None:
    remember_translations()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(StandIn(), log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        written = port_file.with_suffix(".part")
        written.write_text(str(listening.getsockname()[1]))
        written.rename(port_file)
        server.run(sockets=[listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
