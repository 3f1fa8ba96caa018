"""A chaos campaign: runs that suffer everything there is while an ODS is written to, then calm, and a look at what is left.

What is done to which run is decided by the seed and the number of the round alone. Not by the seed: when requests,
writes and kills meet, which is up to the machine.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import KEY_VARIABLE, ODS, PAIR, SECRET_VARIABLE, Bench, write_config
from edfi_dagster_tests.chaos.gate import Gate, Weather
from edfi_dagster_tests.chaos.ods import OTHER_ODS, OdsProcess, Settings
from edfi_dagster_tests.chaos.runs import Ended, Errand, Run
from edfi_dagster_tests.chaos.search import leaks
from edfi_dagster_tests.chaos.storage import Storage
from edfi_dagster_tests.extract.child import Orders
from edfi_dagster_tests.extract.district import DESCRIPTORS, ENDPOINTS

RATES = (0.02, 0.05, 0.1, 0.2)
OVERLAP = 2_000
MISTAKES = dict.fromkeys(("another ODS", "a filter")).keys()
"""What a wrong configuration of one run says."""
KILL_PLACES = (
    "edfi_dagster.warehouse.lease:Lease.next_stamp",
    "edfi_dagster.lake.pull:write_manifest",
    "edfi_dagster.warehouse.load:_stage",
    "edfi_dagster.warehouse.load:_insert_records",
    "edfi_dagster.warehouse.load:_insert_changes",
    "edfi_dagster.warehouse.supersede:remove_superseded",
    "edfi_dagster.warehouse.ledger:record",
    "edfi_dagster.warehouse.load:load_delta",
    "edfi_dagster.warehouse.load:load_descriptors",
    "edfi_dagster.warehouse.load:load_refresh",
    "edfi_dagster.warehouse.load:close_refreshes",
    "edfi_dagster.warehouse.load:settle",
    "edfi_dagster.extract.run:_PairRun._write_summary",
    "edfi_dagster.ods.transport:Transport.send",
)


@dataclass
class Report:
    """What was done, and what came of it."""

    seed: int
    version: str
    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    writes: int = 0
    compared: int = 0
    broken: list[str] = field(default_factory=list)

    def told(self) -> str:
        def listed(counted: Counter[str]) -> str:
            return ", ".join(f"{name} {number}" for name, number in sorted(counted.items())) or "none"

        lines = [
            f"seed {self.seed}, ODS {self.version}: {self.requests} requests, change version {self.writes}",
            f"  {sum(self.faults.values())} faults: {listed(self.faults)}",
            f"  {sum(self.kills.values())} kills and stops: {listed(self.kills)}",
            f"  {sum(self.runs.values())} runs: {listed(self.runs)}",
            f"  {self.compared} rows compared with the ODS",
            *(f"  BROKEN: {what}" for what in self.broken),
        ]
        return "\n".join(lines)


class Campaign:
    """One tenant and year in ``folder``; the ODS behind ``gate`` is this campaign's own."""

    def __init__(
        self, folder: Path, seed: int, version: str, gate: Gate, storage: Storage, mode: str | None = None
    ) -> None:
        self.report = Report(seed, version)
        self._folder, self._gate, self._storage = folder, gate, storage
        (folder / "instance").mkdir()
        (folder / "instance" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self._settings = Settings(str(folder / "ods"), version, mode, OVERLAP, seed)
        with self._settings.server() as server:
            self._secrets = (server.credentials[1], *storage.secrets)
            self._config = self._write_config(server)
            os.environ |= {
                KEY_VARIABLE: server.credentials[0],
                SECRET_VARIABLE: server.credentials[1],
                "DAGSTER_HOME": str(folder / "instance"),
            }
        self._ods = self._start_ods(0.0)

    def _write_config(self, server: SandboxServer) -> Path:
        path = server.url_of(ODS).removeprefix(server.url)
        self._other_path = server.url_of(OTHER_ODS).removeprefix(server.url)
        return write_config(
            self._folder,
            server,
            ENDPOINTS,
            DESCRIPTORS,
            year={"base_url": f"{self._gate.url}{path}"},
            endpoint_defaults={"page_size": 5, "num_retries": 4, "change_version_step_size": 10},
            change_version_overlap=OVERLAP,
            max_concurrent_requests=4,
            **self._storage.blocks,
        )

    def _start_ods(self, back: float) -> OdsProcess:
        self._settings = replace(self._settings, seed=self._settings.seed + 1, back=back)
        started = OdsProcess(self._settings, self._folder / "ods.log")
        self._gate.behind = started.place()
        return started

    # -- chaos --------------------------------------------------------------------------------------------

    def live(self, goes_on: Callable[[int], bool]) -> None:
        """Rounds, as long as ``goes_on`` says so of the next one's number."""
        number = 0
        while goes_on(number):
            chance = random.Random(f"{self.report.seed} round {number}")
            self._gate.weather = Weather(
                f"{self.report.seed} {number}", chance.choice(RATES), injected=self.report.faults
            )
            self._storage.disturb(chance)
            if number == 0:
                self._run([Errand()])
            elif chance.random() < 0.25:
                self._lose_ods(chance)
            elif chance.random() < 0.15:
                self._run([Errand("dagster", killed_after=chance.choice([0.0, 0.0, 3.0]))])
            elif chance.random() < 0.15:
                self._run([Errand(), self._errand(chance)])
            elif chance.random() < 0.15:
                self._misconfigure(chance)
            else:
                self._run([self._errand(chance)])
            number += 1

    def _misconfigure(self, chance: random.Random) -> None:
        """A run by a configuration that names another ODS, or only some of the rows; afterwards it is put right."""
        right = self._config.read_text()
        document = yaml.safe_load(right)
        other_ods, filtered = MISTAKES
        if chance.random() < 0.5:
            self.report.faults[other_ods] += 1
            of_year = document["tenants"][PAIR.tenant]["years"][PAIR.year]
            of_year["base_url"] = f"{self._gate.url}{self._other_path}"
        else:
            self.report.faults[filtered] += 1
            document["extract"]["resources"]["locations"] = {
                "query_parameters": {"maximumNumberOfSeats": "20"}
            }
        self._config.write_text(yaml.safe_dump(document))
        self._run([self._errand(chance)])
        self._config.write_text(right)

    def _errand(self, chance: random.Random) -> Errand:
        what = chance.choice(["delta", "delta", "delta", "refresh", "store", "load"])
        some = tuple(chance.sample(ENDPOINTS, 3)) if chance.random() < 0.3 else ()
        errand = Errand(what, some)
        match chance.choice(["none", "none", "place", "place", "place", "moment", "disk", "clock"]):
            case "place":
                return replace(errand, kill=self._kill(chance))
            case "moment":
                return replace(errand, killed_after=chance.uniform(0.1, 2.5))
            case "disk":
                return replace(errand, largest_file=chance.choice([0, 300, 5_000, 400_000]) + 1)
            case "clock":
                return replace(errand, back=chance.choice([2.0, 3_600.0, 400_000.0]))
        return errand

    def _kill(self, chance: random.Random) -> Orders:
        place = chance.choice([*KILL_PLACES, *self._storage.places])
        nth = chance.randrange(1, 60) if place.endswith("send") else chance.randrange(1, 6)
        return Orders(kill=place, nth=nth, after=chance.random() < 0.5)

    def _lose_ods(self, chance: random.Random) -> None:
        """The ODS dies in the middle of a run, and comes back, maybe with an earlier clock."""
        run = Run(self._config, Errand(chance.choice(["delta", "refresh"])), self._folder / "runs.log")
        time.sleep(chance.uniform(0.2, 1.5))
        self._ods.kill()
        self.report.kills["the ODS"] += 1
        self._ods = self._start_ods(chance.choice([0.0, 0.0, 5.0, 3_600.0]))
        self._note(Errand(), run.end())

    def _run(self, errands: list[Errand]) -> None:
        log = self._folder / "runs.log"
        runs = [(errand, Run(self._config, errand, log)) for errand in errands]
        for errand, run in runs:
            self._note(errand, run.end())

    def _note(self, errand: Errand, ended: Ended) -> None:
        self.report.runs[ended.verdict] += 1
        if ended.verdict == "broken":
            self.report.broken.append(f"{errand}: {ended.said[-12000:]}")
        elif ended.verdict == "killed":
            self.report.kills[errand.kill.kill.rpartition(":")[2] or "at some moment"] += 1
            self._storage.bury()
        elif ended.verdict == "failed" and errand.largest_file:
            self.report.kills["disk full"] += 1

    def close(self) -> None:
        self._ods.kill()

    # -- calm ---------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """No more faults and writes; after one delta everything must be as in the ODS, and nothing told what it should not."""
        self._gate.weather = Weather()
        self._storage.calm_down()
        self._ods.finish()
        with self._settings.server() as server:
            self._gate.behind = f"127.0.0.1:{server.port}"
            bench = Bench(self._config, server)
            self.report.writes = bench.store.newest
            bench.materialize()
            bench.verify()
            check_contract(bench)
            assert not any(result.table_changed for result in bench.materialize().values())
            self.report.compared = sum(len(bench.ods_rows(endpoint.path)) for endpoint in bench.endpoints)
        self.report.requests = self._gate.requests
        self.report.faults += self._storage.injected
        secrets = {*self._secrets, *self._gate.tokens}
        found = leaks(self._folder, secrets, self._storage.documents())
        assert not found, f"told what it should not: {found}"
        assert not self.report.broken, self.report.told()


def check_contract(bench: Bench) -> None:
    """No row twice, no tombstone of a living record, no watermark beyond the ODS or what is committed."""
    newest = bench.store.newest
    for endpoint in bench.endpoints:
        table = "_descriptors" if endpoint.is_descriptor else endpoint.snake
        rows = [(record_id, stamp) for record_id, stamp, _ in bench.raw(table, endpoint.snake)]
        assert len(rows) == len(set(rows)), f"{endpoint.path}: a row twice"
        tombstones = bench.raw(bench.platform.tables.deletes, endpoint.snake)
        assert len(tombstones) == len({record_id for record_id, _, _ in tombstones}), endpoint.path
        living = bench.ods_rows(endpoint.path).keys() & {record_id for record_id, _, _ in tombstones}
        assert endpoint.is_descriptor or not living, (
            f"{endpoint.path}: {len(living)} living ones have a tombstone"
        )
    assert all(version <= newest for version in bench.watermarks().values())
    holders = bench.query(
        "SELECT count(*) FROM edfi3._meta_leases WHERE holder IS NOT NULL AND tenant_code = ?", [PAIR.tenant]
    )
    assert holders == [(0,)]
