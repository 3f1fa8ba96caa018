"""Names that lead out of a folder or out of a statement: refused where they come from, harmless where they arrive."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
import yaml
from botocore.exceptions import ClientError

from edfi_dagster.config import ConfigError, parse_platform
from edfi_dagster.health.last_runs import last_runs
from edfi_dagster.lake.manifest import manifests, stamps
from edfi_dagster.lake.s3 import S3Lake
from edfi_dagster.lake.store import LakeError, LocalLake, open_lake
from edfi_dagster.ods.discovery import addresses, read_discovery
from edfi_dagster.warehouse.contract import RawTable, WarehouseError
from edfi_dagster.warehouse.current import current_sql, keyed
from edfi_dagster.warehouse.duckdb import DuckDBConnection
from edfi_dagster.warehouse.snowflake_sql import SnowflakeDialect, copy_sql, put_sql, stage_name, stage_place
from edfi_dagster_tests.bench import PAIR, Bench, MakeBench
from edfi_dagster_tests.cli.in_process import invoke
from edfi_dagster_tests.config.documents import EVERYTHING, TENANTS
from edfi_dagster_tests.lake.s3_server import Bucket
from edfi_dagster_tests.ods.platforms import platform_at

WAYS_OUT = ["..", "../x", "a/../../x", "/etc", "a/b", "a\\b", "a\x00b", "a\nb", ".hidden", "~", "-rf", "a|b", "%2e%2e", "", " ", "a b",
            "\u2024\u2024/", "ａ", "$(id)", "`id`", "a;b", "20250101"]  # fmt: skip
STATEMENTS = [
    "a'; DROP TABLE students; --",
    'a"; DROP TABLE students; --',
    "a\\'; DROP TABLE students; --",
    "a) OR 1=1 --",
    "a/*",
    "a--",
    "a;b",
    "a?b",
    "a\nb",
    "a\x00b",
    "a.b",
    "a b",
    "",
    "１",
    "$$",
]


def parsed(change: Callable[[dict[str, Any]], object]) -> None:
    document = yaml.safe_load(EVERYTHING)
    document.pop("earthbeam", None)
    change(document)
    parse_platform(yaml.safe_dump(document), "agency.yaml", Path("/nowhere"))


def test_the_configuration_is_right_before_it_is_attacked() -> None:
    parsed(lambda document: None)


@pytest.mark.parametrize("name", WAYS_OUT)
def test_no_tenant_instance_prefix_or_endpoint_leads_out_of_its_folder(name: str) -> None:
    def tenant(document: dict[str, Any]) -> None:
        document["tenants"] = {name: document["tenants"]["grand_bend"]}

    def instance(document: dict[str, Any]) -> None:
        document["tenants"]["grand_bend"]["years"][2025]["instance_code"] = name

    def prefix(document: dict[str, Any]) -> None:
        document["lake"]["prefix"] = f"a/{name}/b"

    def endpoint(document: dict[str, Any]) -> None:
        document["extract"]["resources"] = {f"tpdm/{name}": {}}

    def namespace(document: dict[str, Any]) -> None:
        document["extract"]["resources"] = {"candidates": {"namespace": name}}

    # A tenant's folder is not its code but what `tenant_folder` makes of it, so its code may hold more than the others.
    allowed = {
        "20250101": {"tenant", "instance", "endpoint"},
        "-rf": {"instance"},
        "a/b": {"prefix"},
        "a b": {"tenant"},
        "ａ": {"tenant"},
        "": set(),
    }.get(name, set())
    for change in (tenant, instance, prefix, endpoint, namespace):
        if change.__name__ not in allowed and not (change.__name__ == "endpoint" and name == "20250101"):
            with pytest.raises(ConfigError):
                parsed(change)


@pytest.mark.parametrize("year", ["2025", "../2025", 20250101, 0, -1, 2025.0, True, None, "2025|x"])
def test_a_year_is_a_year(year: object) -> None:
    with pytest.raises(ConfigError):
        parsed(lambda document: document["tenants"]["grand_bend"].update(years={year: {}}))


# Names of roles and warehouses are quoted in SQL (the comments of setup-warehouse), and so are databases, schemas and
# stages that are not plain: see `test_no_name_of_a_database_schema_or_stage_ends_a_statement_of_snowflake`.
QUOTED = {
    ("warehouse", "role"): {"a--", "a.b", "$$"},
    ("warehouse", "warehouse"): {"a--", "a.b", "$$"},
    ("warehouse", "schema"): {"a--", "a b", "１"},
    ("warehouse", "database"): {"a--", "a b", "１"},
    ("warehouse", "stage"): {"a--", "a b", "１", "a.b"},
}


@pytest.mark.parametrize(
    "place",
    [
        *(("warehouse", name) for name in ("schema", "database", "role", "warehouse", "stage")),
        *(("tables", name) for name in ("deletes", "descriptors", "change_versions", "asset_prefix")),
    ],
    ids=".".join,
)
def test_no_name_of_the_configuration_ends_a_statement(place: tuple[str, str]) -> None:
    block, key = place
    for name in STATEMENTS:
        if name not in QUOTED.get(place, set()):
            with pytest.raises(ConfigError):
                parsed(lambda document, name=name: document[block].update({key: name}))


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a/..", "a\x00b", ".."])
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_no_path_leads_out_of_the_lake(tmp_path: Path, kind: str, path: str) -> None:
    lake: LocalLake | S3Lake = LocalLake(tmp_path / "lake")
    if kind == "s3":
        found = open_lake(parse_platform(S3 + TENANTS, "agency.yaml", tmp_path).lake)
        assert isinstance(found, S3Lake)
        lake = found
    for use in (lake.read, lake.exists, lake.children, lake.delete, lake.uri):
        with pytest.raises(LakeError, match="outside the lake"):
            use(path)
    with pytest.raises(LakeError, match="outside the lake"), lake.writing(path):
        raise AssertionError("opened")
    with pytest.raises(LakeError, match="outside the lake"), lake.local_files([path]) as copies:
        assert copies == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tenant", "../grand_bend", "--year", "2025"],
        ["--tenant", "grand_bend'; DROP TABLE x; --", "--year", "2025"],
        ["--tenant", "grand_bend", "--year", "2025", "--endpoints", "../../students"],
        ["--tenant", "grand_bend", "--year", "2025", "--endpoints", "tpdm/../students"],
        ["--tenant", "grand_bend", "--year", "2025", "--endpoints", "students\x1b[2J"],
    ],
)
def test_no_argument_of_a_command_is_a_path_or_a_statement(
    make_bench: MakeBench, arguments: list[str]
) -> None:
    bench = make_bench("students")
    before = sorted(bench.folder.rglob("*"))
    for command in (["pull", "--out", str(bench.folder / "out")], ["materialize"]):
        result = invoke(bench, *command, *arguments)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert len(bench.server.requests) == 0
    assert [
        path for path in sorted(bench.folder.rglob("*")) if path not in before and path.suffix != ".db"
    ] == []


# -- names that come from an ODS ------------------------------------------------------------------------------

S3 = "lake: {kind: s3, bucket: edfi-lake}\n"
KEY_PATHS = [
    *STATEMENTS,
    "a\"'); DROP TABLE t; --",
    "$.x",
    "x[0]",
    "*",
    "\\",
    "'||(SELECT 1)||'",
    "a'\"",
    "\u2028",
]


@pytest.mark.parametrize("path", KEY_PATHS)
def test_no_natural_key_of_an_openapi_document_ends_a_statement_of_duckdb(path: str) -> None:
    with duckdb.connect() as database:
        database.execute("CREATE TABLE t (tenant_code VARCHAR, v JSON)")
        database.execute("INSERT INTO t VALUES ('kept', '{\"a\": 1}')")
        connection = DuckDBConnection(database.cursor(), "main", _names(), LocalLake(Path("/nowhere")))
        for sql in (
            f"SELECT {connection.text(path)} FROM t",
            keyed(connection, "t", [path, "b"], ["tenant_code"]),
        ):
            try:
                rows = connection.rows(sql)
            except WarehouseError:
                continue
            assert len(rows) == 1
        assert database.execute("SELECT tenant_code FROM t").fetchall() == [("kept",)]


@pytest.mark.parametrize("path", KEY_PATHS)
def test_no_natural_key_of_an_openapi_document_ends_a_statement_of_snowflake(path: str) -> None:
    dialect = SnowflakeDialect("raw", "edfi3", _names())
    table = RawTable("students", (path, "b"))
    (statement,) = sqlglot.parse(current_sql(dialect, table), read="snowflake")
    assert statement is not None
    assert not list(statement.find_all(sqlglot.exp.Drop, sqlglot.exp.Command))


def _names() -> Any:
    return platform_at("https://ods.example.org/api").tables


@pytest.mark.parametrize("text", ["a'b", "a b", "../a", "a\\b", "a\nb", "*", "a?b", "", "a;b", "@x y"])
def test_no_path_or_stage_ends_a_statement_of_snowflake(text: str) -> None:
    with pytest.raises(WarehouseError):
        stage_place("S", text)
    if text == "a b":
        assert stage_name(text) == '"a b"'
    else:
        with pytest.raises(WarehouseError):
            stage_name(text)
    with pytest.raises(WarehouseError):
        copy_sql("t", "@S", [text], "F")


NAMES = {
    "raw": ("RAW", "RAW"),
    "raw-prod": ("raw-prod", '"raw-prod"'),
    "2024_raw": ("2024_raw", '"2024_raw"'),
    "a b": ("a b", '"a b"'),
    "a--": ("a--", '"a--"'),
    '"raw"': ("raw", '"raw"'),
    '"RAW"': ("RAW", "RAW"),
    '"a;b -- c"': ("a;b -- c", '"a;b -- c"'),
    '"x.y"': ("x.y", '"x.y"'),
}
"""Name in the configuration → what Snowflake calls it, and how SQL spells that."""


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_database_schema_or_stage_ends_a_statement_of_snowflake(name: str) -> None:
    meant, spelled = NAMES[name]
    dialect = SnowflakeDialect(name, name, _names())
    (select,) = sqlglot.parse(f"SELECT * FROM {dialect.table('students')}", read="snowflake")
    assert select is not None
    (table,) = select.find_all(sqlglot.exp.Table)
    assert (table.catalog, table.db, table.name) == (meant, meant, "STUDENTS")
    assert dialect.qualified("F") == f"{spelled}.{spelled}.F"
    place = stage_place(stage_name(f"{name}.util.{name}"), "a/b/")
    inside = f"@{spelled}.UTIL.{spelled}/a/b/"
    assert place == (f"'{inside}'" if re.search(r"[ ;-]", spelled) else inside)
    (statement,) = sqlglot.parse(copy_sql("t", place, ["f.gz"], dialect.qualified("F")), read="snowflake")
    assert isinstance(statement, sqlglot.exp.Copy)


@pytest.mark.parametrize("folder", ["a'b", "a\\b", "a\\'b", "a;b -- c"])
def test_a_folders_name_stays_within_the_put_of_snowflake(folder: str) -> None:
    statement = put_sql(f"/data/{folder}/x.jsonl.zst", "@S/x")
    inside = statement[len("PUT '") :].split("' @S/x")[0]
    assert inside.replace("\\\\", "").replace("\\'", "").count("'") == 0


@pytest.mark.parametrize("folder", ["a*c", "a?c [b]", "**'{b};-- 漢"])
def test_a_lake_is_read_from_its_own_folder_whatever_that_is_called(
    make_bench: MakeBench, folder: str
) -> None:
    bench = make_bench("students")
    neighbour = _moved(bench, "abc")
    neighbour.materialize()
    own = _moved(bench, folder)
    own.materialize(full_refresh=True)
    own.verify()


def _moved(bench: Bench, folder: str) -> Bench:
    document = yaml.safe_load(bench.config.read_text())
    document["lake"]["root"] = f"{folder}/lake"
    bench.config.write_text(yaml.safe_dump(document))
    return Bench(bench.config, bench.server)


@pytest.mark.parametrize("instance", ["../x", "a/b", "{instance}", "a%2fb", "x y", "..", "a'"])
def test_an_instance_that_an_ods_tells_is_a_plain_name_or_none(instance: str) -> None:
    settings = platform_at("https://ods.example.org/api").ods(PAIR)
    told = {
        "version": "6.1",
        "apiMode": "Instance Year Specific",
        "dataModels": [{"name": "Ed-Fi", "version": "4.0.0"}],
        "urls": {"dataManagementApi": f"https://ods.example.org/api/data/v3/{instance}/2025/"},
    }
    try:
        found = read_discovery(told, settings)
    except ValueError as error:
        assert "write instance_code" in str(error)
    else:
        assert all(
            ".." not in place and "'" not in place
            for place in addresses("https://o/api", found, 2025).values()
        )


ODD_KEYS = [
    "grand_bend/2025//x", "grand_bend/2025/../../other/2025/x", "grand_bend/2025/20250102/20250102T030405/resources/a\nb.manifest.json",
    "grand_bend/2025/20250102/20250102T030405/../x.manifest.json", "grand_bend/2025/20250102/99999999T999999/x", "grand_bend/2025/ä 漢/%2e%2e/x",
    "grand_bend/2025/20250102/20250102T030405/resources//students.manifest.json", "grand_bend/2025/20250102/20250102T030405", "/grand_bend/2025/x",
    "grand_bend/2025/20250102/20250102T030405/resources/" + "x" * 900 + ".manifest.json", "grand_bend/2025/&<>'\"?#*/x",
]  # fmt: skip


@pytest.mark.slow
def test_keys_that_somebody_else_put_into_the_bucket_are_no_runs_or_named(bucket: Bucket) -> None:
    lake = open_lake(
        parse_platform(
            yaml.safe_dump({"lake": bucket.document(prefix="edfi")}) + TENANTS, "a", Path("/x")
        ).lake
    )
    for key in ODD_KEYS:
        with suppress(ClientError):  # the stand-in for S3 does not take every key that S3 does
            bucket.client.put_object(Bucket=bucket.name, Key=f"edfi/{key}", Body=b"{}")
    assert len(bucket.objects()) >= 6
    assert stamps(lake, PAIR) == [datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)]
    with pytest.raises(LakeError, match="is no manifest of this version") as caught:
        list(manifests(lake, PAIR, stamps(lake, PAIR)[0]))
    assert str(caught.value).isprintable()
    assert last_runs(lake, PAIR, ["students"]).has_ended is False
