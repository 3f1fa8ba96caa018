"""The code location: loads without a network, and names everything as the contract says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from edfi_dagster.assets.keys import AssetKeys, pair_of, partition_key
from edfi_dagster.config import Platform, TenantYear, embedded_platform, parse_platform
from edfi_dagster.definitions import build


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return embedded_platform(tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="module")
def defs(platform: Platform) -> dg.Definitions:
    return build(platform)


@pytest.fixture(scope="module")
def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_definitions_are_loadable(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)
    assert "extract_and_load" in [job.name for job in defs.resolve_all_job_defs()]


def test_location_loads_with_sockets_blocked_and_contacts_nothing(tmp_path: Path) -> None:
    script = (
        "import socket\n"
        "def blocked(*a, **k): raise AssertionError('the code location opened a socket')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = blocked\n"
        "import edfi_dagster.definitions as d\n"
        "keys = [spec.key.to_user_string() for spec in d.defs().resolve_all_asset_specs()]\n"
        "print(sum(key.startswith(('ed_fi/', 'tpdm/', 'raw_edfi_3/')) for key in keys))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "843", done.stderr


def test_every_endpoint_deletes_key_changes_and_table_is_an_asset(specs: dict[str, dg.AssetSpec]) -> None:
    # 153 resources, of which schoolYearTypes alone has no changes, 229 descriptors, 153 tables, 4 shared tables
    extracted = [key for key in specs if key.startswith(("ed_fi/", "tpdm/", "raw_edfi_3/"))]
    assert len(extracted) == 153 + 152 + 152 + 229 + 153 + 4
    for key in (
        "ed_fi/students",
        "ed_fi/students/deletes",
        "ed_fi/students/key_changes",
        "ed_fi/grade_level_descriptors",
        "ed_fi/student_cte_program_associations",
        "tpdm/candidates",
        "raw_edfi_3/students",
        "raw_edfi_3/candidates",
        "raw_edfi_3/_descriptors",
        "raw_edfi_3/_deletes",
        "raw_edfi_3/_key_changes",
        "raw_edfi_3/_meta_total_counts",
    ):
        assert key in specs
    assert "ed_fi/school_year_types/deletes" not in specs
    assert "ed_fi/grade_level_descriptors/deletes" not in specs


def test_tables_stand_downstream_of_their_endpoints(specs: dict[str, dg.AssetSpec]) -> None:
    upstream = {dep.asset_key.to_user_string() for dep in specs["raw_edfi_3/students"].deps}
    assert upstream == {"ed_fi/students", "ed_fi/students/deletes", "ed_fi/students/key_changes"}
    assert len(list(specs["raw_edfi_3/_descriptors"].deps)) == 229


def test_groups_are_domain_slugs_and_everything_is_described(specs: dict[str, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        assert spec.group_name and re.fullmatch(r"[A-Za-z0-9_]+", spec.group_name), key
        assert spec.description and spec.kinds, key
    assert specs["ed_fi/students"].group_name == "student_identification_and_demographics"


def columns(spec: dg.AssetSpec) -> dict[str, dg.TableColumn]:
    schema = spec.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    return {column.name: column for column in schema.columns}


def test_tables_tell_where_they_are_and_what_they_consist_of(specs: dict[str, dg.AssetSpec]) -> None:
    students = specs["raw_edfi_3/students"]
    assert students.metadata["dagster/table_name"] == "edfi3.students"
    assert students.metadata["edfi/natural_key"] == "studentUniqueId"
    assert students.description is not None
    assert "`ed-fi/students`" in students.description
    assert "`students_current`" in students.description
    told = columns(students)
    assert list(told)[:4] == ["tenant_code", "api_year", "pull_date", "pull_timestamp"]
    assert (told["v"].type, told["v"].description) == ("JSON", "the record exactly as the API sent it")
    assert list(columns(specs["raw_edfi_3/_descriptors"])) == list(told)
    assert list(columns(specs["raw_edfi_3/_meta_total_counts"])) == [
        "tenant_code",
        "api_year",
        "name",
        "pull_date",
        "pull_timestamp",
        "total_count",
    ]


def test_endpoints_tell_the_fields_of_their_records(specs: dict[str, dg.AssetSpec]) -> None:
    sessions = columns(specs["ed_fi/sessions"])
    assert sessions["sessionName"].type == "string"
    assert not sessions["sessionName"].constraints.nullable
    assert sessions["schoolReference"].description == "of the natural key"
    assert sessions["totalInstructionalDays"].description is None
    assert {"codeValue", "namespace"} <= columns(specs["ed_fi/grade_level_descriptors"]).keys()
    assert list(columns(specs["ed_fi/sessions/deletes"])) == ["id", "changeVersion", "keyValues"]
    assert list(columns(specs["ed_fi/sessions/key_changes"])) == [
        "id",
        "changeVersion",
        "oldKeyValues",
        "newKeyValues",
    ]
    for key, spec in specs.items():
        if key.startswith(("ed_fi/", "tpdm/", "raw_edfi_3/")):
            assert columns(spec), key


def test_on_snowflake_tables_are_told_with_their_database_and_its_types(platform: Platform) -> None:
    warehouse = {"kind": "snowflake", "account": "agency", "user": "loader", "password": {"env": "NOBODYS"}}
    text = yaml.safe_dump(
        {
            "warehouse": {**warehouse, "database": "raw", "schema": "edfi3"},
            "lake": {"kind": "s3", "bucket": "agency-lake"},
            "owners": ["team:data"],
            "extract": {"resources": {"students": {}}, "descriptors": "none"},
            "tenants": {
                "a": {
                    "years": {
                        2025: {
                            "base_url": "https://ods.example.org",
                            "client_id": {"env": "KEY"},
                            "client_secret": {"env": "SECRET"},
                        }
                    }
                }
            },
        }
    )
    specs = build(parse_platform(text, "platform.yaml", platform.folder)).resolve_all_asset_specs()
    found = {spec.key.to_user_string(): spec for spec in specs}
    table = found["raw_edfi_3/students"]
    assert table.metadata["dagster/table_name"] == "raw.edfi3.students"
    assert columns(table)["v"].type == "VARIANT"
    assert table.kinds == {"snowflake", "table"}
    assert found["ed_fi/students"].kinds == {"edfi", "json", "s3"}
    assert list(table.owners) == ["team:data"]


def test_partitions_are_tenant_by_year(defs: dg.Definitions, platform: Platform) -> None:
    partitions = defs.resolve_job_def("extract_and_load").partitions_def
    assert isinstance(partitions, dg.MultiPartitionsDefinition)
    assert {p.name: list(p.partitions_def.get_partition_keys()) for p in partitions.partitions_defs} == {
        "tenant": ["grand_bend", "lakeview"],
        "year": ["2025", "2026"],
    }
    for pair in platform.pairs():
        assert pair_of(partition_key(pair)) == pair


def test_one_snake_name_in_two_namespaces_gives_two_keys_and_two_tables(tmp_path: Path) -> None:
    platform = parse_platform(
        yaml.safe_dump(
            {
                "extract": {"resources": {"students": {}, "homograph/students": {}}, "descriptors": "none"},
                "tenants": {
                    "a": {
                        "years": {
                            2025: {
                                "base_url": "https://ods.example.org",
                                "client_id": {"env": "KEY"},
                                "client_secret": {"env": "SECRET"},
                            }
                        }
                    }
                },
            }
        ),
        "platform.yaml",
        tmp_path,
    )
    keys = AssetKeys(platform)
    named = {
        (keys.endpoint(e).to_user_string(), keys.table(e).to_user_string(), e.snake) for e in keys.endpoints
    }
    assert named == {
        ("ed_fi/students", "raw_edfi_3/students", "students"),
        ("homograph/students", "raw_edfi_3/homograph_students", "homograph_students"),
    }
    assert platform.pairs() == (TenantYear("a", 2025),)
