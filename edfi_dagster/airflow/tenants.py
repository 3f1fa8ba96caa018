"""One tenant and year: its ODS, its schedules, and what it pulls otherwise than the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edfi_dagster.airflow.arguments import RESOURCE_DAG, RUN_PARAMETERS, TASK_ARGUMENTS, by_name
from edfi_dagster.airflow.connections import Connection, find
from edfi_dagster.airflow.documents import Interval, mapping
from edfi_dagster.airflow.endpoints import Endpoints
from edfi_dagster.airflow.report import Report
from edfi_dagster.airflow.schedules import full_refresh, routine
from edfi_dagster.config.extract import ENDPOINT_KINDS
from edfi_dagster.config.values import BaseUrl

DAGS = "edfi_resource_dags"
SWITCHES = ("use_change_version", "get_key_changes", "pull_total_counts")
_NESTED = re.compile(r"/(data/v3|oauth|metadata|api/v2\.0)(/.*)?$", re.IGNORECASE)
_ED_FI_EXTRAS = {"api_version", "api_mode", "api_year", "instance_code", "verify_ssl", "use_snapshot"}
_ED_FI_TYPES = {"", "http", "https", "edfi", "ed_fi", "generic"}
_BASE_URL: TypeAdapter[str] = TypeAdapter(BaseUrl)

Arguments = Mapping[str, Any]
Variable = Callable[[str], str]


class TenantYears:
    """Translates the DAG of one tenant and year after the other."""

    def __init__(
        self,
        connections: Mapping[str, Connection],
        endpoints: Endpoints,
        report: Report,
        variable: Variable,
        connections_file: str,
    ) -> None:
        self._connections = connections
        self._endpoints = endpoints
        self._report = report
        self._variable = variable
        self._file = connections_file

    def year(self, tenant: str, year: int, dag: Arguments) -> dict[str, Any]:
        """The block of a tenant's year."""
        place, path = f"{tenant}/{year}", f"{DAGS}.{tenant}.{year}"
        self._leave_arguments(dag, path)
        block, extract = self._ods(dag, place, year)
        if dag.get("multiyear"):
            block["multiyear"] = True
            self._report.take("multiyear", "multiyear", place)
        block |= self._schedules(dag, place, path)
        for name in SWITCHES:
            if dag.get(name) is not None:
                extract[name] = dag[name]
                self._report.take(name, f"extract.{name}", place)
        if (hours := sla_hours(dag)) is not None:
            extract["late_after_hours"] = hours
            self._report.take("default_args.sla", "extract.late_after_hours", place)
        for kind in ENDPOINT_KINDS:
            if own := dag.get(argument := f"{kind[:-1]}_configs"):
                extract.update(self._endpoints.differing(own, f"{path}.{argument}"))
        return {**block, **({"extract": extract} if extract else {})}

    def _leave_arguments(self, dag: Arguments, path: str) -> None:
        """Name what has no counterpart, if it says anything."""
        known, of_tasks = by_name(RUN_PARAMETERS) | by_name(RESOURCE_DAG), by_name(TASK_ARGUMENTS)
        for name, value in dag.items():
            argument = known.get(str(name))
            if argument is None:
                self._report.leave(str(name), "not known to the project or here; not read", f"{path}.{name}")
            elif not argument.taken and value not in (None, "", False):
                self._report.leave(str(name), argument.place, f"{path}.{name}")
        for name, value in mapping(dag.get("default_args")).items():
            task = of_tasks.get(str(name))
            is_read = task is not None and task.taken and isinstance(value, Interval)
            if not is_read and value not in (None, "", False, 0):
                instead = task.place if task else "not known; not read"
                self._report.leave(f"default_args.{name}", instead, f"{path}.default_args.{name}")

    # -- the ODS ------------------------------------------------------------------------------------------

    def _ods(self, dag: Arguments, place: str, year: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """How the ODS is reached, and what of ``extract`` its connection says."""
        given = dag.get("edfi_conn_id")
        if not given:
            self._report.leave(
                "edfi_conn_id",
                "is not given; write base_url, client_id and client_secret",
                f"{DAGS}.{place.replace('/', '.')}",
            )
        name = str(given or f"edfi_{place.replace('/', '_')}")
        connection, variable = find(self._connections, name), self._variable(name)
        block: dict[str, Any] = {"base_url": self._base_url(name, connection if given else None, bool(given))}
        block["client_id"] = self._report.secret(f"{variable}_KEY", f"{name}: login")
        block["client_secret"] = self._report.secret(f"{variable}_SECRET", f"{name}: password")
        if connection is None:
            return block, {}
        if not block["base_url"].endswith(".invalid/api"):
            self._report.take("edfi_conn_id", "base_url, client_id, client_secret", place)
        return {**block, **self._ods_options(connection, place, year)}, self._snapshots(connection, place)

    def _base_url(self, name: str, connection: Connection | None, is_named: bool) -> str:
        """The API's root; an address that leads nowhere if it is not known."""
        why = "is not among those given"
        if connection is not None and connection.type not in _ED_FI_TYPES:
            why = f"is of kind {connection.type}, which no ODS is"
        elif connection is not None and not connection.host:
            why = "names no host"
        elif connection is not None:
            try:
                return _BASE_URL.validate_python(self._address(connection))
            except ValidationError as error:
                why = f"has a host that {_reason(error)}"
        if is_named:
            self._report.leave("host", f"the connection {why}; write base_url", name, self._file)
        host = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "ods"
        return f"https://{host}.invalid/api"

    def _address(self, connection: Connection) -> str:
        scheme, separator, host = connection.host.strip().rstrip("/").rpartition("://")
        if not separator:
            scheme = "http" if connection.schema == "http" else "https"
        authority, slash, path = host.partition("/")
        if connection.port and ":" not in authority:
            authority = f"{authority}:{connection.port}"
        whole = f"{scheme}://{authority}{slash}{path}"
        url = _NESTED.sub("", whole)
        if url != whole:
            self._report.remark("the host went below the API's root; it was cut to that", connection.id)
        return url

    def _ods_options(self, connection: Connection, place: str, year: int) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if connection.option("api_version").partition(".")[0] == "2":
            options["api_version"] = "2"
        if mode := connection.option("api_mode"):
            options["api_mode"] = mode
        if instance := connection.option("instance_code"):
            options["instance_code"] = instance
        if connection.says("verify_ssl") is False:
            options["verify_ssl"] = False
        if (other := connection.option("api_year")) not in {"", str(year)}:
            self._report.leave(
                "api_year", f"is {other}, but the year of {place} is asked for", connection.id, self._file
            )
        for key in sorted(connection.extra.keys() - _ED_FI_EXTRAS):
            self._report.leave(f"extra {key}", "not known; not read", connection.id, self._file)
        return options

    def _snapshots(self, connection: Connection, place: str) -> dict[str, Any]:
        uses = connection.says("use_snapshot")
        if uses is None:
            return {}
        self._report.take("Ed-Fi: use_snapshot", "extract.use_snapshot", place)
        return {"use_snapshot": uses}

    # -- schedules ----------------------------------------------------------------------------------------

    def _schedules(self, dag: Arguments, place: str, path: str) -> dict[str, str]:
        def remark(text: str) -> None:
            self._report.remark(text, place)

        def leaving(argument: str) -> Callable[[str], None]:
            return lambda why: self._report.leave(argument, why, f"{path}.{argument}")

        # The template's DAG file puts the resources' schedule in place of the common one, which descriptors then get.
        name = "schedule_interval_resources"
        name = name if dag.get(name) else "schedule_interval"
        resources = routine(dag.get(name), remark, leaving(name))
        own = dag.get("schedule_interval_descriptors")
        descriptors = routine(own, remark, leaving("schedule_interval_descriptors")) if own else resources
        refresh = full_refresh(
            dag.get("schedule_interval_full_refresh"),
            resources,
            remark,
            leaving("schedule_interval_full_refresh"),
        )
        same = resources == descriptors
        found = {
            "schedule": resources if same else None,
            "schedule_resources": None if same else resources,
            "schedule_descriptors": None if same else descriptors,
            "schedule_full_refresh": refresh,
        }
        for new, cron in found.items():
            if cron is not None:
                self._report.take(new.replace("schedule", "schedule_interval"), new, place)
        return {new: cron for new, cron in found.items() if cron is not None}


def sla_hours(dag: Arguments) -> float | None:
    """After how many hours a DAG is late, if it says so."""
    sla = mapping(dag.get("default_args")).get("sla")
    if not isinstance(sla, Interval) or sla.seconds <= 0:
        return None
    return sla.seconds // 3600 if sla.seconds % 3600 == 0 else sla.seconds / 3600


def _reason(error: ValidationError) -> str:
    """What our own check says of an address, without the remedy."""
    text = str(error.errors(include_url=False)[0].get("ctx", {}).get("error", "is not an address"))
    return text.partition(";")[0].removeprefix("the URL ")
