"""Downstream Python assets get manifests, frames or rows of their own partition, and leave tables."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster_aws.s3 import S3Resource
from dagster_snowflake import SnowflakeResource

from edfi_dagster.assets.keys import partition_key, partitions_of
from edfi_dagster.assets.specs import WAREHOUSE_IO_MANAGER
from edfi_dagster.definitions import build
from edfi_dagster.io_managers import Rows
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.lake.proof import DamagedFile
from edfi_dagster_tests.bench import PAIR, Bench


@pytest.mark.both_storages
def test_downstream_assets_get_what_they_annotate_and_leave_a_table(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("students", "schools")
    partitions = partitions_of(bench.platform)
    seen: dict[str, Any] = {}

    @dg.asset(
        partitions_def=partitions,
        ins={"pull": dg.AssetIn(["ed_fi", "students"]), "students": dg.AssetIn(["raw_edfi_3", "students"])},
    )
    def watcher(pull: Manifest, students: Rows) -> None:
        seen["pull"] = pull
        seen["ids"] = {student["id"] for student in students}

    @dg.asset(
        partitions_def=partitions,
        ins={"schools": dg.AssetIn(["raw_edfi_3", "schools"])},
        io_manager_key=WAREHOUSE_IO_MANAGER,
    )
    def school_names(schools: pd.DataFrame) -> pd.DataFrame:
        return schools[["schoolId", "nameOfInstitution"]]

    defs = dg.Definitions.merge(build(bench.platform), dg.Definitions(assets=[watcher, school_names]))
    bench.materialize()
    job = defs.resolve_implicit_global_asset_job_def()
    for _ in range(2):  # a second run replaces the partition's rows
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                instance=instance,
                partition_key=partition_key(PAIR),
                asset_selection=[dg.AssetKey("watcher"), dg.AssetKey("school_names")],
            )
        assert result.success

    assert isinstance(seen["pull"], Manifest)
    assert seen["pull"].rows == bench.store.count("students")
    assert seen["ids"] == set(bench.store.ids("students"))
    with bench.warehouse.connected() as connection:
        rows = connection.rows(f"SELECT * FROM {connection.table('school_names')} ORDER BY 3")
    expected = sorted((s["schoolId"], s["nameOfInstitution"]) for s in bench.store.rows("schools"))
    assert rows == [(PAIR.tenant, PAIR.year, *school) for school in expected]


@pytest.mark.both_storages
def test_a_manifest_whose_file_was_damaged_is_handed_to_nobody(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("students")
    bench.materialize()
    manifest = bench.manifest("students")
    with bench.lake.writing(manifest.files[0].path) as stream:
        stream.write(b"other")

    @dg.asset(partitions_def=partitions_of(bench.platform), ins={"pull": dg.AssetIn(["ed_fi", "students"])})
    def watcher(pull: Manifest) -> None:
        raise AssertionError

    defs = dg.Definitions.merge(build(bench.platform), dg.Definitions(assets=[watcher]))
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        selected = [dg.AssetKey("watcher")]
        key = partition_key(PAIR)
        with pytest.raises(DamagedFile, match=r"grand_bend/2025 ed-fi/students: .* its manifest lists"):
            job.execute_in_process(instance=instance, partition_key=key, asset_selection=selected)


@pytest.mark.storage("production")
def test_downstream_assets_reach_lake_and_warehouse_by_the_libraries_own_resources(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench("schools")
    bench.materialize()
    seen: dict[str, Any] = {}

    @dg.asset
    def watcher(s3: S3Resource, snowflake: SnowflakeResource) -> None:
        lake = bench.platform.lake
        assert lake.kind == "s3"
        found = s3.get_client().list_objects_v2(Bucket=lake.bucket, Prefix=f"{lake.prefix}/{PAIR.tenant}/")
        seen["objects"] = [item["Key"] for item in found["Contents"]]
        with snowflake.get_connection() as connection:
            seen["rows"] = connection.cursor().execute("SELECT count(*) FROM edfi3.schools").fetchone()

    defs = dg.Definitions.merge(build(bench.platform), dg.Definitions(assets=[watcher]))
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("watcher")]).success
    assert any(key.endswith("schools.manifest.json") for key in seen["objects"])
    assert seen["rows"] == (bench.store.count("schools"),)
