"""Lake, warehouse and messages: blocks of the configuration from the connections that all DAGs share.

A block that cannot be written is None: the configuration then has no such block, and a run does not leave this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edfi_dagster.airflow.connections import Connection
from edfi_dagster.airflow.report import Report
from edfi_dagster.config.warehouse import TableNames

CHANGE_ME = "change-me"
_NOWHERE = "change-me.invalid"
LOCAL_LAKE = {"kind": "local", "root": "data/lake"}
LOCAL_WAREHOUSE = {"kind": "duckdb", "path": "data/warehouse.duckdb", "schema": "edfi3"}
TABLE_ARGUMENTS = {
    "change_version_table": "change_versions",
    "deletes_table": "deletes",
    "key_changes_table": "key_changes",
    "descriptors_table": "descriptors",
    "total_counts_table": "total_counts",
}
"""Argument there → key of ``tables`` here."""
_S3_TYPES = {"", "s3", "aws", "http", "https", "generic"}
_SNOWFLAKE_TYPES = {"", "snowflake"}
_OTHER_KINDS = {
    "adls": "Azure",
    "wasb": "Azure",
    "abfs": "Azure",
    "azure_data_lake": "Azure",
    "azure_blob_storage": "Azure",
    "google_cloud_platform": "Google Cloud",
    "gcs": "Google Cloud",
    "databricks": "Databricks",
}
_SECRET_KEYS = {"aws_access_key_id", "aws_secret_access_key"}
_DOMAIN = ".snowflakecomputing.com"

Block = dict[str, Any]


@dataclass(frozen=True)
class Named:
    """A connection that DAGs name, and what variables of its secrets begin with; ``type`` is what the DAG calls it."""

    id: str
    variable: str
    connection: Connection | None
    type: str = ""

    def other_kind(self, ours: set[str]) -> str | None:
        """What it is if it is not one of ``ours``, as in ``Azure (wasb)``."""
        said = [self.connection.type if self.connection else "", self.type.lower()]
        for kind in said:
            if kind not in ours:
                name = _OTHER_KINDS.get(kind)
                return f"{name} ({kind})" if name else kind
        return None


def place(connection: Connection) -> tuple[str, ...]:
    """Where a connection of a bucket or of Snowflake leads."""
    return (connection.type, _bucket(connection), _account(connection), connection.option("database"))


def lake(named: Named, report: Report, file: str) -> Block | None:
    """The ``lake`` block. Its root is the bucket's, as in the project: the stage and the paths stay as they are."""
    name, connection = named.id, named.connection
    if kind := named.other_kind(_S3_TYPES):
        report.leave(
            f"connection of {kind}",
            "there is no lake of this kind; write lake by hand. Until then files go to the folder data/lake",
            name,
            file,
        )
        return None
    bucket, _, prefix = _bucket(connection).partition("/")
    if not bucket:
        why = "names no bucket (schema)" if connection else "is not among those given"
        report.leave("bucket", f"{name} {why}; write lake.bucket, and take lake.endpoint_url out", name, file)
        return {"kind": "s3", "bucket": CHANGE_ME, "endpoint_url": f"https://{_NOWHERE}"}
    assert connection is not None
    block: Block = {"kind": "s3", "bucket": bucket, **({"prefix": prefix} if prefix.strip("/") else {})}
    if region := connection.option("region_name", "region"):
        block["region"] = region
    if endpoint := connection.option("endpoint_url") or (connection.host if "://" in connection.host else ""):
        block["endpoint_url"] = endpoint
    block |= _keys(named, connection, report)
    if connection.option("role_arn"):
        report.leave("role_arn", "let the machine have that role, or give keys", name, file)
    report.take(f"connection {name}", "lake", "connections")
    return block


def _bucket(connection: Connection | None) -> str:
    """``bucket``, or ``bucket/prefix``."""
    if connection is None:
        return ""
    service = connection.extra.get("service_config")
    of_service = service.get("s3") if isinstance(service, Mapping) else None
    newer = of_service.get("bucket_name") if isinstance(of_service, Mapping) else None
    return (connection.schema or connection.option("bucket_name") or str(newer or "")).removeprefix("s3://")


def _keys(named: Named, connection: Connection, report: Report) -> Block:
    if connection.has_login and connection.has_password:
        origins = "login", "password"
    elif connection.hidden >= _SECRET_KEYS:
        origins = "extra aws_access_key_id", "extra aws_secret_access_key"
    else:
        return {}
    return {
        key: report.secret(f"{named.variable}_{key.upper()}", f"{named.id}: {origin}")
        for key, origin in zip(("access_key_id", "secret_access_key"), origins, strict=True)
    }


def warehouse(named: Named, report: Report, file: str) -> Block | None:
    """The ``warehouse`` block."""
    name, connection = named.id, named.connection
    if kind := named.other_kind(_SNOWFLAKE_TYPES):
        report.leave(
            f"connection of {kind}",
            "there is no warehouse of this kind; write warehouse by hand. Until then rows go to data/warehouse.duckdb",
            name,
            file,
        )
        return None
    account = _account(connection) if connection else ""
    if not account:
        why = "names no account" if connection else "is not among those given"
        todo = "write warehouse.account and user, and take warehouse.host out"
        report.leave("account", f"{name} {why}; {todo}", name, file)
    block: Block = {"kind": "snowflake", "account": account or CHANGE_ME}
    if not account:
        block["host"] = _NOWHERE
    if connection is None:
        password = report.secret(f"{named.variable}_PASSWORD", f"{name}: password")
        return {**block, "user": CHANGE_ME, "password": password}
    report.take(f"connection {name}", "warehouse", "connections")
    return {**block, **_session(named, connection, report, file)}


def _session(named: Named, connection: Connection, report: Report, file: str) -> Block:
    """Who signs in, and where the tables lie."""
    if not connection.login:
        report.leave("user", f"{named.id} has no login; write warehouse.user", named.id, file)
    block: Block = {"user": connection.login or CHANGE_ME, **_sign_in(named, connection, report)}
    for key in ("role", "warehouse", "database"):
        if value := connection.option(key):
            block[key] = value
    if connection.schema:
        block["schema"] = connection.schema
    for key, usual in (("database", "raw"), ("schema", "edfi3")):
        if key not in block:
            report.leave(key, f"is not given; write warehouse.{key} unless it is {usual}", named.id, file)
    if database := connection.option("database"):
        block["stage"] = f"{database}.util.airflow_stage"
    if _SECRET_KEYS & {key.rpartition("__")[2] for key in connection.hidden}:
        report.leave(
            "aws_access_key_id, aws_secret_access_key",
            "the stage's storage integration has them",
            named.id,
            file,
        )
    return block


def _account(connection: Connection) -> str:
    """The account's identifier, of which an address may be given."""
    given = connection.option("account") or (connection.host if connection.host.endswith(_DOMAIN) else "")
    account = given.rpartition("://")[2].strip("/").removesuffix(_DOMAIN)
    region = connection.option("region")
    return f"{account}.{region}" if account and region and "." not in account else account


def _sign_in(named: Named, connection: Connection, report: Report) -> Block:
    name, variable = named.id, named.variable
    if path := connection.option("private_key_file"):
        block: Block = {"private_key_path": path}
    elif "private_key_content" in {key.rpartition("__")[2] for key in connection.hidden}:
        block = {
            "private_key": report.secret(f"{variable}_PRIVATE_KEY", f"{name}: extra private_key_content")
        }
    else:
        return {"password": report.secret(f"{variable}_PASSWORD", f"{name}: password")}
    if connection.has_password:
        passphrase = report.secret(f"{variable}_PASSPHRASE", f"{name}: password")
        return {**block, "private_key_passphrase": passphrase}
    return block


def slack(named: Named, has_sla: bool, report: Report, file: str) -> Block | None:
    """The ``slack`` block of a webhook."""
    if named.connection is not None and named.connection.type == "slack":
        report.leave(
            "token of Slack's API", "it needs a channel; write slack.token and slack.channel", named.id, file
        )
        return None
    origin = f"{named.id}: host and password, one after the other"
    report.take("slack_conn_id", "slack.webhook_url", named.id)
    return {
        "webhook_url": report.secret(f"{named.variable}_WEBHOOK_URL", origin),
        "events": ["failure", "late"] if has_sla else ["failure"],
    }


def tables(arguments: Mapping[str, Any], report: Report) -> Block:
    """The ``tables`` block, of names that differ from the usual ones."""
    found: Block = {}
    for old, key in TABLE_ARGUMENTS.items():
        name = arguments.get(old)
        if name and name != TableNames.model_fields[key].default:
            found[key] = str(name)
            report.take(old, f"tables.{key}", "all")
    return found
