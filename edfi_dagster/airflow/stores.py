"""Lake, warehouse and messages: blocks of the configuration from the connections that all DAGs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edfi_dagster.airflow.connections import Connection
from edfi_dagster.airflow.report import Report
from edfi_dagster.config.warehouse import TableNames

CHANGE_ME = "CHANGE-ME"
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
_SECRET_KEYS = {"aws_access_key_id", "aws_secret_access_key"}

Block = dict[str, Any]


def lake(connection: Connection | None, name: str, variable: str, report: Report) -> Block:
    """The ``lake`` block. Its root is the bucket's, as in the project: the stage and the paths stay as they are."""
    if connection is None:
        report.remark("no connection of the bucket was given: write lake.bucket", name)
        return {"kind": "s3", "bucket": CHANGE_ME.lower()}
    bucket = connection.schema or connection.option("bucket_name")
    if not bucket:
        report.remark("the connection names no bucket (schema): write lake.bucket", name)
    block: Block = {"kind": "s3", "bucket": bucket or CHANGE_ME.lower()}
    if region := connection.option("region_name", "region"):
        block["region"] = region
    if endpoint := connection.option("endpoint_url") or (connection.host if "://" in connection.host else ""):
        block["endpoint_url"] = endpoint
    if connection.has_login and connection.has_password:
        block["access_key_id"] = report.secret(f"{variable}_ACCESS_KEY_ID", f"{name}: login")
        block["secret_access_key"] = report.secret(f"{variable}_SECRET_ACCESS_KEY", f"{name}: password")
    elif connection.hidden >= _SECRET_KEYS:
        block["access_key_id"] = report.secret(
            f"{variable}_ACCESS_KEY_ID", f"{name}: extra aws_access_key_id"
        )
        block["secret_access_key"] = report.secret(
            f"{variable}_SECRET_ACCESS_KEY", f"{name}: extra aws_secret_access_key"
        )
    if connection.option("role_arn"):
        report.leave("S3: role_arn", "let the machine have that role, or give keys", name)
    report.take(f"connection {name}", "lake", "connections")
    return block


def warehouse(connection: Connection | None, name: str, variable: str, report: Report) -> Block:
    """The ``warehouse`` block."""
    if connection is None:
        report.remark("no connection of Snowflake was given: write warehouse.account and user", name)
        password = report.secret(f"{variable}_PASSWORD", f"{name}: password")
        return {"kind": "snowflake", "account": CHANGE_ME, "user": CHANGE_ME, "password": password}
    account, region = connection.option("account"), connection.option("region")
    if not account:
        report.remark("the connection names no account: write warehouse.account", name)
    block: Block = {
        "kind": "snowflake",
        "account": f"{account}.{region}"
        if account and region and "." not in account
        else account or CHANGE_ME,
        "user": connection.login or CHANGE_ME,
        **_sign_in(connection, name, variable, report),
    }
    for key in ("role", "warehouse", "database"):
        if value := connection.option(key):
            block[key] = value
    if connection.schema:
        block["schema"] = connection.schema
    if database := connection.option("database"):
        block["stage"] = f"{database}.util.airflow_stage"
    report.take(f"connection {name}", "warehouse", "connections")
    return block


def slack(name: str, variable: str, has_sla: bool, report: Report) -> Block:
    """The ``slack`` block of a webhook."""
    origin = f"{name}: host and password, one after the other"
    report.take("slack_conn_id", "slack.webhook_url", name)
    return {
        "webhook_url": report.secret(f"{variable}_WEBHOOK_URL", origin),
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


def _sign_in(connection: Connection, name: str, variable: str, report: Report) -> Block:
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
