"""What runs on several hosts, each with a disk of its own, ask of a configuration."""

from __future__ import annotations

import os

from edfi_dagster.config import ConfigError, Platform

HOSTS_VARIABLE = "EDFI_DAGSTER_HOSTS"
"""Environment variable: ``many`` where a run may be on another host than the run before it."""


def check_stores(platform: Platform) -> None:
    """Raises ConfigError where runs are on many hosts, but lake or warehouse on the disk of one.

    Each run would find them empty, pull everything again, and lose it with its host.
    """
    hosts = os.environ.get(HOSTS_VARIABLE, "one")
    if hosts not in {"one", "many"}:
        raise ConfigError(f"${HOSTS_VARIABLE} is {hosts!r}; write one or many")
    if hosts == "many" and (local := _local_blocks(platform)):
        raise ConfigError(
            f"{platform.source}: {' and '.join(local)} {'is' if len(local) == 1 else 'are'} on the disk of one host, "
            f"but ${HOSTS_VARIABLE} says that runs are on many; write lake.kind: s3 and warehouse.kind: snowflake"
        )


def _local_blocks(platform: Platform) -> list[str]:
    lake = ["lake.kind: local"] if platform.lake.kind == "local" else []
    return lake + (["warehouse.kind: duckdb"] if platform.warehouse.kind == "duckdb" else [])
