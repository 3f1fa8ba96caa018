"""What Dagster's Helm chart 1.13 makes of values: the dagster.yaml that webserver, daemon and runs are given.

Written from the chart's templates; a key that they do not read is an error here, for the chart would say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

RELEASE, NAMESPACE = "dagster", "edfi"
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")


def _snake(value: Any) -> Any:
    """Mappings with their keys as dagster.yaml writes them. What Kubernetes or a tag limit reads is left as it is."""
    if not isinstance(value, Mapping):
        return value
    return {_CAMEL.sub(r"_\1", key).lower(): _snake(inner) for key, inner in value.items()}


def _take(given: Mapping[str, Any], *known: str) -> dict[str, Any]:
    assert given.keys() <= set(known), f"the chart does not read {given.keys() - set(known)}"
    return dict(given)


def instance_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The document of the config map ``dagster-instance``."""
    daemon = values["dagsterDaemon"]
    _take(
        daemon,
        *("image", "runCoordinator", "runMonitoring", "runRetries", "schedules", "sensors", "resources"),
    )
    monitoring = _take(
        daemon["runMonitoring"],
        *("enabled", "startTimeoutSeconds", "cancelTimeoutSeconds", "maxRuntimeSeconds"),
        *("maxResumeRunAttempts", "pollIntervalSeconds", "freeSlotsAfterRunEndSeconds"),
    )
    retries = _take(daemon["runRetries"], "enabled", "maxRetries", "retryOnAssetOrOpFailure")
    pool = ("useThreads", "numWorkers", "numSubmitWorkers")
    return {
        **_storages(values),
        "run_launcher": _launcher(values),
        "run_coordinator": _coordinator(daemon["runCoordinator"]),
        "compute_logs": _logs(values["computeLogManager"]),
        "run_monitoring": _snake(monitoring),
        "run_retries": _snake(retries),
        "sensors": _snake(_take(daemon["sensors"], *pool)),
        "schedules": _snake(_take(daemon["schedules"], *pool)),
        "telemetry": values["telemetry"],
        "retention": _retention(values["retention"]),
        "concurrency": _concurrency(values["concurrency"]),
    }


def _storages(values: Mapping[str, Any]) -> dict[str, Any]:
    given = _take(
        values["postgresql"],
        *(
            "enabled",
            "postgresqlHost",
            "postgresqlUsername",
            "postgresqlDatabase",
            "postgresqlScheme",
            "service",
        ),
    )
    database = {
        "username": given["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": given["postgresqlHost"],
        "db_name": given["postgresqlDatabase"],
        "port": given["service"]["port"],
        "params": {},
        "scheme": given["postgresqlScheme"],
    }
    classes = {
        "schedule_storage": "PostgresScheduleStorage",
        "run_storage": "PostgresRunStorage",
        "event_log_storage": "PostgresEventLogStorage",
    }
    modules = {**{name: name for name in classes}, "event_log_storage": "event_log"}
    return {
        name: {
            "module": f"dagster_postgres.{modules[name]}",
            "class": class_,
            "config": {"postgres_db": database},
        }
        for name, class_ in classes.items()
    }


def _launcher(values: Mapping[str, Any]) -> dict[str, Any]:
    launcher = _take(values["runLauncher"], "type", "config")
    assert launcher["type"] == "K8sRunLauncher"
    given = _take(
        launcher["config"]["k8sRunLauncher"],
        *(
            "imagePullPolicy",
            "loadInclusterConfig",
            "envSecrets",
            "envVars",
            "volumes",
            "volumeMounts",
            "runK8sConfig",
        ),
    )
    return {
        "module": "dagster_k8s",
        "class": launcher["type"],
        "config": {
            "load_incluster_config": given["loadInclusterConfig"],
            "job_namespace": NAMESPACE,
            "image_pull_policy": given["imagePullPolicy"],
            "service_account_name": values["global"]["serviceAccountName"],
            "dagster_home": values["global"]["dagsterHome"],
            "instance_config_map": f"{RELEASE}-instance",
            "postgres_password_secret": values["global"]["postgresqlSecretName"],
            "env_secrets": [secret["name"] for secret in given["envSecrets"]],
            "env_vars": given["envVars"],
            "volumes": given["volumes"],
            "volume_mounts": given["volumeMounts"],
            "run_k8s_config": {
                _CAMEL.sub(r"_\1", key).lower(): config
                for key, config in _take(
                    given["runK8sConfig"],
                    *(
                        "containerConfig",
                        "podSpecConfig",
                        "podTemplateSpecMetadata",
                        "jobSpecConfig",
                        "jobMetadata",
                    ),
                ).items()
            },
        },
    }


def _coordinator(given: Mapping[str, Any]) -> dict[str, Any]:
    assert given["enabled"] and given["type"] == "QueuedRunCoordinator"
    options = _take(
        given["config"]["queuedRunCoordinator"],
        "dequeueIntervalSeconds",
        "dequeueUseThreads",
        "dequeueNumWorkers",
    )
    return {"module": "dagster.core.run_coordinator", "class": given["type"], "config": _snake(options)}


def _logs(given: Mapping[str, Any]) -> dict[str, Any]:
    assert given["type"] == "S3ComputeLogManager"
    options = _take(given["config"]["s3ComputeLogManager"], "bucket", "prefix", "skipEmptyFiles", "region")
    return {
        "module": "dagster_aws.s3.compute_log_manager",
        "class": given["type"],
        "config": {**_snake(options), "verify": True},
    }


def _retention(given: Mapping[str, Any]) -> dict[str, Any]:
    """The chart's schema wants all four states where a number of days is told for each."""
    assert given["enabled"]
    kinds = {kind: given[kind]["purgeAfterDays"] for kind in ("schedule", "sensor", "autoMaterialize")}
    for days in kinds.values():
        assert isinstance(days, int) or days.keys() == {"skipped", "success", "failure", "started"}
    return {_CAMEL.sub(r"_\1", kind).lower(): {"purge_after_days": days} for kind, days in kinds.items()}


def _concurrency(given: Mapping[str, Any]) -> dict[str, Any]:
    assert given["enabled"]
    pools = _take(given["pools"], "defaultLimit", "granularity", "opGranularityRunBuffer")
    runs = _take(given["runs"], "maxConcurrentRuns", "tagConcurrencyLimits")
    return {
        "pools": _snake(pools),
        "runs": {
            "max_concurrent_runs": runs["maxConcurrentRuns"],
            "tag_concurrency_limits": runs["tagConcurrencyLimits"],
        },
    }
