"""The two storages of a chaos run: where its lake and warehouse lie, and what goes wrong there."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from edfi_dagster_tests.lake import s3_server
from edfi_dagster_tests.lake.s3_server import Bucket, Fault, Gate, Seen, running_s3
from edfi_dagster_tests.warehouse import snowflake_stand_in
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn, serving_snowflake

PASSWORD = "a-password-of-chaos"
_STATEMENTS = (
    "^BEGIN",
    "^COMMIT",
    "^INSERT",
    "^SELECT",
    "^COPY",
    "^UPDATE",
    "^DELETE",
    "^CREATE OR REPLACE TEMP",
)
_NO_ANSWER, _TIMED_OUT = 0, 604
EMBEDDED_PLACES = (
    "edfi_dagster.lake.store:LocalLake.writing",
    "os:fsync",
    "edfi_dagster.warehouse.duckdb:DuckDBConnection.stage",
)
PRODUCTION_PLACES = (
    "edfi_dagster.lake.s3_upload:Upload.finish",
    "edfi_dagster.warehouse.snowflake:SnowflakeConnection.stage",
    "edfi_dagster.warehouse.snowflake_session:Session.commit",
)


@dataclass
class Storage:
    """The folder and the DuckDB file of the embedded default, which go wrong with the process and the disk."""

    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    places: tuple[str, ...] = EMBEDDED_PLACES
    injected: Counter[str] = field(default_factory=Counter)

    def disturb(self, chance: random.Random) -> None:
        """Let something go wrong in the next run."""

    def calm_down(self) -> None:
        """Nothing goes wrong from now on."""

    def bury(self) -> None:
        """What a service does, in time, with what a killed client has left open."""

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of everything that lies elsewhere than in the folder and is not data."""
        yield from ()


class RestlessGate(Gate):
    """Before S3: strikes a share of the requests. What becomes of one depends on ``seed`` and its number."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self.seed, self.rate = "", 0.0
        self.injected: Counter[str] = Counter()

    def fault_of(self, seen: Seen) -> Fault | None:
        super().fault_of(seen)
        chance = random.Random(f"{self.seed} {len(self.seen)}")
        if chance.random() >= self.rate:
            return None
        faults = {
            "S3 500": Fault("any", status=500, code="InternalError"),
            "S3 503": Fault("any", status=503, code="SlowDown"),
            "S3 cut": Fault("any", cut=chance.randrange(seen.size or 1)),
            "S3 answer lost": Fault("any", lose=True),
            "S3 answer short": Fault("any", shorten=True),
        }
        name = chance.choice(list(faults))
        self.injected[name] += 1
        return faults[name]


class Production(Storage):
    """A lake on S3 behind a gate, and the stand-in for Snowflake."""

    def __init__(self, gate: RestlessGate, bucket: Bucket, snowflake: SnowflakeStandIn) -> None:
        self._gate, self._bucket, self._snowflake = gate, bucket, snowflake
        self._database = snowflake.new_database()
        root = f"s3://{bucket.name}/edfi"
        snowflake.external_stage("RAW.UTIL.AIRFLOW_STAGE", root, **bucket.access())
        lake = {**bucket.document(prefix="edfi"), "endpoint_url": gate.url}
        blocks = {"lake": lake, "warehouse": snowflake.block(self._database)}
        super().__init__(blocks, (s3_server.SECRET, PASSWORD), PRODUCTION_PLACES, gate.injected)
        os.environ[snowflake_stand_in.SECRET_VARIABLE] = PASSWORD

    def disturb(self, chance: random.Random) -> None:
        self._gate.seed, self._gate.rate = str(chance.random()), chance.choice([0.0, 0.05, 0.15])
        self._snowflake.forget()
        if chance.random() < 0.5:
            match, code = chance.choice(_STATEMENTS), chance.choice([_NO_ANSWER, _NO_ANSWER, _TIMED_OUT])
            after = code == _NO_ANSWER and chance.random() < 0.5
            self._snowflake.fail(match, code, nth=chance.randrange(1, 12), after=after)
            self.injected[f"Snowflake {'no answer' if code == _NO_ANSWER else 'time-out'}"] += 1

    def calm_down(self) -> None:
        self._gate.rate = 0.0
        missed = len(self._snowflake.noted()["faults"])
        assert self._snowflake.noted()["ddl_in_transactions"] == []
        self._snowflake.forget()
        self.injected["Snowflake, not met"] += missed

    def bury(self) -> None:
        self._snowflake.end_sessions(self._database)

    def documents(self) -> Iterator[tuple[str, bytes]]:
        for key in self._bucket.objects():
            if not key.endswith(".jsonl.zst"):
                answer = self._bucket.client.get_object(Bucket=self._bucket.name, Key=key)
                yield key, answer["Body"].read()


@contextmanager
def opened(kind: str) -> Iterator[Storage]:
    """``embedded`` or ``production``."""
    if kind == "embedded":
        yield Storage()
        return
    os.environ |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        s3_server.KEY_VARIABLE: s3_server.KEY,
        s3_server.SECRET_VARIABLE: s3_server.SECRET,
    }
    with ExitStack() as running:
        server = running.enter_context(running_s3())
        gate = running.enter_context(s3_server.serving(RestlessGate(server)))
        snowflake = running.enter_context(serving_snowflake())
        yield Production(gate, Bucket(server), snowflake)
