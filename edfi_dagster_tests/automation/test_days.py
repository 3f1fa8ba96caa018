"""Days of two tenants on real ODSs over HTTP, tick by tick: one ODS goes down and comes back, one forbids an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from edfi_dagster.automation.change_sensor import CHANGE_SENSOR
from edfi_dagster.automation.everything import Outside
from edfi_dagster.automation.inquiry import OdsSessions
from edfi_dagster.automation.lateness import LATE_SENSOR
from edfi_dagster.automation.notifications import FAILURE_SENSOR
from edfi_dagster.automation.slack import Channel
from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.definitions import build
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.automation.daemon import Clock, Daemon
from edfi_dagster_tests.automation.platforms import GRAND_BEND, LAKEVIEW
from edfi_dagster_tests.automation.slack_stand_in import SlackStandIn
from edfi_dagster_tests.bench import student


class District:
    """An ODS that can go down, and come back at the same address with the same data."""

    def __init__(self, pair: TenantYear, folder: Path) -> None:
        self.pair = pair
        self._folder = folder
        self._port = 0
        self.up()

    def up(self) -> None:
        self.server = SandboxServer(
            [str(self.pair)], rows={"students": 16}, data_dir=self._folder, port=self._port
        ).start()
        self._port = self.server.port

    def down(self) -> None:
        self.server.stop()

    def enrol(self, number: int) -> None:
        self.server.store().post("students", student(number))

    @property
    def students(self) -> int:
        return self.server.store().count("students")


class Days:
    """The platform of both districts, its daemon, and its warehouse."""

    def __init__(
        self, platform: Platform, outside: Outside, instance: dg.DagsterInstance, clock: Clock
    ) -> None:
        self.daemon = Daemon(build(platform, outside), instance, clock)
        self._warehouse = platform.folder / "warehouse.duckdb"

    def night(self, pair: TenantYear) -> bool:
        """The pair's schedule at this moment; whether its run succeeded."""
        (request,) = self.daemon.schedule(f"{pair.tenant}_{pair.year}").requests
        return self.daemon.execute(request).success

    def watch(self) -> tuple[list[str | None], str]:
        """A tick of the change sensor, with all it asks for: run keys, and what it says."""
        tick = self.daemon.sensor(CHANGE_SENSOR)
        for request in tick.requests:
            assert self.daemon.execute(request).success
        return [request.run_key for request in tick.requests], tick.skipped

    def loaded(self) -> dict[str, int]:
        with duckdb.connect(str(self._warehouse), read_only=True) as connection:
            return dict(
                connection.execute(
                    "SELECT tenant_code, count(*) FROM edfi3.students_current GROUP BY 1"
                ).fetchall()
            )


@pytest.fixture
def districts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[District]]:
    with ExitStack() as stack:
        found = []
        for pair in (GRAND_BEND, LAKEVIEW):
            district = District(pair, tmp_path / "ods")
            stack.callback(district.down)
            monkeypatch.setenv("ODS_KEY", district.server.credentials[0])
            monkeypatch.setenv("ODS_SECRET", district.server.credentials[1])
            found.append(district)
        yield found


@pytest.fixture
def days(
    districts: list[District], tmp_path: Path, instance: dg.DagsterInstance, slack: SlackStandIn
) -> Iterator[Days]:
    document = {
        "lake": {"kind": "local", "root": "lake"},
        "warehouse": {"kind": "duckdb", "path": "warehouse.duckdb"},
        "slack": {"token": {"env": "SLACK_TOKEN"}, "channel": "#edfi"},
        "extract": {"resources": {"students": {}, "sessions": {}}, "descriptors": "none"},
        "tenants": {
            district.pair.tenant: {
                "years": {
                    district.pair.year: {
                        "base_url": district.server.url_of(str(district.pair)),
                        "client_id": {"env": "ODS_KEY"},
                        "client_secret": {"env": "ODS_SECRET"},
                        "schedule": "0 2 * * *",
                    }
                }
            }
            for district in districts
        },
    }
    platform = parse_platform(yaml.safe_dump(document), "platform.yaml", tmp_path)
    assert platform.slack
    clock, sessions = Clock(), OdsSessions(platform)
    outside = Outside(sessions.newest, Channel(platform.slack, api=slack.api), clock)
    yield Days(platform, outside, instance, clock)
    sessions.close()


def test_an_ods_goes_down_and_comes_back(days: Days, districts: list[District], slack: SlackStandIn) -> None:
    grand_bend, lakeview = districts
    daemon, clock = days.daemon, days.daemon.clock
    daemon.sensor(FAILURE_SENSOR)
    clock.pass_(hours=2)
    assert days.night(GRAND_BEND)
    assert days.night(LAKEVIEW)
    assert days.loaded() == {"grand_bend": grand_bend.students, "lakeview": lakeview.students}

    version = {d.pair: d.server.store().newest for d in districts}
    keys, _ = days.watch()
    assert keys == [f"{p.tenant}|{p.year}|{v}|1" for p, v in version.items()]
    assert days.watch() == ([], "2 of 2 ODSs answered")

    grand_bend.enrol(1)
    lakeview.enrol(1)
    expected = lakeview.students
    lakeview.down()
    clock.pass_(minutes=1)
    keys, _ = days.watch()
    assert keys == [f"grand_bend|2025|{grand_bend.server.store().newest}|1"]
    keys, said = days.watch()
    assert keys == []
    assert said.startswith("1 of 2 ODSs answered; no answer: lakeview/2025: ")
    assert days.loaded() == {"grand_bend": grand_bend.students, "lakeview": expected - 1}

    clock.pass_(days=2)
    assert days.night(GRAND_BEND)
    daemon.note(daemon.schedule("lakeview_2025").requests[0], dg.DagsterRunStatus.FAILURE)
    for _ in range(2):
        daemon.sensor(FAILURE_SENSOR)
        daemon.sensor(LATE_SENSOR)
    failed, late = [text for _, text in slack.messages]
    assert failed.startswith(":x: *lakeview/2025*: extract_and_load failed\n")
    assert late.startswith(":hourglass: late\n• lakeview/2025: last success 2025-11-03 02:00 UTC, due since")

    lakeview.up()
    clock.pass_(minutes=1)
    keys, _ = days.watch()
    assert keys == [f"lakeview|2025|{lakeview.server.store().newest}|1"]
    assert days.loaded() == {"grand_bend": grand_bend.students, "lakeview": expected}
    assert days.watch() == ([], "2 of 2 ODSs answered")
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late"
    assert len(slack.messages) == 2


def test_an_endpoint_that_is_forbidden_fails_its_own_tenant_and_loses_nothing(
    days: Days, districts: list[District], slack: SlackStandIn
) -> None:
    grand_bend, lakeview = districts
    daemon, clock = days.daemon, days.daemon.clock
    daemon.sensor(FAILURE_SENSOR)
    clock.pass_(hours=2)
    (request,) = daemon.schedule("grand_bend_2025").requests
    assert request.tags["edfi/tenant"] == "grand_bend"
    assert request.tags["edfi/year"] == "2025"
    assert request.tags["edfi/trigger"] == "schedule"
    assert daemon.execute(request).success
    assert days.night(LAKEVIEW)

    ods = grand_bend.server.store()
    ods.deny("sessions")
    grand_bend.enrol(1)
    lakeview.enrol(1)
    clock.pass_(days=1)
    assert not days.night(GRAND_BEND)
    assert days.night(LAKEVIEW)
    # What may be read is loaded, and nothing of what may not is taken away.
    assert days.loaded() == {"grand_bend": grand_bend.students, "lakeview": lakeview.students}
    daemon.sensor(FAILURE_SENSOR)
    ((_, message),) = slack.messages
    assert message.startswith(":x: *grand_bend/2025*: extract_and_load failed")
    assert "`ed-fi/sessions`: HTTP 403" in message
    assert "lakeview" not in message

    clock.pass_(hours=30)
    checked = daemon.repository.get_job("check_lateness").execute_in_process(instance=daemon.instance)
    (found,) = checked.get_asset_check_evaluations()
    assert not found.passed
    late = found.metadata["edfi/who"]
    assert isinstance(late, dg.TableMetadataValue)
    assert [record.data["tenant"] for record in late.records] == ["grand_bend"]

    ods.allow("sessions")
    assert daemon.execute(request).success
    daemon.sensor(FAILURE_SENSOR)
    assert len(slack.messages) == 1
