"""Names, connections and values as people have them: carried over, or named with what to do, and the rest imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edfi_dagster.airflow import Airflow, read_connections, translate
from edfi_dagster.config import ConfigError, TenantYear
from edfi_dagster_tests.airflow.project import CONNECTIONS, imported, lines_left, platform_of, translated

ONE = "  a: {2025: {edfi_conn_id: ods, s3_conn_id: lake, snowflake_conn_id: db}}\n"


def with_connections(tmp_path: Path, dags: str = ONE, **connections: Any) -> tuple[Any, str]:
    """The document that is written, and what is said of what could not be."""
    translation, _ = imported(tmp_path, dags, connections=connections)
    return translation.document, lines_left(translation)


# -- names ----------------------------------------------------------------------------------------------------

CODES = [
    "Grand Bend",
    "48227901",
    "St. Mary's",
    "Cañon City",
    "A&M",
    "20250101",
    "L.A. #5",
    "0123",
    "null",
    "no",
]


def test_tenant_codes_are_carried_over_as_they_are(tmp_path: Path) -> None:
    dags = "".join(f"  {json.dumps(code)}: {{2025: {{edfi_conn_id: x}}}}\n" for code in CODES)
    translation, platform = imported(tmp_path, dags)
    assert [pair.tenant for pair in platform.pairs()] == sorted(CODES)
    assert "tenant" not in lines_left(translation).replace("edfi_resource_dags", "")


def test_codes_that_yaml_reads_as_something_else_are_what_airflow_wrote(tmp_path: Path) -> None:
    translation, platform = imported(
        tmp_path,
        "  48227901: {2025: {edfi_conn_id: x}}\n  NO: {2025: {edfi_conn_id: x}}\n  2024-07-01: {2025: {edfi_conn_id: x}}\n",
    )
    assert [pair.tenant for pair in platform.pairs()] == ["2024-07-01", "48227901", "False"]
    assert [text for text in translation.report.remarks if "YAML reads" in text and "False" in text]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("a|b", "'|', which breaks paths or partition keys"),
        ("a/b", "'/'"),
        ("a, b", "','"),
        ("..", "leads out of the lake"),
        ("-rf", "begins with '-'"),
        (" a", "begins or ends with a space"),
        ("a\u200bb", "U+200B"),
        ("", "is empty"),
        ("x" * 64, "64 characters long"),
        ("Kept", "differs from 'kept' only in case"),
        ("${TENANT}", "'$'"),
    ],
)
def test_code_that_cannot_be_held_is_one_line_and_the_rest_is_imported(
    tmp_path: Path, code: str, told: str
) -> None:
    dags = f"  kept: {{2025: {{edfi_conn_id: x}}}}\n  {json.dumps(code)}: {{2025: {{edfi_conn_id: x}}}}\n"
    translation, platform = imported(tmp_path, dags)
    assert platform.pairs() == (TenantYear("kept", 2025),)
    (line,) = [line for line in lines_left(translation).splitlines() if told in line]
    assert line.startswith(f"# airflow_config_prod.yml, edfi_resource_dags.{code}".replace("\u200b", " "))


def test_tenants_and_years_that_declare_nothing_are_named(tmp_path: Path) -> None:
    translation, platform = imported(
        tmp_path,
        "  kept: {2025: {edfi_conn_id: x}}\n  none: {}\n  null_: ~\n  word: {YEAR1: {edfi_conn_id: x}}\n"
        "  ancient: {202: {edfi_conn_id: x}}\n  empty: {2025: ~}\n",
    )
    assert platform.pairs() == (TenantYear("kept", 2025),)
    told = lines_left(translation)
    for tenant in ("none", "null_", "word", "empty"):
        assert f"edfi_resource_dags.{tenant}" in told
    assert "declares no school year that could be imported" in told
    assert "202 is not a school year from 1900 to 2100" in told


def test_an_import_without_a_tenant_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tenant .* can be imported:\n(.*\n)*.*'\|'"):
        imported(tmp_path, "  a|b: {2025: {edfi_conn_id: x}}\n")


@pytest.mark.parametrize(
    ("database", "schema", "stage"),
    [
        ("raw-prod", "edfi3", "raw-prod.util.airflow_stage"),
        ('"raw-prod"', "edfi 3", '"raw-prod".util.airflow_stage'),
        ("raw", '"edfi3"', "raw.util.airflow_stage"),
        ("2024_raw", "edfi$3", "2024_raw.util.airflow_stage"),
    ],
)
def test_names_of_buckets_and_databases_are_carried_over(
    tmp_path: Path, database: str, schema: str, stage: str
) -> None:
    snowflake = {"conn_type": "snowflake", "login": "me@x.org", "schema": schema}
    extra = {"account": "a-b", "database": database}
    bucket = {"conn_type": "http", "schema": "Stadium_Lake"}
    document, told = with_connections(tmp_path, db={**snowflake, "extra": extra}, lake=bucket)
    assert document["lake"] == {"kind": "s3", "bucket": "Stadium_Lake"}
    assert [document["warehouse"][key] for key in ("database", "schema", "stage")] == [
        database,
        schema,
        stage,
    ]
    assert "lake" not in told and "warehouse" not in told


@pytest.mark.parametrize("database", ["raw'; DROP", "raw.edfi3", 'a"b', "${DB}"])
def test_a_database_that_cannot_be_named_leaves_no_other_in_its_place(tmp_path: Path, database: str) -> None:
    extra = {"account": "a-b", "database": database}
    document, told = with_connections(
        tmp_path, db={"conn_type": "snowflake", "login": "me", "schema": "s", "extra": extra}
    )
    assert "warehouse" not in document
    assert "connections.json, warehouse: warehouse.database: " in told
    assert "The block warehouse is left out; write it by hand" in told


# -- connections ----------------------------------------------------------------------------------------------

AZURE = ["wasb", "adls", "azure_data_lake", "abfs"]


@pytest.mark.parametrize("kind", [*AZURE, "google_cloud_platform", "sftp"])
def test_a_lake_of_another_kind_is_written_by_hand_and_the_rest_imported(tmp_path: Path, kind: str) -> None:
    connection = {
        "conn_type": kind,
        "host": "account",
        "schema": "container",
        "login": "x",
        "password": "s3cret",
    }
    snowflake = CONNECTIONS["snowflake"]
    document, told = with_connections(tmp_path, lake=connection, db=snowflake)
    assert "lake" not in document and document["warehouse"]["kind"] == "snowflake"
    name = f"Azure ({kind})" if kind in AZURE else kind
    assert f"connections.json, lake: connection of {name}" in told or f"Google Cloud ({kind})" in told
    assert "write lake by hand. Until then files go to the folder data/lake" in told
    assert "s3cret" not in told + str(document)


@pytest.mark.parametrize("kind", ["databricks", "postgres", "redshift"])
def test_a_warehouse_of_another_kind_is_written_by_hand_and_the_rest_imported(
    tmp_path: Path, kind: str
) -> None:
    connection = {
        "conn_type": kind,
        "host": "adb.example.org",
        "password": "s3cret",
        "extra": {"http_path": "/sql"},
    }
    document, told = with_connections(tmp_path, db=connection, lake=CONNECTIONS["data_lake"])
    assert "warehouse" not in document and document["lake"]["bucket"] == "our-lake"
    assert "CHANGE-ME" not in str(document).upper()
    assert "write warehouse by hand" in told


def test_kinds_that_only_the_dag_names_are_seen_as_well(tmp_path: Path) -> None:
    dags = """
  a:
    2025: {edfi_conn_id: x, object_storage_conn_id: lake, object_storage_type: ADLS, database_conn_id: db, database_type: Databricks}
"""
    document, told = with_connections(tmp_path, dags)
    assert not document.keys() & {"lake", "warehouse"}
    assert "Azure (adls)" in told and "Databricks (databricks)" in told
    fork = "  a: {2025: {edfi_conn_id: x, adls_conn_id: ADLS, databricks_conn_id: databricks}}\n"
    document, told = with_connections(tmp_path, fork, lake=CONNECTIONS["data_lake"])
    assert not document.keys() & {"lake", "warehouse"}


URIS = {
    "wasb://account:s3cret@host/container": "lake",
    "azure-data-lake://account:s3cret@/?tenant=t": "lake",
    "databricks://token:s3cret@adb.example.org/?http_path=%2Fsql": "warehouse",
    '{"conn_type": "databricks", "host": "adb", "password": "s3cret"}': "warehouse",
}


@pytest.mark.parametrize("uri", URIS)
def test_kinds_are_read_from_addresses_and_json(tmp_path: Path, uri: str) -> None:
    block = URIS[uri]
    name = "lake" if block == "lake" else "db"
    document, told = with_connections(tmp_path, **{name: uri})
    assert block not in document
    assert f"write {block} by hand" in told and "s3cret" not in told


def test_connections_as_addresses_become_blocks(tmp_path: Path) -> None:
    document, told = with_connections(
        tmp_path,
        db="snowflake://loader:s3cret@/edfi3?account=ab12345&region=us-east-2.aws&database=raw&warehouse=W&role=R",
        lake="aws://AKIA:s3cret@/Stadium_Lake?region_name=us-east-2",
        ods="http://https://key:s3cret@ods.example.org%2Fapi/?api_mode=sandbox&use_snapshot=true",
    )
    assert (document["warehouse"]["account"], document["warehouse"]["role"]) == ("ab12345.us-east-2.aws", "R")
    assert (document["lake"]["bucket"], document["lake"]["region"]) == ("Stadium_Lake", "us-east-2")
    assert document["tenants"]["a"]["years"][2025]["base_url"] == "https://ods.example.org/api"
    assert document["extract"]["use_snapshot"] is True
    assert told == "" and "s3cret" not in str(document)


@pytest.mark.parametrize(
    ("connection", "bucket"),
    [
        ({"schema": "s3://our-lake/raw/"}, {"bucket": "our-lake", "prefix": "raw"}),
        ({"extra": {"service_config": {"s3": {"bucket_name": "our-lake"}}}}, {"bucket": "our-lake"}),
        ({"extra": '{"bucket_name": "our-lake"}'}, {"bucket": "our-lake"}),
        ({"extra": "no JSON"}, {"bucket": "change-me", "endpoint_url": "https://change-me.invalid"}),
    ],
)
def test_a_bucket_is_found_where_airflow_keeps_it(
    tmp_path: Path, connection: dict[str, Any], bucket: dict[str, str]
) -> None:
    translation, platform = imported(tmp_path, ONE, connections={"lake": {"conn_type": "s3", **connection}})
    assert platform.lake.kind == "s3"
    found = {
        "bucket": platform.lake.bucket,
        "prefix": platform.lake.prefix,
        "endpoint_url": platform.lake.endpoint_url,
    }
    assert {key: value for key, value in found.items() if value} == bucket
    assert ("write lake.bucket" in lines_left(translation)) == (bucket["bucket"] == "change-me")


@pytest.mark.parametrize("value", [True, "true", "True", 1])
def test_snapshots_of_a_connection_are_taken(tmp_path: Path, value: object) -> None:
    dags = "  a: {2025: {edfi_conn_id: ods}, 2026: {edfi_conn_id: live}}\n"
    ods = {"conn_type": "http", "host": "h.org", "extra": {"use_snapshot": value, "api_year": 2024}}
    _, platform = imported(
        tmp_path, dags, connections={"ods": ods, "live": {"conn_type": "http", "host": "h.org"}}
    )
    assert [platform.ods(pair).extract.use_snapshot for pair in platform.pairs()] == [True, False]
    document, told = with_connections(tmp_path, ONE, ods={**ods, "extra": json.dumps(ods["extra"])})
    assert document["extract"]["use_snapshot"] is True
    assert "connections.json, ods: api_year: is 2024, but the year of a/2025 is asked for" in told


@pytest.mark.parametrize(
    ("connection", "why"),
    [
        (None, "is not among those given"),
        ({"conn_type": "http"}, "names no host"),
        ({"conn_type": "snowflake", "host": "h.org"}, "is of kind snowflake"),
        ({"conn_type": "http", "host": "https://key:s3cret@h.org/api"}, "holds a user or password"),
        ({"conn_type": "http", "host": "https://h.org/api?key=s3cret"}, "ends in"),
        ({"conn_type": "http", "host": "https://${HOST}/api"}, "is not a URL"),
        ({"conn_type": "http", "host": "h.org:99999"}, "port is not a number"),
    ],
)
def test_an_ods_without_an_address_gets_one_that_leads_nowhere(
    tmp_path: Path, connection: dict[str, str] | None, why: str
) -> None:
    document, told = with_connections(tmp_path, **({"ods": connection} if connection else {}))
    assert document["tenants"]["a"]["years"][2025]["base_url"] == "https://ods.invalid/api"
    (line,) = [line for line in told.splitlines() if "write base_url" in line]
    assert line.startswith("# connections.json, ods: host: the connection ") and why in line
    assert "s3cret" not in told + str(document)


def test_several_snowflakes_are_told_unless_they_are_one(tmp_path: Path) -> None:
    def snowflake(database: str, login: str = "a") -> dict[str, Any]:
        extra = {"account": "ab", "database": database}
        return {"conn_type": "snowflake", "login": login, "schema": "edfi3", "extra": extra}

    dags = "".join(f"  {t}: {{2025: {{edfi_conn_id: x, snowflake_conn_id: db_{t}}}}}\n" for t in "abc")
    connections = {"db_a": snowflake("raw"), "db_b": snowflake("raw", "b"), "db_c": snowflake("other")}
    document, told = with_connections(tmp_path, dags, **connections)
    assert document["warehouse"]["database"] == "raw" and len(document["tenants"]) == 3
    assert "edfi_resource_dags.c.2025.snowflake_conn_id: snowflake_conn_id: is db_c" in told
    assert "a configuration of their own" in told and "db_b" not in told


def test_a_snowflake_that_names_no_account_database_or_schema_is_told(tmp_path: Path) -> None:
    document, told = with_connections(tmp_path, db={"conn_type": "snowflake", "password": "s3cret"})
    assert document["warehouse"]["host"] == "change-me.invalid"
    for words in (
        "write warehouse.account",
        "write warehouse.user",
        "unless it is raw",
        "unless it is edfi3",
    ):
        assert words in told
    address = {"conn_type": "snowflake", "host": "https://ab12345.us-east-2.aws.snowflakecomputing.com"}
    document, _ = with_connections(tmp_path, db=address)
    assert document["warehouse"]["account"] == "ab12345.us-east-2.aws"
    assert "host" not in document["warehouse"]


def test_a_token_of_slack_needs_a_channel(tmp_path: Path) -> None:
    dags = "  a: {2025: {edfi_conn_id: x, slack_conn_id: slack}}\n"
    document, told = with_connections(tmp_path, dags, slack={"conn_type": "slack", "password": "xoxb-s3cret"})
    assert "slack" not in document and "write slack.token and slack.channel" in told
    document, told = with_connections(
        tmp_path, dags, slack={"conn_type": "slackwebhook", "password": "s3cret"}
    )
    assert document["slack"]["webhook_url"] == {"env": "SLACK_WEBHOOK_URL"}


def test_names_of_environment_variables_have_no_case(tmp_path: Path) -> None:
    dags = "  a: {2025: {edfi_conn_id: edfi_TENANT1_YEAR2025}}\n"
    (tmp_path / "x.env").write_text("AIRFLOW_CONN_EDFI_TENANT1_YEAR2025='http://k:s3cret@h.org'\n")
    found = read_connections(tmp_path / "x.env")
    config = {"edfi_resource_dags": yaml.safe_load(dags)}
    document = translate(Airflow(config, connections=found)).document
    assert document["tenants"]["a"]["years"][2025]["base_url"] == "https://h.org"


def test_one_odd_connection_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(
        json.dumps({"a": {"conn_type": "http", "host": "h", "port": "x", "extra": "{"}, "b": "http://h"})
    )
    found = read_connections(path)
    assert (found["a"].port, dict(found["a"].extra), found["b"].host) == (None, {}, "h")


# -- endpoints ------------------------------------------------------------------------------------------------


def test_endpoints_in_any_casing_and_order_are_one(tmp_path: Path) -> None:
    translation = translated(
        tmp_path,
        config="""
edfi_resource_dags:
  a:
    2025:
      edfi_conn_id: x
      endpoints: [Students]
      resource_configs: {student_school_associations: {enabled: true, page_size: 100}, STUDENTS: {namespace: Ed-Fi}}
  b:
    2025:
      edfi_conn_id: x
      resource_configs: [[ed-fi, Sessions], [candidates, tpdm], schools]
""",
        resources="""
students: {enabled: true, namespace: ed_fi, page_size: 250}
studentSchoolAssociations: {enabled: true, namespace: ED-FI, page_size: 250}
tpdm: {candidates: {enabled: true, page_size: 250}, evaluations: {enabled: false}}
surveys: {enabled: true, namespace: {x: y}, page_size: many, query_parameters: {apiKey: s3cret, active: yes}}
""",
        connections=None,
    )
    resources = translation.document["extract"]["resources"]
    assert list(resources) == [
        "students",
        "studentSchoolAssociations",
        "tpdm/candidates",
        "tpdm/evaluations",
        "surveys",
        "Sessions",
        "schools",
    ]
    year = translation.document["tenants"]["a"]["years"][2025]
    assert year["extract"]["resources"]["student_school_associations"] == {"page_size": 100}
    platform_of(translation)
    told = lines_left(translation)
    assert "edfi_resources.yml, surveys.page_size: page_size: must be a whole number" in told
    assert "edfi_resources.yml, resources.surveys: query_parameters.apiKey: may be a secret" in told
    assert "edfi_resources.yml, resources.surveys: namespace: is not a name" in told
    assert "edfi_resource_dags.a.2025.endpoints: endpoints: a selection of assets" in told
    assert "s3cret" not in told + str(translation.document)
