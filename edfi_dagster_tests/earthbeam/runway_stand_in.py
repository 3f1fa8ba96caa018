"""Runway's external API, its token issuer and its file store, over HTTP on this machine, with faults."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import parse_qsl

import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.config.earthbeam import Runway
from edfi_dagster.config.secrets import Secret
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

Step = Literal["token", "create", "upload", "start", "sets"]

CLIENT_ID, CLIENT_SECRET, SIGNATURE = "runway-client-7", "hunter2-of-runway", "5ec2e7519na7u2e"
PAIR = TenantYear("grand_bend", 2026)
PARTNER, BUNDLE = "acme", "assessments/PSAT_SAT"
VARIABLES = frozenset({"INPUT_FILE", "INPUT_FILE_2"})
RESET = Reply(raw=b"", reset=True)


@dataclass(frozen=True)
class Lost:
    """What was asked is done, and then this is answered."""

    reply: Reply


@dataclass
class Job:
    uid: str
    asked: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    starts: int = 0
    state: Literal["new", "running", "done", "failed"] = "new"


class _Server(StandIn):
    def _handler(self) -> type[BaseHTTPRequestHandler]:
        handler = super()._handler()
        handler.do_PUT = handler.do_POST  # type: ignore[attr-defined]
        return handler


class RunwayStandIn:
    """``faults`` are answered first, in turn; ``polls_until_done`` is how often a started job is asked for in vain."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.faults: dict[Step, list[Reply | Lost]] = {}
        self.asked: list[tuple[Step, Asked]] = []
        self.tokens: list[str] = []
        self.token_form = "t0ken-{}"
        self.before: Callable[[Step], None] = lambda step: None
        self.takes_only_forms = False
        self.refuses_tokens = False
        self.has_expired_addresses = False
        self.wraps_lists = False
        self.failing: set[str] = set()
        self.polls_until_done = 1
        # Where it is reached, if that is not its own address.
        self.address: str | None = None
        self._server = _Server(self._answer)

    def __enter__(self) -> RunwayStandIn:
        self._server.__enter__()
        return self

    def __exit__(self, *left: Any) -> None:
        self._server.__exit__(*left)

    @property
    def url(self) -> str:
        return self.address or self._server.url

    def config(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Runway:
        """An ``earthbeam.runway`` block for this server; its id and secret are in the environment."""
        monkeypatch.setenv("RUNWAY_ID", CLIENT_ID)
        monkeypatch.setenv("RUNWAY_SECRET", CLIENT_SECRET)
        options = {
            "base_url": f"{self.url}/api/v1",
            "token_url": f"{self.url}/oauth/token",
            "audience": "https://api.runway.example.org",
            "partner": PARTNER,
            "client_id": Secret(env="RUNWAY_ID"),
            "client_secret": Secret(env="RUNWAY_SECRET"),
        }
        return Runway(**{**options, **changes})

    def of(self, step: Step) -> list[Asked]:
        return [asked for of, asked in self.asked if of == step]

    @property
    def starts(self) -> list[int]:
        return [job.starts for job in self.jobs]

    def _answer(self, asked: Asked) -> Reply:
        step, answering = self._route(asked)
        self.asked.append((step, asked))
        self.before(step)
        fault = self.faults[step].pop(0) if self.faults.get(step) else None
        if isinstance(fault, Reply):
            return fault
        answer = answering(asked)
        return fault.reply if fault else answer

    def _route(self, asked: Asked) -> tuple[Step, Callable[[Asked], Reply]]:
        place = (asked.method, asked.path.removeprefix("/api/v1"))
        if place == ("POST", "/oauth/token"):
            return "token", self._token
        if place == ("POST", "/jobs"):
            return "create", self._create
        if asked.method == "PUT":
            return "upload", self._upload
        if asked.method == "POST" and asked.path.endswith("/start"):
            return "start", self._start
        assert place == ("GET", "/output-sets"), place
        return "sets", self._sets

    def _token(self, asked: Asked) -> Reply:
        kind = asked.headers["content-type"]
        if self.takes_only_forms and "json" in kind:
            return Reply({"error": "invalid_request"}, 415)
        given = asked.json() if "json" in kind else dict(parse_qsl(asked.body.decode()))
        wanted = {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "audience": "https://api.runway.example.org",
            "scope": f"create:jobs read:jobs partner:{PARTNER}",
        }
        if given != wanted:
            return Reply({"error": "access_denied"}, 401)
        token = self.token_form.format(len(self.tokens))
        self.tokens.append(token)
        return Reply({"access_token": token, "expires_in": 3600})

    def _create(self, asked: Asked) -> Reply:
        if refusal := self._refusal(asked):
            return refusal
        given = asked.json()
        if not set(given["files"]) <= VARIABLES or "/" in "".join(given["files"].values()):
            return Reply(
                {"message": [f"Unexpected file input: {', '.join(given['files'])}"], "statusCode": 400}, 400
            )
        if given["tenant"] != PAIR.tenant or given["schoolYear"] != str(PAIR.year):
            return Reply({"message": "No ODS found for school year", "statusCode": 400}, 400)
        job = Job(str(uuid.uuid4()), given)
        self.jobs.append(job)
        urls = {
            name: f"{self.url}/bucket/{job.uid}/{name}?X-Amz-Signature={SIGNATURE}%2F{name}"
            for name in given["files"]
        }
        return Reply({"uid": job.uid, "uploadUrls": urls}, 201)

    def _upload(self, asked: Asked) -> Reply:
        _, _, uid, name = asked.path.split("/")
        assert "authorization" not in asked.headers
        assert asked.headers["content-type"] == "application/octet-stream"
        if asked.query.get("X-Amz-Signature") != f"{SIGNATURE}/{name}" or self.has_expired_addresses:
            return Reply(
                b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", 403
            )
        self._job(uid).files[name] = asked.body
        return Reply()

    def _start(self, asked: Asked) -> Reply:
        if refusal := self._refusal(asked):
            return refusal
        uid = asked.path.split("/")[-2]
        job = self._job(uid)
        if set(job.files) != set(job.asked["files"]):
            return Reply({"message": "Files are missing", "statusCode": 400}, 400)
        if job.state == "running":
            return Reply({"message": "Job is already running", "statusCode": 400}, 400)
        job.starts += 1
        name = next(iter(job.asked["files"].values()))
        job.state = "failed" if name in self.failing else "running"
        return Reply(status=202)

    def _sets(self, asked: Asked) -> Reply:
        if refusal := self._refusal(asked):
            return refusal
        assert asked.query["partner"] == PARTNER
        assert asked.query["createdAfter"].endswith("Z")
        running = [job for job in self.jobs if job.state == "running"]
        if running and self.polls_until_done:
            self.polls_until_done -= 1
        else:
            for job in running:
                job.state = "done"
        rows = [self._output_set(job) for job in self.jobs if job.state == "done"]
        return Reply({"data": rows} if self.wraps_lists else rows)

    def _output_set(self, job: Job) -> dict[str, Any]:
        return {
            "uid": f"set-of-{job.uid}",
            "jobUid": job.uid,
            "files": ["studentAssessments.jsonl"],
            "sentToOds": True,
            "createdAt": "2026-03-15T14:30:00.000Z",
            "partner": PARTNER,
            "tenant": job.asked["tenant"],
            "schoolYear": job.asked["schoolYear"],
            "bundle": job.asked["bundle"],
        }

    def _job(self, uid: str) -> Job:
        return next(job for job in self.jobs if job.uid == uid)

    def _refusal(self, asked: Asked) -> Reply | None:
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        # A token that its issuer signed is good until it expires, however many came after it.
        is_known = token in self.tokens and not self.refuses_tokens
        return None if is_known else Reply(json.dumps({"message": f"{token} is unknown"}).encode(), 401)
