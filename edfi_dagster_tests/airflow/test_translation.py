"""What becomes of the Airflow project's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from edfi_dagster.airflow import Airflow, read_connections, read_yaml, translate
from edfi_dagster.airflow.arguments import ENDPOINT_OPTIONS, RESOURCE_DAG, TASK_ARGUMENTS, by_name
from edfi_dagster.config import ConfigError, TenantYear
from edfi_dagster.config.environment import variables
from edfi_dagster_tests.airflow.project import (
    CONFIG,
    CONNECTIONS,
    SECRETS,
    lines_left,
    platform_of,
    translated,
    write_project,
)

# The signature of EdFiResourceDAG 0.6, with what it hands to EACustomDAG, and the template's default_task_args.
DAG_ARGUMENTS = [
    "tenant_code",
    "api_year",
    "edfi_conn_id",
    "use_edfi_token_cache",
    "object_storage_conn_id",
    "database_conn_id",
    "object_storage_type",
    "database_type",
    "snowflake_conn_id",
    "s3_conn_id",
    "pool",
    "tmp_dir",
    "multiyear",
    "schedule_interval_full_refresh",
    "use_change_version",
    "get_key_changes",
    "get_deletes_cv_with_deltas",
    "pull_all_deletes",
    "pull_total_counts",
    "run_type",
    "resource_configs",
    "descriptor_configs",
    "change_version_table",
    "deletes_table",
    "key_changes_table",
    "descriptors_table",
    "total_counts_table",
    "dbt_incrementer_var",
    "slack_conn_id",
    "schedule_interval",
    "schedule_interval_resources",
    "schedule_interval_descriptors",
    "default_args",
]
TASK_DEFAULTS = [
    "owner",
    "run_as_user",
    "depends_on_past",
    "start_date",
    "email",
    "email_on_failure",
    "retries",
    "trigger_rule",
    "retry_delay",
    "execution_timeout",
    "sla",
]
ENDPOINT_KEYS = [
    "enabled",
    "fetch_deletes",
    "namespace",
    "page_size",
    "num_retries",
    "change_version_step_size",
    "query_parameters",
]


def test_every_argument_of_the_project_has_a_place_or_is_said_to_have_none() -> None:
    assert [name for name in DAG_ARGUMENTS if name not in by_name(RESOURCE_DAG)] == []
    assert [name for name in TASK_DEFAULTS if name not in by_name(TASK_ARGUMENTS)] == []
    assert [name for name in ENDPOINT_KEYS if name not in by_name(ENDPOINT_OPTIONS)] == []


def test_tenants_years_and_overrides_are_taken_over(tmp_path: Path) -> None:
    platform = platform_of(translated(tmp_path))
    first, second, third = (platform.ods(pair) for pair in platform.pairs())
    assert platform.pairs() == (
        TenantYear("grand_bend", 2025),
        TenantYear("grand_bend", 2026),
        TenantYear("lakeview", 2025),
    )
    assert (first.base_url, first.api_mode) == ("https://ods.example.org/grand_bend/2025", "year_specific")
    assert first.api_version is None, "Airflow's 3 is Ed-Fi 3, not ODS/API 3"
    assert first.schedules.everything == "0 8 * * *"
    assert first.schedules.full_refresh == "0 8 * * sat#1"
    assert first.extract.use_change_version and not first.multiyear

    assert second.base_url == "https://ods.example.org:8443/grand_bend"
    assert (second.api_mode, second.instance_code, second.verify_ssl) == (
        "instance_year_specific",
        "gb",
        False,
    )
    assert (second.schedules.resources, second.schedules.descriptors) == ("30 6 * * mon-fri", "0 0 * * 0")
    assert second.schedules.full_refresh == "0 4 * * L5"

    assert (third.base_url, third.api_version, third.multiyear) == ("https://old.example.org/EdFi", "2", True)
    assert third.schedules.everything == "0 */12 * * *"
    assert third.extract.pull_total_counts and not third.extract.use_change_version
    assert {ods.extract.late_after_hours for ods in (first, second, third)} == {36}


def test_endpoints_keep_their_options_and_most_frequent_ones_become_the_default(tmp_path: Path) -> None:
    platform = platform_of(translated(tmp_path))
    pair = TenantYear("grand_bend", 2025)

    def options(name: str, namespace: str = "ed-fi") -> Any:
        return platform.endpoint_options(pair, namespace, name, "resources")

    assert options("students").page_size == 250
    assert (options("sessions").page_size, options("sessions").num_retries) == (500, 8)
    assert not options("schoolYearTypes").fetch_deletes
    assert not options("payrolls").enabled
    assert options("candidates", "tpdm").page_size == 250
    assert not platform.extract.resources.all
    assert len(platform.extract.descriptors.overrides) == 2
    assert platform.extract.run_type == "dynamic"
    assert platform.tables.deletes == "_edfi_deletes"


def test_stores_come_from_the_connections(tmp_path: Path) -> None:
    document = translated(tmp_path).document
    assert document["lake"] == {"kind": "s3", "bucket": "our-lake", "region": "us-east-2"}
    assert document["warehouse"] == {
        "kind": "snowflake",
        "account": "ab12345.us-east-2.aws",
        "user": "AIRFLOW_LOADER",
        "password": {"env": "SNOWFLAKE_PASSWORD"},
        "role": "LOADER",
        "warehouse": "LOADING",
        "database": "raw",
        "schema": "edfi3",
        "stage": "raw.util.airflow_stage",
    }
    assert document["slack"] == {"webhook_url": {"env": "SLACK_WEBHOOK_URL"}, "events": ["failure", "late"]}


def test_keys_of_the_bucket_and_of_snowflake_become_variables(tmp_path: Path) -> None:
    s3 = {"conn_type": "aws", "schema": "b-1", "login": "AKIA", "password": "s3cret"}
    snowflake = {
        "conn_type": "snowflake",
        "login": "LOADER",
        "password": "phrase",
        "extra": {"account": "org-acc", "private_key_content": "-----BEGIN", "database": "dev_raw"},
    }
    translation = translated(tmp_path, connections={**CONNECTIONS, "data_lake": s3, "snowflake": snowflake})
    assert translation.document["lake"]["access_key_id"] == {"env": "DATA_LAKE_ACCESS_KEY_ID"}
    warehouse = translation.document["warehouse"]
    assert warehouse["private_key"] == {"env": "SNOWFLAKE_PRIVATE_KEY"}
    assert warehouse["private_key_passphrase"] == {"env": "SNOWFLAKE_PASSPHRASE"}
    assert warehouse["stage"] == "dev_raw.util.airflow_stage"
    assert "-----BEGIN" not in str(translation) and "s3cret" not in str(translation) + str(translation.report)


def test_no_login_or_password_is_written_told_or_shown(tmp_path: Path) -> None:
    translation = translated(tmp_path)
    connections = read_connections(tmp_path / "connections.json")
    shown = "".join(map(str, [translation.document, translation.report.document(), connections, translation]))
    assert [secret for secret in SECRETS if secret in shown] == []
    assert set(variables(platform_of(translation))) == set(translation.report.secrets)
    assert translation.report.secrets["EDFI_LAKEVIEW_2025_SECRET"] == "edfi_lakeview_2025: password"


def test_what_has_no_counterpart_is_listed_with_what_to_do_instead(tmp_path: Path) -> None:
    report = translated(tmp_path).report
    left = {left.what: (left.file, left.instead, at) for left, at in report.left.items()}
    assert left["frobnicate"][::2] == (
        "airflow_config_prod.yml",
        ["edfi_resource_dags.lakeview.2025.frobnicate"],
    )
    assert "max_concurrent_requests" in left["pool"][1]
    assert "overlap" in left["pull_all_deletes"][1]
    assert {"dbt_run_dags", "airflow_db_clean", "variables", "default_args.email"} <= left.keys()
    assert not left.keys() & {
        "edfi_conn_id",
        "multiyear",
        "default_args",
        "default_args.sla",
        "email_on_failure",
    }
    assert "/nowhere/tmp_storage is not on this machine" in left["tmp_dir"][1]
    assert "logical date" in " ".join(report.remarks)


def test_without_connections_it_validates_and_says_what_to_write(tmp_path: Path) -> None:
    translation = translated(tmp_path, connections=None, resources=None, descriptors=None)
    platform = platform_of(translation)
    assert platform.ods(TenantYear("lakeview", 2025)).base_url == "https://edfi-lakeview-2025.invalid/api"
    assert platform.extract.resources.all and platform.extract.descriptors.all
    told = lines_left(translation)
    for words in (
        "the connection is not among those given; write base_url",
        "write lake.bucket",
        "write warehouse.account",
    ):
        assert words in told
    assert translation.document["lake"]["endpoint_url"] == "https://change-me.invalid"
    assert translation.document["warehouse"]["host"] == "change-me.invalid"


def test_local_import_touches_neither_bucket_nor_snowflake(tmp_path: Path) -> None:
    platform = platform_of(translated(tmp_path, local=True))
    assert (platform.lake.kind, platform.warehouse.kind) == ("local", "duckdb")


def test_lists_of_single_tenants_are_united_and_their_options_kept_for_their_year(tmp_path: Path) -> None:
    config = """
edfi_resource_dags:
  a:
    2025:
      edfi_conn_id: shared
      resource_configs:
        students: {enabled: True, fetch_deletes: True, page_size: 100}
        schools: {enabled: False}
  b:
    "2025":
      edfi_conn_id: shared
      resource_configs:
        students: {enabled: True, fetch_deletes: True, page_size: 900}
        schools: {enabled: True}
      descriptor_configs: [[termDescriptors, ed-fi]]
    YEAR2: {edfi_conn_id: x}
"""
    translation = translated(tmp_path, config=config, resources=None, descriptors=None, connections=None)
    platform = platform_of(translation)
    sizes = [
        platform.endpoint_options(pair, "ed-fi", "students", "resources").page_size
        for pair in platform.pairs()
    ]
    assert sizes == [100, 900]
    assert platform.endpoint_options(TenantYear("a", 2025), "ed-fi", "schools", "resources").enabled
    assert list(platform.extract.descriptors.overrides) == ["edfi/termdescriptors"]
    secrets = {str(platform.ods(pair).client_secret) for pair in platform.pairs()}
    assert secrets == {"{env: SHARED_SECRET}"}, "one connection is one pair of variables"
    assert any("pulled for all" in text for text in translation.report.remarks)
    assert "edfi_resource_dags.b.YEAR2: year: is no school year" in lines_left(translation)


def test_different_connections_never_share_a_variable(tmp_path: Path) -> None:
    config = """
edfi_resource_dags:
  a: {2025: {edfi_conn_id: ods-a}, 2026: {edfi_conn_id: ods_a}, 2027: {edfi_conn_id: 1st}}
"""
    platform = platform_of(translated(tmp_path, config=config, connections=None))
    keys = [str(platform.ods(pair).client_id) for pair in platform.pairs()]
    assert keys == ["{env: ODS_A_KEY}", "{env: ODS_A_2_KEY}", "{env: EDFI_1ST_KEY}"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !!python/object/apply:os.system ['true']", "line 1: cannot be read as YAML"),
        ("a: *pa55word", "line 1: cannot be read as YAML .found undefined alias.$"),
        ("- a", "is not a mapping"),
        ("other: {}", "no tenants and school years"),
        ("edfi_resource_dags: {TENANT1: {YEAR1: {edfi_conn_id: x}}}", "no tenants and school years"),
    ],
)
def test_files_that_are_something_else_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = write_project(tmp_path, config=text)
    with pytest.raises(ConfigError, match=told):
        translate(Airflow(read_yaml(path)))


@pytest.mark.parametrize("junk", ["5", "[1]", "text", "{a: {b: 1}}", "!timedelta 5", "[[a, b]]", "NO"])
@pytest.mark.parametrize(
    "place",
    [
        "a: {2025: {edfi_conn_id: x, default_args: JUNK, resource_configs: JUNK, schedule_interval: JUNK}}",
        "a: {2025: {edfi_conn_id: JUNK, resource_configs: {students: JUNK, schools: {page_size: JUNK}}}}",
        "a: {2025: {edfi_conn_id: x}, 2026: JUNK}\n  b: JUNK",
    ],
)
def test_values_of_another_shape_are_left_out_and_named(tmp_path: Path, place: str, junk: str) -> None:
    config = f"edfi_resource_dags:\n  {place.replace('JUNK', junk)}\n  kept: {{2025: {{edfi_conn_id: x}}}}\n"
    translation = translated(tmp_path, config=config, resources=None, descriptors=None, connections=None)
    assert TenantYear("kept", 2025) in platform_of(translation).pairs()
    assert "kept" not in lines_left(translation).replace("connection", "")


def test_connections_are_read_in_each_form_airflow_writes(tmp_path: Path) -> None:
    uri = "http://https://k%40y:p%3Aw@https-host.org%2Fv7.3%2Fapi:8443/?api_mode=sandbox&__x=1"
    of_list = {
        "conn_id": "ods",
        "conn_type": "http",
        "host": "h.org",
        "login": "a",
        "extra_dejson": {"api_mode": "m"},
    }
    files: Mapping[str, str] = {
        "a.json": json.dumps({"ods": uri}),
        "b.yaml": yaml.safe_dump(
            {"ods": {"conn_type": "http", "host": "h.org", "login": "a", "password": "b"}}
        ),
        "c.json": json.dumps([of_list]),
        "d.env": f"# from a shell\nAIRFLOW_CONN_ODS='{uri}'\n",
        "e.env": f"ods={uri}\n",
    }
    found = {}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        found[name] = read_connections(tmp_path / name)["ods"]
    for name in ("a.json", "d.env", "e.env"):
        connection = found[name]
        assert connection.host == "https://https-host.org/v7.3/api"
        assert (connection.port, connection.has_login, connection.has_password) == (8443, True, True)
        assert connection.option("api_mode") == "sandbox"
    assert (found["b.yaml"].host, found["b.yaml"].has_password) == ("h.org", True)
    assert (found["c.json"].option("api_mode"), found["c.json"].has_password) == ("m", False)
    (tmp_path / "f.json").write_text('{"ods": 7, "secret-in-file": 1}')
    with pytest.raises(ConfigError, match="is no export of connections") as refused:
        read_connections(tmp_path / "f.json")
    assert "secret-in-file" not in str(refused.value)


def test_descriptors_without_a_schedule_of_their_own_follow_the_resources(tmp_path: Path) -> None:
    """The template's DAG file writes the resources' schedule over the common one before descriptors look for it."""
    config = CONFIG.replace("schedule_interval_descriptors: '@weekly'", "schedule_interval: '0 1 * * *'")
    platform = platform_of(translated(tmp_path, config=config))
    schedules = platform.ods(TenantYear("grand_bend", 2026)).schedules
    assert (schedules.everything, schedules.resources, schedules.descriptors) == (
        "30 6 * * mon-fri",
        None,
        None,
    )
