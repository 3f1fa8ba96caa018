"""What people see: ``dagster dev`` in headless Chromium. A table is found, a partition launched, its end watched and read."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from edfi_dagster_tests.bench import Bench

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
TOP = Path(__file__).parents[2]
STUDENTS = 'key:"ed_fi/students*" or key:"raw_edfi_3/students"'
_START_SECONDS = 120.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
    ),
]


class Page:
    """One tab, and what can be done in it."""

    def __init__(self, address: str, shots: Path) -> None:
        options = Options()
        options.binary_location = str(CHROMIUM)
        for argument in (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1600,1000",
        ):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self._address = address
        self._shots = shots

    def open(self, path: str, *expected: str) -> str:
        """Open a path; what it shows once ``expected`` is among it."""
        self.driver.get(self._address + path)
        return self.showing(*expected)

    def showing(self, *expected: str, seconds: float = 60.0) -> str:
        until = time.monotonic() + seconds
        while True:
            text = self.driver.find_element(By.TAG_NAME, "body").text
            if all(part in text for part in expected):
                return text
            assert time.monotonic() < until, f"{expected} not in: {text[:3000]}"
            time.sleep(0.5)

    def click(self, label: str) -> None:
        """Press every visible button of that label, as the partition dialog has one for each dimension."""
        path = f"//button[normalize-space(.)='{label}' or starts-with(normalize-space(.), '{label} ') or "
        path += f"normalize-space(.)='{label}…']"
        until = time.monotonic() + 30
        while not (
            found := [
                b for b in self.driver.find_elements(By.XPATH, path) if b.is_displayed() and b.is_enabled()
            ]
        ):
            assert time.monotonic() < until, f"no button {label!r}"
            time.sleep(0.5)
        for button in found:
            button.click()
            time.sleep(0.5)

    def shoot(self, name: str) -> None:
        self._shots.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(self._shots / f"{name}.png"))


@pytest.fixture
def address(make_bench: Callable[..., Bench], tmp_path: Path) -> Iterator[str]:
    """A platform of one tenant and year with every endpoint, served by ``dagster dev``."""
    bench = make_bench()
    document = bench.config.read_text().replace("resources: none", "resources: all")
    bench.config.write_text(document.replace("descriptors: none", "descriptors: all"))
    shutil.copy(TOP / "dagster.yaml", bench.folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-m", "edfi_dagster.definitions"]
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    environment["EDFI_DAGSTER_CONFIG"] = str(bench.config)
    with (tmp_path / "dev.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "-p", str(port)],
            cwd=bench.folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield _answering(f"http://127.0.0.1:{port}", server, tmp_path / "dev.log")
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _answering(address: str, server: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + _START_SECONDS
    while True:
        assert server.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
        try:
            if requests.get(f"{address}/server_info", timeout=5).ok:
                return address
        except requests.ConnectionError:
            time.sleep(0.5)


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator[Page]:
    # Kept where EDFI_DAGSTER_SHOTS says, to be looked at.
    page = Page(address, Path(os.environ.get("EDFI_DAGSTER_SHOTS", tmp_path / "shots")))
    yield page
    page.driver.quit()


def finished(address: str) -> str:
    """The status of the newest run, once it has ended."""
    query = "{runsOrError(limit: 1) {... on Runs {results {status}}}}"
    until = time.monotonic() + 240
    while True:
        answer = requests.post(f"{address}/graphql", json={"query": query}, timeout=30).json()
        runs = answer["data"]["runsOrError"]["results"]
        if runs and runs[0]["status"] in {"SUCCESS", "FAILURE", "CANCELED"}:
            return str(runs[0]["status"])
        assert time.monotonic() < until, answer
        time.sleep(1)


def test_a_table_is_found_launched_watched_and_read(page: Page, address: str) -> None:
    page.open("/asset-groups", "student_academic_record")
    time.sleep(3)
    page.shoot("1_groups")
    page.open("/assets/raw_edfi_3/students?view=lineage", "students", "deletes")
    time.sleep(3)
    page.shoot("2_lineage_of_a_table")
    page.open(f"/asset-groups~{quote(STUDENTS, safe='')}/", "students", "Materialize all…")
    page.click("Materialize all")
    page.showing("Launch")
    page.click("All")
    page.shoot("3_partition_dialog")
    page.click("Launch")
    assert finished(address) == "SUCCESS"
    text = page.open("/assets/raw_edfi_3/students?view=events", "edfi/rows_loaded", "edfi/max_change_version")
    time.sleep(2)
    page.shoot("4_what_was_loaded")
    assert "edfi/full_refresh" in text
    page.open("/assets/raw_edfi_3/students?view=partitions", "grand_bend", "2025")
    time.sleep(2)
    page.shoot("5_partitions")
    page.open("/automation", "ods_changes")
    time.sleep(2)
    page.shoot("6_automation")
