"""A project as an agency keeps it: the shape of the EDU template, with several tenants, years and overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edfi_dagster.airflow import Airflow, Translation, read_connections, read_yaml, translate
from edfi_dagster.airflow.translation import FILES
from edfi_dagster.config import Platform, parse_platform

CONFIG = """
default_task_args: &default_task_args
  owner: 'airflow'
  run_as_user: null
  depends_on_past: False
  start_date: '2022-07-01'
  email: ['data@example.org']
  email_on_failure: False
  retries: 0
  trigger_rule: 'all_success'
  retry_delay: !timedelta 300
  execution_timeout: !timedelta 21600
  sla: !timedelta 129600

variables:
  dbt_incrementer_var: &dbt_incrementer_var 'FINISHED_RUNS'

edfi_resource_dags__default_args: &edfi_resource_dags__default_args
  default_args: *default_task_args
  schedule_interval: ~
  schedule_interval_resources: ~
  schedule_interval_descriptors: ~
  edfi_conn_id: ~
  s3_conn_id: 'data_lake'
  snowflake_conn_id: 'snowflake'
  slack_conn_id: 'slack'
  dbt_incrementer_var: *dbt_incrementer_var
  tmp_dir: '/nowhere/tmp_storage'
  pool: ~
  change_version_table: '_meta_change_versions'
  deletes_table: '_edfi_deletes'

edfi_resource_dags:
  grand_bend:
    2025:
      <<: *edfi_resource_dags__default_args
      pool: ods_pool
      edfi_conn_id: 'edfi_grand_bend_2025'
      schedule_interval: '0 8 * * *'
      schedule_interval_full_refresh: '* * * * sat#1'
    2026:
      pool: ods_pool
      edfi_conn_id: 'edfi_grand_bend_2026'
      schedule_interval_resources: '30 6 * * mon-fri'
      schedule_interval_descriptors: '@weekly'
      schedule_interval_full_refresh: '0 4 * * L5'
      get_key_changes: True
      run_type: dynamic
      <<: *edfi_resource_dags__default_args
  lakeview:
    2025:
      pool: default_pool
      edfi_conn_id: 'edfi_lakeview_2025'
      schedule_interval: !timedelta 43200
      use_change_version: False
      multiyear: True
      pull_total_counts: True
      pull_all_deletes: True
      frobnicate: 3
      run_type: dynamic
      <<: *edfi_resource_dags__default_args

dbt_run_dags:
  prod: {dbt_repo_path: '/home/airflow/code/project/dbt', dbt_target_name: 'prod'}

airflow_db_clean:
  retention_days: 90
"""

RESOURCES = """
students: {enabled: True, namespace: ed-fi, page_size: 250, fetch_deletes: True}
schools: {enabled: True, namespace: ed-fi, page_size: 250, fetch_deletes: True}
sessions: {enabled: True, namespace: ed-fi, page_size: 500, fetch_deletes: True, num_retries: 8}
schoolYearTypes: {enabled: True, namespace: ed-fi, page_size: 250, fetch_deletes: False}
candidates: {enabled: True, namespace: tpdm, page_size: 250, fetch_deletes: True}
payrolls: {enabled: False, namespace: ed-fi, page_size: 250, fetch_deletes: True}
"""

DESCRIPTORS = """
gradeLevelDescriptors: {enabled: True, namespace: ed-fi, page_size: 250, fetch_deletes: False}
termDescriptors: {enabled: True, namespace: ed-fi, page_size: 250, fetch_deletes: False}
"""

SECRETS = (
    "key-of-2025",
    "secret-of-2025",
    "key-of-2026",
    "secret-of-2026",
    "key-of-lakeview",
    "pa55/wörd",
    "B0/hook-path",
    "snow-pass",
)

CONNECTIONS: Mapping[str, Any] = {
    "edfi_grand_bend_2025": {
        "conn_type": "http",
        "host": "https://ods.example.org/grand_bend/2025/",
        "login": "key-of-2025",
        "password": "secret-of-2025",
        "extra": json.dumps({"api_version": 3, "api_mode": "year_specific"}),
    },
    "edfi_grand_bend_2026": {
        "conn_type": "http",
        "host": "ods.example.org/grand_bend/data/v3",
        "port": 8443,
        "login": "key-of-2026",
        "password": "secret-of-2026",
        "extra": {"api_mode": "Instance Year Specific", "instance_code": "gb", "verify_ssl": False},
    },
    "edfi_lakeview_2025": "http://https://key-of-lakeview:pa55%2Fw%C3%B6rd@old.example.org%2FEdFi/?api_version=2",
    "data_lake": {"conn_type": "s3", "schema": "our-lake", "extra": '{"region_name": "us-east-2"}'},
    "snowflake": {
        "conn_type": "snowflake",
        "login": "AIRFLOW_LOADER",
        "password": "snow-pass",
        "schema": "edfi3",
        "extra": {
            "extra__snowflake__account": "ab12345",
            "extra__snowflake__region": "us-east-2.aws",
            "extra__snowflake__database": "raw",
            "extra__snowflake__role": "LOADER",
            "extra__snowflake__warehouse": "LOADING",
        },
    },
    "slack": {
        "conn_type": "slackwebhook",
        "host": "https://hooks.slack.com/services",
        "password": "/T0/B0/hook-path",
    },
}


def write_project(
    folder: Path,
    config: str = CONFIG,
    resources: str | None = RESOURCES,
    descriptors: str | None = DESCRIPTORS,
    connections: Mapping[str, Any] | None = CONNECTIONS,
) -> Path:
    """Write its files into ``folder``; the path of the configuration. ``connections.json`` lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"edfi_resources.yml": resources, "edfi_descriptors.yml": descriptors}
    for name, text in files.items():
        if text is not None:
            (folder / name).write_text(text)
    if connections is not None:
        (folder / "connections.json").write_text(json.dumps(connections))
    path = folder / "airflow_config_prod.yml"
    path.write_text(config)
    return path


def translated(folder: Path, *, local: bool = False, **files: Any) -> Translation:
    path = write_project(folder, **files)
    listed = {
        kind: read_yaml(found) if (found := folder / f"edfi_{kind}.yml").exists() else None
        for kind in ("resources", "descriptors")
    }
    connections = folder / "connections.json"
    known = read_connections(connections) if connections.exists() else {}
    files = {**FILES, "config": path.name, "connections": connections.name}
    airflow = Airflow(read_yaml(path), listed["resources"], listed["descriptors"], known, files)
    return translate(airflow, local=local)


def platform_of(translation: Translation) -> Platform:
    return parse_platform(yaml.safe_dump(translation.document), "x", Path("/nowhere"))


def lines_left(translation: Translation) -> str:
    """What could not be carried over, as it is printed and written."""
    return "\n".join(translation.report.comments())


def imported(folder: Path, dags: str, **files: Any) -> tuple[Translation, Platform]:
    """The translation of ``edfi_resource_dags`` alone, and the platform that our loader makes of it."""
    lists = {"resources": None, "descriptors": None, "connections": None, **files}
    translation = translated(folder, config=f"edfi_resource_dags:\n{dags}", **lists)
    return translation, platform_of(translation)
