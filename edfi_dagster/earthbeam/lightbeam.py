"""Lightbeam as a child process: its configuration is written for each run, it is lent our token, and what it did is read from
its results and its state, not from its exit code.

It exits with 0 where records were refused, with 99 where all were skipped, also those refused last time; it never sends
again after 429, and asks for ever where a descriptor may not be read. All of that is answered here.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from edfi_dagster.config.earthbeam import LightbeamOptions, LightbeamTool
from edfi_dagster.earthbeam.descriptors import write_descriptors
from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.lightbeam_results import (
    deletions,
    joined,
    read_results,
    sendings,
    validations,
)
from edfi_dagster.earthbeam.process import Finished, find_tool, run_child, scrubbed_environment
from edfi_dagster.earthbeam.result import ResourceOutcome
from edfi_dagster.earthbeam.scrubbing import scrubbed
from edfi_dagster.earthbeam.sent import SentState, record_files
from edfi_dagster.earthbeam.target import Target
from edfi_dagster.earthbeam.token_relay import TokenRelay
from edfi_dagster.ods.network import certificates
from edfi_dagster.ods.session import OdsSession

Command = Literal["validate", "send", "delete"]
# Sent again here when they stay after Lightbeam's own attempts: it does not wait for a server that asks it to.
PASSING = frozenset({"401", "429", "500", "502", "503", "504"})
PAUSES = (5.0, 20.0, 60.0)
_ATTEMPTS = 4
_READ_AGAIN_LIMIT = 20
_TOKEN_LIMIT, _TOKEN_SECONDS = 20, 60.0
_LOG_LINE = re.compile(r"^\S+ \S+ lightbeam (ERROR|CRITICAL) (?P<message>.*)")
_UNREADABLE = re.compile(r"Unable to load records for (\S+?)\.\.\. (\d+) API response")
_NEW_TOKEN = "fetching new OAuth token due to a 401"  # noqa: S105  (words of its log)


@dataclass(frozen=True)
class Lightbeam:
    """One ODS, one folder of records, one state. ``folder`` takes configuration and logs.

    ``namespaces`` are those of records that are not Ed-Fi's own: endpoint → namespace. ``unread`` takes the descriptor
    collections that could not be checked, as the key may not read them.
    """

    tool: LightbeamTool
    options: LightbeamOptions
    target: Target
    records: Path
    state: SentState
    folder: Path
    session: OdsSession
    namespaces: Mapping[str, str] = field(default_factory=dict)
    sleep: Callable[[float], None] = time.sleep
    unread: list[str] = field(default_factory=list)

    def validate(self, resources: Collection[str]) -> tuple[ResourceOutcome, ...]:
        """Check records against the ODS's schemas and descriptors of now, without sending any.

        Raises ToolFailed, ToolTimedOut, EdFiError.
        """
        selected = self._selected(resources)
        files = [file for name in selected for file in record_files(self.records, name)]
        with self._relay() as relay:
            base = relay.place(self.target.base_url)
            self.unread.extend(
                write_descriptors(self.session, files, self.namespaces, base, self.state.folder / "cache")
            )
            return self._ran("validate", selected, relay)

    def send(self, resources: Collection[str]) -> tuple[ResourceOutcome, ...]:
        """Send records; what was refused for a passing reason is sent again, by fewer connections.

        Raises ToolFailed, ToolTimedOut.
        """
        # What stays in the state is neither to be sent again nor refused last time for a reason that may have passed.
        self.state.forget_due(self.options)
        found = self._run("send", self._selected(resources))
        attempt = self
        for pause in PAUSES:
            if not any(refusal.status in PASSING for outcome in found for refusal in outcome.refusals):
                break
            self.sleep(pause)
            attempt = attempt._gentler()
            self.state.forget_due(attempt.options)
            found = joined(found, attempt._run("send", self._selected(resources)))
        return found

    def _gentler(self) -> Lightbeam:
        """For another attempt: only what was refused for a passing reason, by half as many connections."""
        codes = tuple(sorted(map(int, PASSING)))
        again = {"force": False, "older_than": None, "newer_than": None, "resend_status_codes": codes}
        pool = {"pool_size": max(1, self.tool.pool_size // 2)}
        return replace(
            self, options=self.options.model_copy(update=again), tool=self.tool.model_copy(update=pool)
        )

    def delete(self, resources: Collection[str]) -> tuple[ResourceOutcome, ...]:
        """Delete the records from the ODS, the last of the dependency order first. Raises ToolFailed, ToolTimedOut."""
        found = self._run("delete", self._selected(resources))
        # Lightbeam forgets not all that it deletes, and would skip it when it is sent again.
        self.state.forget(outcome.resource for outcome in found)
        return found

    @contextmanager
    def _relay(self) -> Iterator[TokenRelay]:
        with TokenRelay(self.session, self.target.base_url) as relay:
            yield relay
        if relay.forwards:
            # Lightbeam keeps megabytes for each address of an ODS, and that of a relay does not come again.
            shutil.rmtree(self.state.folder / "cache", ignore_errors=True)

    def _run(self, command: Command, selected: Sequence[str]) -> tuple[ResourceOutcome, ...]:
        with self._relay() as relay:
            return self._ran(command, selected, relay)

    def _ran(
        self, command: Command, selected: Sequence[str], relay: TokenRelay
    ) -> tuple[ResourceOutcome, ...]:
        results = self.folder / f"{command}.json"
        results.unlink(missing_ok=True)
        ended = run_child(
            self._argv(command, results, relay),
            folder=self.folder,
            environment=self._environment(relay),
            seconds=self.tool.timeout_minutes * 60,
            log=self.folder / f"{command}.log",
            watch=Watcher(self.target.base_url),
        )
        if relay.failure is not None and ended.code != 0:
            raise relay.failure
        if command == "delete":
            if ended.code != 0:
                raise ToolFailed(_reason(ended))
            return deletions(ended.log, self.records, selected)
        document = read_results(results)
        if document is None:
            raise ToolFailed(_reason(ended))
        if command == "validate":
            return validations(document, self.records, selected)
        return sendings(document, self.records, selected, self.state.statuses)

    def _environment(self, relay: TokenRelay) -> dict[str, str]:
        environment = scrubbed_environment(self.folder)
        key, secret = relay.credentials
        named = environment.get("no_proxy") or environment.get("NO_PROXY")
        no_proxy = ",".join(filter(None, (named, "127.0.0.1")))
        return {
            **environment,
            **_trusting(certificates()),
            "EDFI_API_CLIENT_ID": key,
            "EDFI_API_CLIENT_SECRET": secret,
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    def _argv(self, command: Command, results: Path, relay: TokenRelay) -> list[str]:
        options = self.options
        config = self.folder / "lightbeam.yaml"
        config.write_text(yaml.safe_dump(self._configuration(relay)), encoding="utf-8")
        argv = [find_tool(self.tool.path), command, "-c", str(config), "--results-file", str(results)]
        argv += ["-s", options.selector] if options.selector else []
        # A deletion skips what it knows as sent, which is just what is to be deleted.
        argv += ["-f"] if options.force or command == "delete" else []
        argv += ["-o", options.older_than] if options.older_than else []
        argv += ["-n", options.newer_than] if options.newer_than else []
        if options.resend_status_codes:
            argv += ["-r", ",".join(map(str, options.resend_status_codes))]
        return argv

    def _configuration(self, relay: TokenRelay) -> dict[str, Any]:
        by_namespace: dict[str, list[str]] = {}
        for name, namespace in self.namespaces.items():
            by_namespace.setdefault(namespace, []).append(name)
        return {
            # Records in folders are found only with the slash.
            "data_dir": f"{self.records}/",
            "state_dir": str(self.state.folder),
            "namespace": "ed-fi",
            **({"namespace_overrides": by_namespace} if by_namespace else {}),
            "edfi_api": {
                **{
                    name: relay.place(value) if isinstance(value, str) else value
                    for name, value in self.target.addresses.items()
                },
                "oauth_url": relay.url,
                "client_id": "${EDFI_API_CLIENT_ID}",
                "client_secret": "${EDFI_API_CLIENT_SECRET}",
            },
            "connection": {
                "pool_size": self.tool.pool_size,
                "timeout": 60,
                "num_retries": _ATTEMPTS,
                "backoff_factor": 1.5,
                "retry_statuses": [500, 502, 503, 504],
                "verify_ssl": self.target.verify_ssl,
            },
            # Without it a deletion waits for somebody to type yes.
            "force_delete": True,
            # Only at this level does it tell that it asks for one token after another.
            "log_level": "DEBUG",
        }

    def _selected(self, resources: Collection[str]) -> list[str]:
        patterns = (self.options.selector or "*").split(",")
        return [name for name in resources if any(_matches(name, pattern.strip()) for pattern in patterns)]


class Watcher:
    """Looks for the circles that Lightbeam goes round in: a collection it may not read, a token that is never accepted."""

    def __init__(self, base_url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._base_url = base_url
        self._clock = clock
        self._unread: dict[tuple[str, str], int] = {}
        self._tokens: list[float] = []

    def __call__(self, line: str) -> str | None:
        if found := _UNREADABLE.search(line):
            endpoint, status = found.groups()
            times = self._unread[endpoint, status] = self._unread.get((endpoint, status), 0) + 1
            if times > _READ_AGAIN_LIMIT:
                return (
                    f"{self._base_url} answers {status} for {endpoint}, which Lightbeam reads to validate; let the key read "
                    "it, or write lightbeam.command: send"
                )
        if _NEW_TOKEN in line:
            now = self._clock()
            self._tokens = [*(then for then in self._tokens if now - then < _TOKEN_SECONDS), now]
            if len(self._tokens) > _TOKEN_LIMIT:
                return f"{self._base_url} accepts none of the tokens that it gives (401); look at its clock and load balancer"
        return None


def _trusting(trusted: str | bool) -> dict[str, str]:
    """The variables of both libraries that Lightbeam asks with, requests and aiohttp."""
    if not isinstance(trusted, str):
        return {}
    own = "SSL_CERT_DIR" if Path(trusted).is_dir() else "SSL_CERT_FILE"
    return {"REQUESTS_CA_BUNDLE": trusted, own: trusted}


def _matches(name: str, pattern: str) -> bool:
    """As Lightbeam compares: a star at the beginning or at the end."""
    return (
        name == pattern
        or (pattern.startswith("*") and name.endswith(pattern.lstrip("*")))
        or (pattern.endswith("*") and name.startswith(pattern.rstrip("*")))
    )


def _reason(ended: Finished) -> str:
    """Why Lightbeam left no results."""
    messages = [found["message"] for line in ended.lines() if (found := _LOG_LINE.match(line))]
    if messages:
        return f"Lightbeam failed: {scrubbed(messages[-1])}"
    return f"Lightbeam failed with exit code {ended.code}, and no error in its log"
