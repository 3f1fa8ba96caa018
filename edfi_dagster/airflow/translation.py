"""``airflow_config_*.yml`` as a configuration: its tenants and years, and what all of them share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edfi_dagster.airflow import stores
from edfi_dagster.airflow.arguments import BLOCKS, RESOURCE_DAG, TASK_ARGUMENTS, by_name
from edfi_dagster.airflow.connections import Connection
from edfi_dagster.airflow.documents import Interval, mapping
from edfi_dagster.airflow.endpoints import Endpoints
from edfi_dagster.airflow.report import Report
from edfi_dagster.airflow.schedules import full_refresh, routine
from edfi_dagster.config import ConfigError
from edfi_dagster.config.environment import variable_names
from edfi_dagster.config.extract import ENDPOINT_KINDS

DAGS = "edfi_resource_dags"
_NESTED = re.compile(r"/(data/v3|oauth|metadata|api/v2\.0)(/.*)?$", re.IGNORECASE)
_SWITCHES = ("use_change_version", "get_key_changes", "pull_total_counts")
_STORES = ("s3_conn_id", "object_storage_conn_id", "snowflake_conn_id", "database_conn_id", "slack_conn_id")
_ED_FI_EXTRAS = {"api_version", "api_mode", "instance_code", "verify_ssl"}
_RUN_TYPES = {"bulk", "default", "dynamic"}

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Airflow:
    """What there is of the project: its YAML, the two lists of endpoints where there are such, its connections."""

    config: Mapping[Any, Any]
    resources: Mapping[Any, Any] | None = None
    descriptors: Mapping[Any, Any] | None = None
    connections: Mapping[str, Connection] = field(default_factory=dict)


@dataclass(frozen=True)
class Translation:
    """A configuration as plain values, in the order it is to be written, and what there is to say about it."""

    document: dict[str, Any]
    report: Report


def translate(airflow: Airflow, *, local: bool = False) -> Translation:
    """Return the configuration that does what the project's DAGs do.

    ``local`` puts lake and warehouse into a folder, to try it beside Airflow without touching its tables. Raises
    ConfigError where there are no DAGs of tenants and years.
    """
    return _Translator(airflow, local).translation()


class _Translator:
    def __init__(self, airflow: Airflow, local: bool) -> None:
        self._airflow, self._local = airflow, local
        self._report = Report()
        self._dags = dict(self._declared())
        if not self._dags:
            raise ConfigError(
                f"the Airflow configuration has no tenants and school years (as in 2025) under {DAGS}"
            )
        names = [
            str(dag[key]) for dag in self._dags.values() for key in ("edfi_conn_id", *_STORES) if dag.get(key)
        ]
        self._variables = variable_names(names)

    def translation(self) -> Translation:
        self._leave_blocks()
        endpoints = self._endpoints()
        tenants: dict[str, Any] = {}
        for (tenant, year), dag in self._dags.items():
            tenants.setdefault(tenant, {"years": {}})["years"][year] = self._year(
                tenant, year, dag, endpoints
            )
        document: dict[str, Any] = {
            **self._stores(),
            "timezone": "UTC",
            "extract": self._extract(tenants, endpoints),
        }
        if tables := stores.tables(self._shared(*stores.TABLE_ARGUMENTS), self._report):
            document["tables"] = tables
        self._report.remark("crons are Airflow's UTC: with another timezone, change them as well", "timezone")
        return Translation({**document, "tenants": tenants}, self._report)

    # -- what the file declares ---------------------------------------------------------------------------

    def _declared(self) -> Iterator[tuple[tuple[str, int], Arguments]]:
        for tenant, years in mapping(self._airflow.config.get(DAGS)).items():
            for year, arguments in mapping(years).items():
                place = f"{tenant}/{year}"
                if not str(year).isdecimal():
                    self._report.remark(
                        "is no school year, and left out: write its spring, as in 2025", place
                    )
                elif not isinstance(arguments, Mapping):
                    self._report.remark("has no arguments, and is left out", place)
                else:
                    yield (str(tenant), int(year)), arguments

    def _leave_blocks(self) -> None:
        known = by_name(BLOCKS)
        for block in self._airflow.config:
            argument = known.get(str(block))
            if argument is None:
                self._report.leave(str(block), "not known; not read", "blocks")
            elif (
                not argument.taken and "__default_args" not in argument.name and block != "default_task_args"
            ):
                self._report.leave(str(block), argument.place, "blocks")

    # -- what all share -----------------------------------------------------------------------------------

    def _endpoints(self) -> Endpoints:
        endpoints = Endpoints(self._report)
        for kind, listed in zip(
            ENDPOINT_KINDS, (self._airflow.resources, self._airflow.descriptors), strict=True
        ):
            if listed is not None:
                endpoints.add(listed, kind, f"edfi_{kind}.yml")
            for (tenant, year), dag in self._dags.items():
                if own := dag.get(f"{kind[:-1]}_configs"):
                    endpoints.add(own, kind, f"{tenant}/{year}")
        endpoints.settle()
        return endpoints

    def _stores(self) -> dict[str, Any]:
        shared = self._shared(*_STORES)
        document: dict[str, Any] = {"lake": stores.LOCAL_LAKE, "warehouse": stores.LOCAL_WAREHOUSE}
        if not self._local:
            bucket = str(shared.get("object_storage_conn_id") or shared.get("s3_conn_id") or "data_lake")
            database = str(shared.get("database_conn_id") or shared.get("snowflake_conn_id") or "snowflake")
            found = self._airflow.connections
            document["lake"] = stores.lake(found.get(bucket), bucket, self._variable(bucket), self._report)
            document["warehouse"] = stores.warehouse(
                found.get(database), database, self._variable(database), self._report
            )
        if name := shared.get("slack_conn_id"):
            has_sla = any(_sla(dag) for dag in self._dags.values())
            document["slack"] = stores.slack(str(name), self._variable(str(name)), has_sla, self._report)
        return document

    def _variable(self, name: str) -> str:
        return self._variables.get(name) or next(iter(variable_names([name]).values()))

    def _extract(self, tenants: Mapping[str, Any], endpoints: Endpoints) -> dict[str, Any]:
        extract: dict[str, Any] = {}
        run_type = self._shared("run_type").get("run_type")
        if run_type in _RUN_TYPES:
            extract["run_type"] = run_type
            self._report.take("run_type", "extract.run_type", "all")
        if tmp_dir := self._shared("tmp_dir").get("tmp_dir"):
            if Path(str(tmp_dir)).is_dir():
                extract["tmp_dir"] = str(tmp_dir)
            else:
                self._report.remark(
                    f"tmp_dir {tmp_dir} is not on this machine, and left out", "extract.tmp_dir"
                )
        extract |= _hoisted([year for tenant in tenants.values() for year in tenant["years"].values()])
        if endpoints.defaults:
            extract["endpoint_defaults"] = endpoints.defaults
        for kind in ENDPOINT_KINDS:
            extract[kind] = endpoints.selection(kind)
            on, off = endpoints.count(kind)
            if on or off:
                self._report.take(f"edfi_{kind}.yml", f"extract.{kind}: {on} on, {off} off", "all")
        return extract

    def _shared(self, *names: str) -> dict[str, Any]:
        """The value of each argument that most DAGs give; where others differ, that is said."""
        found = {}
        for name in names:
            counted = Counter(str(dag[name]) for dag in self._dags.values() if dag.get(name))
            if not counted:
                continue
            found[name] = most = counted.most_common(1)[0][0]
            for (tenant, year), dag in self._dags.items():
                if dag.get(name) and str(dag[name]) != most:
                    self._report.remark(
                        f"{name} is {dag[name]} here, but one for all: {most}", f"{tenant}/{year}"
                    )
        return found

    # -- one tenant and year ------------------------------------------------------------------------------

    def _year(self, tenant: str, year: int, dag: Arguments, endpoints: Endpoints) -> dict[str, Any]:
        place = f"{tenant}/{year}"
        self._leave_arguments(dag, place)
        block = self._ods(dag, place)
        if dag.get("multiyear"):
            block["multiyear"] = True
            self._report.take("multiyear", "multiyear", place)
        block |= self._schedules(dag, place)
        extract: dict[str, Any] = {name: bool(dag[name]) for name in _SWITCHES if dag.get(name) is not None}
        for name in extract:
            self._report.take(name, f"extract.{name}", place)
        if (sla := _sla(dag)) is not None:
            extract["late_after_hours"] = sla
            self._report.take("default_args.sla", "extract.late_after_hours", place)
        for kind in ENDPOINT_KINDS:
            if own := dag.get(f"{kind[:-1]}_configs"):
                extract.update(endpoints.differing(own, place))
        return {**block, **({"extract": extract} if extract else {})}

    def _leave_arguments(self, dag: Arguments, place: str) -> None:
        """Name what has no counterpart, if it says anything."""
        known, of_tasks = by_name(RESOURCE_DAG), by_name(TASK_ARGUMENTS)
        for name, value in dag.items():
            argument = known.get(str(name))
            if argument is None:
                self._report.leave(str(name), "not known to the project or here; not read", place)
            elif not argument.taken and value not in (None, "", False):
                self._report.leave(str(name), argument.place, place)
        for name, value in mapping(dag.get("default_args")).items():
            task = of_tasks.get(str(name))
            if task is None or (not task.taken and value not in (None, "", False, 0)):
                instead = task.place if task else "not known; not read"
                self._report.leave(f"default_args.{name}", instead, "all")

    def _ods(self, dag: Arguments, place: str) -> dict[str, Any]:
        name = dag.get("edfi_conn_id")
        if not name:
            self._report.remark("has no edfi_conn_id: write base_url, client_id and client_secret", place)
        name = str(name or f"edfi_{place.replace('/', '_')}")
        connection, variable = self._airflow.connections.get(name), self._variable(name)
        if connection is None or not connection.host:
            host = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            block: dict[str, Any] = {"base_url": f"https://{host}.invalid/api"}
            self._report.remark(f"the host of connection {name} was not given: write base_url", place)
        else:
            block = {"base_url": self._base_url(connection)}
            self._report.take("edfi_conn_id", "base_url, client_id, client_secret", place)
        block["client_id"] = self._report.secret(f"{variable}_KEY", f"{name}: login")
        block["client_secret"] = self._report.secret(f"{variable}_SECRET", f"{name}: password")
        return {**block, **(self._ods_options(connection) if connection else {})}

    def _base_url(self, connection: Connection) -> str:
        scheme, separator, host = connection.host.rstrip("/").rpartition("://")
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

    def _ods_options(self, connection: Connection) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if connection.option("api_version").partition(".")[0] == "2":
            options["api_version"] = "2"
        if mode := connection.option("api_mode"):
            options["api_mode"] = mode
        if instance := connection.option("instance_code"):
            options["instance_code"] = instance
        if connection.extra.get("verify_ssl") is False:
            options["verify_ssl"] = False
        for key in sorted(connection.extra.keys() - _ED_FI_EXTRAS):
            self._report.leave(f"Ed-Fi: {key}", "not known; not read", connection.id)
        return options

    def _schedules(self, dag: Arguments, place: str) -> dict[str, str]:
        def remark(text: str) -> None:
            self._report.remark(text, place)

        # The template's DAG file puts the resources' schedule in place of the common one, which descriptors then get.
        given = dag.get("schedule_interval_resources") or dag.get("schedule_interval")
        resources = routine(given, remark)
        own = dag.get("schedule_interval_descriptors")
        descriptors = routine(own, remark) if own else resources
        refresh = full_refresh(dag.get("schedule_interval_full_refresh"), resources, remark)
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


def _sla(dag: Arguments) -> float | None:
    sla = mapping(dag.get("default_args")).get("sla")
    if not isinstance(sla, Interval) or sla.seconds <= 0:
        return None
    return sla.seconds // 3600 if sla.seconds % 3600 == 0 else sla.seconds / 3600


def _hoisted(years: list[dict[str, Any]]) -> dict[str, Any]:
    """What every year's ``extract`` says alike, taken out of them: it holds for the platform."""
    found = {}
    for name in (*_SWITCHES, "late_after_hours"):
        values = [year.get("extract", {}).get(name) for year in years]
        if values[0] is not None and all(value == values[0] for value in values):
            found[name] = values[0]
            for year in years:
                del year["extract"][name]
                if not year["extract"]:
                    del year["extract"]
    return found
