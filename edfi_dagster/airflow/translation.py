"""``airflow_config_*.yml`` as a configuration: its tenants and years, and what all of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edfi_dagster.airflow import stores
from edfi_dagster.airflow.acceptance import accepted
from edfi_dagster.airflow.arguments import BLOCKS, by_name
from edfi_dagster.airflow.connections import Connection, find
from edfi_dagster.airflow.documents import mapping, settled
from edfi_dagster.airflow.endpoints import Endpoints
from edfi_dagster.airflow.report import Report
from edfi_dagster.airflow.tenants import DAGS, SWITCHES, Arguments, TenantYears, sla_hours
from edfi_dagster.config import ConfigError
from edfi_dagster.config.environment import variable_names
from edfi_dagster.config.extract import ENDPOINT_KINDS

_LAKES = ("object_storage_conn_id", "s3_conn_id", "adls_conn_id")
_WAREHOUSES = ("database_conn_id", "snowflake_conn_id", "databricks_conn_id")
_TYPES = {"adls_conn_id": "adls", "databricks_conn_id": "databricks"}
_RUN_TYPES = {"bulk", "default", "dynamic"}
FILES = {
    "config": "airflow_config.yml",
    "resources": "edfi_resources.yml",
    "descriptors": "edfi_descriptors.yml",
    "connections": "connections",
}


@dataclass(frozen=True)
class Airflow:
    """What there is of the project: its YAML, the two lists of endpoints where there are such, its connections.

    ``files`` is what the report calls the file of each part.
    """

    config: Mapping[Any, Any]
    resources: Mapping[Any, Any] | None = None
    descriptors: Mapping[Any, Any] | None = None
    connections: Mapping[str, Connection] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=lambda: FILES)


@dataclass(frozen=True)
class Translation:
    """A configuration as plain values, in the order it is to be written, and what there is to say about it."""

    document: dict[str, Any]
    report: Report


def translate(airflow: Airflow, *, local: bool = False) -> Translation:
    """Return the configuration that does what the project's DAGs do; our own rules hold for it.

    ``local`` puts lake and warehouse into a folder, to try it beside Airflow without touching its tables. Raises
    ConfigError where there are no DAGs of tenants and years, or none that can be imported.
    """
    return _Translator(airflow, local).translation()


class _Translator:
    def __init__(self, airflow: Airflow, local: bool) -> None:
        self._airflow, self._local = airflow, local
        self._report = Report(airflow.files["config"])
        self._dags = dict(self._declared())
        if not self._dags:
            raise ConfigError(
                f"the Airflow configuration has no tenants and school years (as in 2025) under {DAGS}"
            )
        keys = ("edfi_conn_id", *_LAKES, *_WAREHOUSES, "slack_conn_id")
        self._variables = variable_names(
            str(dag[key]) for dag in self._dags.values() for key in keys if dag.get(key)
        )

    def translation(self) -> Translation:
        self._leave_blocks()
        endpoints = self._endpoints()
        years = TenantYears(
            self._airflow.connections,
            endpoints,
            self._report,
            self._variable,
            self._airflow.files["connections"],
        )
        tenants: dict[str, Any] = {}
        for (tenant, year), dag in self._dags.items():
            tenants.setdefault(tenant, {"years": {}})["years"][year] = years.year(tenant, year, dag)
        document: dict[str, Any] = {
            **self._stores(),
            "timezone": "UTC",
            "extract": self._extract(tenants, endpoints),
        }
        if tables := stores.tables(self._shared(*stores.TABLE_ARGUMENTS), self._report):
            document["tables"] = tables
        self._report.remark("crons are Airflow's UTC: with another timezone, change them as well", "timezone")
        files: dict[str, str] = {kind: self._airflow.files[kind] for kind in ENDPOINT_KINDS}
        files |= dict.fromkeys(("lake", "warehouse", "slack"), self._airflow.files["connections"])
        return Translation(accepted({**document, "tenants": tenants}, self._report, files), self._report)

    # -- what the file declares ---------------------------------------------------------------------------

    def _declared(self) -> Iterator[tuple[tuple[str, int], Arguments]]:
        for tenant, years in mapping(self._airflow.config.get(DAGS)).items():
            path = f"{DAGS}.{tenant}"
            if not isinstance(tenant, str | int) or isinstance(tenant, bool):
                self._report.remark(
                    f"YAML reads a tenant's code as {tenant!r}, and Airflow's tables hold that; compare tenant_code",
                    str(tenant),
                )
            found = list(self._years(str(tenant), years, path))
            if not found:
                self._report.leave(
                    "tenant", "declares no school year that could be imported; write it by hand", path
                )
            yield from found

    def _years(self, tenant: str, years: object, path: str) -> Iterator[tuple[tuple[str, int], Arguments]]:
        for year, arguments in mapping(years).items():
            place = f"{path}.{year}"
            if not str(year).isdecimal():
                self._report.leave("year", "is no school year; write its spring, as in 2025", place)
            elif not isinstance(arguments, Mapping):
                self._report.leave("year", "has no arguments; write them by hand", place)
            else:
                yield (tenant, int(year)), self._settled(arguments, place)

    def _settled(self, value: object, path: str, file: str | None = None) -> Any:
        def leave(below: tuple[str, ...], why: str) -> None:
            whole = ".".join((path, *below)) if path else ".".join(below)
            self._report.leave(below[-1] if below else path, why, whole, file)

        return settled(value, leave)

    def _leave_blocks(self) -> None:
        known = by_name(BLOCKS)
        for block in map(str, self._airflow.config):
            argument = known.get(block)
            if argument is None:
                self._report.leave(block, "not known; not read", block)
            elif not argument.taken and "__default_args" not in block and block != "default_task_args":
                self._report.leave(block, argument.place, block)

    # -- what all share -----------------------------------------------------------------------------------

    def _endpoints(self) -> Endpoints:
        endpoints = Endpoints(self._report)
        for kind, listed in zip(
            ENDPOINT_KINDS, (self._airflow.resources, self._airflow.descriptors), strict=True
        ):
            if listed is not None:
                file = self._airflow.files[kind]
                endpoints.add(self._settled(listed, "", file), kind, kind, file)
            for (tenant, year), dag in self._dags.items():
                if own := dag.get(argument := f"{kind[:-1]}_configs"):
                    endpoints.add(own, kind, f"{DAGS}.{tenant}.{year}.{argument}")
        endpoints.settle()
        return endpoints

    def _stores(self) -> dict[str, Any]:
        document: dict[str, Any] = {"lake": stores.LOCAL_LAKE, "warehouse": stores.LOCAL_WAREHOUSE}
        file = self._airflow.files["connections"]
        if not self._local:
            types = self._shared("object_storage_type", "database_type")
            document = {
                "lake": stores.lake(
                    self._store(_LAKES, "data_lake", types.get("object_storage_type")), self._report, file
                ),
                "warehouse": stores.warehouse(
                    self._store(_WAREHOUSES, "snowflake", types.get("database_type")), self._report, file
                ),
            }
        if name := self._shared("slack_conn_id").get("slack_conn_id"):
            has_sla = any(sla_hours(dag) for dag in self._dags.values())
            document["slack"] = stores.slack(self._named(name), has_sla, self._report, file)
        return {name: block for name, block in document.items() if block is not None}

    def _store(self, arguments: tuple[str, ...], usual: str, kind: str | None) -> stores.Named:
        """The connection that most DAGs give as the first of ``arguments`` which leads to one."""
        given = self._shared(*arguments)
        known = [argument for argument in given if find(self._airflow.connections, given[argument])]
        if not given:
            return self._named(usual, kind or "")
        first, *others = dict.fromkeys([*known, *given])
        for argument in others:
            if given[argument] != given[first]:
                self._report.leave(argument, f"is not read, as {first} is given; compare them", DAGS)
        return self._named(given[first], kind or _TYPES.get(first, ""))

    def _named(self, name: str, kind: str = "") -> stores.Named:
        return stores.Named(name, self._variable(name), find(self._airflow.connections, name), kind)

    def _variable(self, name: str) -> str:
        return self._variables.get(name) or next(iter(variable_names([name]).values()))

    def _extract(self, tenants: Mapping[str, Any], endpoints: Endpoints) -> dict[str, Any]:
        extract: dict[str, Any] = {}
        if run_type := self._shared("run_type").get("run_type"):
            if run_type in _RUN_TYPES:
                extract["run_type"] = run_type
                self._report.take("run_type", "extract.run_type", "all")
            else:
                self._report.leave("run_type", "is none of bulk, default and dynamic", DAGS)
        if tmp_dir := self._shared("tmp_dir").get("tmp_dir"):
            if Path(tmp_dir).is_dir():
                extract["tmp_dir"] = tmp_dir
            else:
                self._report.leave(
                    "tmp_dir", f"{tmp_dir} is not on this machine; write extract.tmp_dir", DAGS
                )
        extract |= _hoisted([year for tenant in tenants.values() for year in tenant["years"].values()])
        if endpoints.defaults:
            extract["endpoint_defaults"] = endpoints.defaults
        for kind in ENDPOINT_KINDS:
            extract[kind] = endpoints.selection(kind)
            on, off = endpoints.count(kind)
            if on or off:
                self._report.take(self._airflow.files[kind], f"extract.{kind}: {on} on, {off} off", "all")
        return extract

    def _shared(self, *names: str) -> dict[str, str]:
        """The value of each argument that most DAGs give; if others differ, that is said."""
        found = {}
        for name in names:
            counted = Counter(str(dag[name]) for dag in self._dags.values() if dag.get(name))
            if not counted:
                continue
            found[name] = most = counted.most_common(1)[0][0]
            for (tenant, year), dag in self._dags.items():
                if dag.get(name) and self._meaning(name, str(dag[name])) != self._meaning(name, most):
                    self._report.leave(
                        name,
                        f"is {dag[name]}, but all tenants of a configuration share one, here {most}; import those that need"
                        " another into a configuration of their own (--config)",
                        f"{DAGS}.{tenant}.{year}.{name}",
                    )
        return found

    def _meaning(self, name: str, value: str) -> object:
        """What two values have in common if it makes no difference which is taken: connections that lead to one place."""
        connection = find(self._airflow.connections, value)
        if connection is None or name not in (*_LAKES, *_WAREHOUSES):
            return value
        return stores.place(connection)


def _hoisted(years: list[dict[str, Any]]) -> dict[str, Any]:
    """What every year's ``extract`` says alike, taken out of them: it holds for the platform."""
    found = {}
    for name in (*SWITCHES, "use_snapshot", "late_after_hours"):
        values = [year.get("extract", {}).get(name) for year in years]
        if values[0] is not None and all(value == values[0] for value in values):
            found[name] = values[0]
            for year in years:
                del year["extract"][name]
                if not year["extract"]:
                    del year["extract"]
    return found
