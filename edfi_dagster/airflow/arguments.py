"""Every argument of the Airflow project (``edu_edfi_airflow`` 0.6, the EDU project template) and its place here.

``edfi-dagster import-airflow --arguments`` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Argument:
    """An argument there, and its place here as Markdown; ``taken`` if ``import-airflow`` reads it."""

    name: str
    place: str
    taken: bool = False


def _taken(name: str, place: str) -> Argument:
    return Argument(name, place, taken=True)


RESOURCE_DAG = (
    _taken("tenant_code", "a key of `tenants`"),
    _taken("api_year", "a key of `years`"),
    _taken("edfi_conn_id", "`base_url`, `client_id`, `client_secret` of the year"),
    Argument("use_edfi_token_cache", "always: one token for all threads and processes of a machine"),
    _taken("s3_conn_id", "`lake`"),
    _taken("object_storage_conn_id", "`lake`"),
    _taken("object_storage_type", "`lake.kind: s3`; for ADLS write `lake` by hand"),
    _taken("snowflake_conn_id", "`warehouse`"),
    _taken("database_conn_id", "`warehouse`"),
    _taken("database_type", "`warehouse.kind: snowflake`; for Databricks write `warehouse` by hand"),
    _taken("adls_conn_id", "there is no such kind yet: write `lake` by hand"),
    _taken("databricks_conn_id", "there is no such kind yet: write `warehouse` by hand"),
    Argument("pool", "`extract.max_concurrent_requests`, per ODS; also for one year under its `extract`"),
    _taken("tmp_dir", "`extract.tmp_dir`, if the folder is here"),
    _taken("multiyear", "`multiyear` of the year"),
    _taken("schedule_interval", "`schedule` of the year"),
    _taken("schedule_interval_resources", "`schedule_resources`"),
    _taken("schedule_interval_descriptors", "`schedule_descriptors`"),
    _taken("schedule_interval_full_refresh", "`schedule_full_refresh`, also with `sat#2` and `L5`"),
    _taken("use_change_version", "`extract.use_change_version`"),
    _taken("get_key_changes", "`extract.get_key_changes`, on unless it is turned off"),
    Argument("get_deletes_cv_with_deltas", "no switch: how deletes are paged is found out from the ODS"),
    Argument(
        "pull_all_deletes", "no switch: late and suppressed deletes are caught by the overlap and the counts"
    ),
    _taken(
        "pull_total_counts",
        "`extract.pull_total_counts`: counted at the end of a run; Airflow counts at its start",
    ),
    _taken("run_type", "`extract.run_type`, one for the platform"),
    _taken("resource_configs", "`extract.resources`"),
    _taken("descriptor_configs", "`extract.descriptors`"),
    _taken("change_version_table", "`tables.change_versions`"),
    _taken("deletes_table", "`tables.deletes`"),
    _taken("key_changes_table", "`tables.key_changes`"),
    _taken("descriptors_table", "`tables.descriptors`"),
    _taken("total_counts_table", "`tables.total_counts`"),
    Argument("dbt_incrementer_var", "not needed: tables are assets, dbt assets downstream run on new rows"),
    _taken("slack_conn_id", "`slack.webhook_url`"),
    _taken("default_args", "see below"),
)
"""``EdFiResourceDAG``, and what it hands on to ``EACustomDAG``."""

TASK_ARGUMENTS = (
    Argument("owner", "`owners`: `team:name` or an e-mail address"),
    Argument("run_as_user", "the user of the run's process or pod"),
    Argument("depends_on_past", "always: a run begins where the last one ended, failed ones too"),
    Argument("start_date", "not needed: a schedule makes no run of the past"),
    Argument("email", "`slack`"),
    Argument("email_on_failure", "`slack.events: [failure]`"),
    Argument("retries", "`num_retries` of requests; `run_retries` in dagster.yaml for crashes"),
    Argument("retry_delay", "none: requests back off by themselves"),
    Argument("trigger_rule", "none: one endpoint's failure stops no other"),
    Argument("execution_timeout", "`run_monitoring.max_runtime_seconds` in dagster.yaml"),
    _taken("sla", "`extract.late_after_hours`"),
)
"""``default_args`` of a DAG."""

RUN_PARAMETERS = (
    Argument(
        "full_refresh", "run config `resources.edfi_run.config.full_refresh`; `materialize --full-refresh`"
    ),
    Argument("endpoints", "a selection of assets; `materialize --endpoints a,b`, in any casing"),
    Argument("force", "run config `force` of a bundle; `bundle run --force`"),
)
"""What is given when a DAG is triggered."""

ENDPOINT_OPTIONS = (
    _taken("enabled", "`enabled`"),
    _taken("namespace", "in the name, as in `tpdm/candidates`"),
    _taken("page_size", "`page_size`"),
    _taken("num_retries", "`num_retries`"),
    _taken("change_version_step_size", "`change_version_step_size`"),
    _taken("fetch_deletes", "`fetch_deletes`"),
    _taken("query_parameters", "`query_parameters`"),
)
"""An entry of ``edfi_resources.yml`` or ``edfi_descriptors.yml``."""

CONNECTIONS = (
    _taken("Ed-Fi: host", "`base_url`"),
    _taken("Ed-Fi: login, password", "`client_id`, `client_secret`: variables that you fill in"),
    _taken("Ed-Fi: api_mode", "`api_mode`; found out if it is not given"),
    _taken("Ed-Fi: api_version", '`api_version: "2"` for 2; 3 is found out to the minor version'),
    _taken("Ed-Fi: api_year", "the year: a key of `years`"),
    _taken("Ed-Fi: instance_code", "`instance_code`"),
    _taken("Ed-Fi: use_snapshot", "`extract.use_snapshot`"),
    _taken("Ed-Fi: verify_ssl", "`verify_ssl`"),
    _taken("S3: schema", "`lake.bucket`"),
    Argument(
        "Other kinds: Azure, Google Cloud, Databricks",
        "there is no such kind: write `lake` or `warehouse` by hand",
    ),
    _taken("S3: login, password", "`lake.access_key_id`, `lake.secret_access_key`; none: the machine's role"),
    _taken("Snowflake: login, password", "`warehouse.user`, `warehouse.password` (better: `private_key`)"),
    _taken("Snowflake: account, region, database, schema, role, warehouse", "the same keys of `warehouse`"),
    Argument("Snowflake: aws_access_key_id, aws_secret_access_key", "the storage integration of the stage"),
    _taken("Slack: host, password", "`slack.webhook_url`: a variable that holds both"),
    Argument("Runway: host, login, password, extras", "`earthbeam.runway`"),
)
"""Fields of Airflow's connections."""

BLOCKS = (
    _taken("edfi_resource_dags", "`tenants`"),
    Argument("variables", "none: no value outlives a run but those in the warehouse"),
    Argument("default_task_args", "taken where a tenant's `default_args` has them"),
    Argument("edfi_resource_dags__default_args", "taken where a tenant merges them"),
    Argument("aws_param_store_dag", "secrets as variables or files: `{env: NAME}`, `{file: PATH}`"),
    Argument("dbt_run_dags", "dbt assets downstream of the tables (dagster-dbt)"),
    Argument("dbt_run_dags__default_args", "dbt assets downstream of the tables (dagster-dbt)"),
    Argument("dbt_docs_update", "a job of your own"),
    Argument("airflow_db_clean", "the job `forget_old_runs` and its schedule"),
)
"""Blocks of ``airflow_config_*.yml``."""

EARTHBEAM_DAG = (
    Argument("run_type", "the bundle's name under `earthbeam.bundles`"),
    Argument("earthmover_path, lightbeam_path", "`earthbeam.earthmover.path`, `earthbeam.lightbeam.path`"),
    Argument(
        "pool, earthmover_pool, lightbeam_pool",
        "`concurrency` of each tool, and Dagster's pools of these names",
    ),
    Argument("fast_cleanup", "always, also after a failure"),
    Argument(
        "schedule_interval", "the sensor `bundle_files`, or a schedule of your own on the bundle's assets"
    ),
    Argument("build_python_preprocessing_operator, build_bash_preprocessing_operator", "`hooks.preprocess`"),
    Argument("tenant_code, api_year", "`applies_to`"),
    Argument("raw_dir, input_file_mapping, input_file_var", "`inputs`"),
    Argument("grain_update", "`grains`, `grain_parameter`"),
    Argument("group_id, prefix_group_id", "none: assets are called `earthbeam/<bundle>/<output>`"),
    Argument("earthmover_kwargs", "`parameters` and `earthmover` of the bundle"),
    Argument("lightbeam_kwargs", "`lightbeam` of the bundle"),
    Argument("edfi_conn_id", "`destination: ods`; `send` of the year for a key of its own"),
    Argument("validate_edfi_conn_id", "`lightbeam.command: validate+send`"),
    Argument("s3_conn_id, s3_filepath", "the lake; `archive`"),
    Argument("python_callable", "`hooks.preprocess`"),
    Argument(
        "python_postprocess_callable",
        "`hooks.postprocess`: it runs after a success only; Airflow runs it beside the sending",
    ),
    Argument(
        "python_kwargs, python_postprocess_kwargs", "none: write the values into the function or the command"
    ),
    Argument(
        "snowflake_conn_id, database_conn_id",
        "`destination: warehouse`; rows are named `<resource>__<bundle>[__<grain>]`, not `<resource>__<run_type>`",
    ),
    Argument("logging_table", "`tables.run_log`, always written"),
    Argument("ods_version, data_model_version, endpoints", "the same keys of `sideload`"),
    Argument(
        "full_refresh",
        "the same key of `sideload`: it replaces rows of the new name; delete those named `…__<run_type>` once",
    ),
    Argument("assessment_bundle", "the bundle's name"),
    Argument("student_id_match_rates_table", "`tables.student_id_match_rates`"),
    Argument("snowflake_read_conn_id", "`student_ids.roster_warehouse`"),
    Argument("required_id_match_rate", "`student_ids.required_match_rate`"),
)
"""``EarthbeamDAG`` and its task groups, which are Python: to be written by hand."""

TOOLS = (
    Argument("Earthmover: output_dir, state_file, config_file", "the run's own folder; `path` of the bundle"),
    Argument(
        "Earthmover: selector, force, skip_hashing, show_graph, show_stacktrace, results_file",
        "the same keys of `earthmover`",
    ),
    Argument("Earthmover and Lightbeam: parameters", "`parameters`"),
    Argument(
        "Lightbeam: data_dir, state_dir, config_file, results_file", "the run's own folder, written for it"
    ),
    Argument(
        "Lightbeam: command, selector, wipe, force, older_than, newer_than, resend_status_codes",
        "the same keys of `lightbeam`",
    ),
    Argument("Lightbeam: query, keep_keys, drop_keys", "none: `fetch` is what `pull` does"),
    Argument(
        "LightbeamDeleteDAG",
        "none: it deletes what a query of the ODS finds; `lightbeam.command: delete` deletes what a file holds",
    ),
    Argument("partition_on_tenant_and_year", "`edfi_dagster.earthbeam.tenant_years`"),
)
"""Operators and callables."""

TABLES: Mapping[str, tuple[Argument, ...]] = {
    "`EdFiResourceDAG` and `EACustomDAG`": RESOURCE_DAG,
    "`default_args`": TASK_ARGUMENTS,
    "Run parameters": RUN_PARAMETERS,
    "`edfi_resources.yml`, `edfi_descriptors.yml`": ENDPOINT_OPTIONS,
    "Connections": CONNECTIONS,
    "`airflow_config_*.yml`": BLOCKS,
    "`EarthbeamDAG` (written by hand)": EARTHBEAM_DAG,
    "Operators (written by hand)": TOOLS,
}


def by_name(arguments: tuple[Argument, ...]) -> dict[str, Argument]:
    return {argument.name: argument for argument in arguments}


def markdown() -> str:
    """All of it as one Markdown table; what ``import-airflow`` writes by itself has a tick."""
    lines = ["| in Airflow | here | imported |", "|---|---|---|"]
    for title, arguments in TABLES.items():
        lines.append(f"| **{title}** | | |")
        for argument in arguments:
            names = argument.name if ":" in argument.name else f"`{argument.name.replace(', ', '`, `')}`"
            lines.append(f"| {names} | {argument.place} | {'✓' if argument.taken else ''} |")
    return "\n".join(lines) + "\n"
