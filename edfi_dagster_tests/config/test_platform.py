"""What a configuration says about each tenant and year."""

from __future__ import annotations

import socket
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from pydantic import ValidationError

from edfi_dagster.config import (
    ConfigError,
    Platform,
    ResolvedOptions,
    TenantYear,
    UndeclaredPair,
    json_schema,
    load_platform,
    normalise_endpoint,
    parse_platform,
)
from edfi_dagster.config.lake import LocalLake, S3Lake
from edfi_dagster.config.warehouse import DuckDBWarehouse, SnowflakeWarehouse
from edfi_dagster_tests.config.documents import EVERYTHING, TENANTS, of_year, write_config

GRAND_BEND = TenantYear("grand_bend", 2025)


@pytest.fixture
def everything(tmp_path: Path) -> Platform:
    (tmp_path / "bundles" / "PSAT_SAT").mkdir(parents=True)
    return load_platform(write_config(tmp_path, EVERYTHING))


def configured(tmp_path: Path, text: str) -> Platform:
    return load_platform(write_config(tmp_path, text))


def test_smallest_configuration_takes_every_default(tmp_path: Path) -> None:
    platform = configured(tmp_path, TENANTS)
    assert platform.lake == LocalLake(kind="local", root=tmp_path / "data" / "lake", compression="zstd")
    assert platform.warehouse == DuckDBWarehouse(
        kind="duckdb", path=tmp_path / "data" / "warehouse.duckdb", schema="edfi3"
    )
    assert platform.extract.resources.all
    assert platform.extract.descriptors.all
    assert (platform.extract.data_standard, platform.extract.run_type) == ("5.2", "bulk")
    assert platform.tables.asset_prefix == "raw_edfi_3"
    assert platform.timezone == "UTC"
    assert platform.source == str(tmp_path / "agency.yaml")
    assert platform.folder == tmp_path
    assert platform.endpoint_options(GRAND_BEND, "ed-fi", "students", "resources") == ResolvedOptions(
        enabled=True,
        page_size=500,
        num_retries=5,
        change_version_step_size=50_000,
        fetch_deletes=True,
        query_parameters={},
        profile=None,
    )
    limits = platform.ods(GRAND_BEND).extract
    assert (limits.max_concurrent_requests, limits.change_version_overlap) == (8, 10_000)
    assert (limits.use_change_version, limits.get_key_changes, limits.pull_total_counts) == (
        True,
        True,
        False,
    )


def test_pairs_are_declared_ones_in_the_order_of_the_file(everything: Platform) -> None:
    assert everything.pairs() == (("grand_bend", 2025), ("grand_bend", 2026), ("NO", 2025))
    assert [str(pair) for pair in everything.pairs()] == ["grand_bend/2025", "grand_bend/2026", "NO/2025"]


@pytest.mark.parametrize("pair", [TenantYear("grand_bend", 2027), TenantYear("lakeview", 2025)])
def test_undeclared_pair_is_refused_with_the_declared_ones(everything: Platform, pair: TenantYear) -> None:
    for ask in (everything.ods, lambda pair: everything.endpoint_options(pair, "ed-fi", "x", "resources")):
        with pytest.raises(UndeclaredPair) as raised:
            ask(pair)
        assert isinstance(raised.value, ConfigError)
        assert f"tenants.{pair.tenant}.years.{pair.year} is not declared" in str(raised.value)
        assert "grand_bend/2025, grand_bend/2026, NO/2025" in str(raised.value)
        assert everything.source in str(raised.value)


def test_year_overrides_the_platform_and_inherits_the_rest(everything: Platform) -> None:
    first, second = everything.ods(GRAND_BEND), everything.ods(TenantYear("grand_bend", 2026))
    assert (first.extract.data_standard, second.extract.data_standard) == ("5.1", "3.3")
    assert (first.extract.max_concurrent_requests, second.extract.max_concurrent_requests) == (12, 2)
    assert (first.extract.late_after_hours, second.extract.late_after_hours) == (36.5, 12)
    assert first.extract.change_version_overlap == second.extract.change_version_overlap == 0
    assert first.extract.pull_total_counts
    assert second.extract.pull_total_counts


def test_merged_year_keeps_what_its_anchor_said(everything: Platform) -> None:
    ods = everything.ods(TenantYear("grand_bend", 2026))
    assert ods.base_url == "https://ods.example.org/v7.3/api"
    assert (ods.api_mode, ods.instance_code, ods.verify_ssl, ods.multiyear) == (
        "year_specific",
        "north-1",
        False,
        True,
    )
    assert ods.schedules.everything == "0 2 * * *"
    assert ods.schedules.full_refresh == "0 4 * * 6"
    assert ods.education_organization_id == 255901


def test_lightbeam_sends_with_its_own_credentials_where_given(everything: Platform) -> None:
    own, shared = everything.ods(GRAND_BEND), everything.ods(TenantYear("NO", 2025))
    assert str(own.send.client_id) == "{env: SEND_KEY}"
    assert shared.send.client_id is shared.client_id


@pytest.mark.parametrize(("version", "uses"), [("2", False), ('"2.6"', False), ('"7.3"', True), ("3", True)])
def test_ed_fi_2_has_no_change_versions(tmp_path: Path, version: str, uses: bool) -> None:
    ods = configured(tmp_path, of_year(f"api_version: {version}")).ods(GRAND_BEND)
    assert ods.extract.use_change_version is uses


def test_endpoint_options_are_taken_from_the_most_specific_place(everything: Platform) -> None:
    later = TenantYear("grand_bend", 2026)

    def options(pair: TenantYear, name: str, namespace: str = "ed-fi") -> ResolvedOptions:
        return everything.endpoint_options(pair, namespace, name, "resources")

    sections = options(GRAND_BEND, "studentSectionAssociations")
    assert (sections.page_size, sections.num_retries) == (250, 4)
    assert sections.query_parameters == {"a": "1", "b": "two"}
    sections = options(later, "studentSectionAssociations")
    assert (sections.page_size, sections.num_retries) == (50, 4)
    assert sections.query_parameters == {"a": "1", "b": "two", "c": "3"}
    students = options(later, "students")
    assert (students.page_size, students.num_retries, students.enabled) == (100, 4, True)
    assert options(GRAND_BEND, "payrolls").enabled is False
    assert options(GRAND_BEND, "surveyResponses", "tpdm").fetch_deletes is False
    assert options(GRAND_BEND, "surveyResponses", "ed-fi").fetch_deletes is True
    assert everything.endpoint_options(later, "ed-fi", "sexDescriptors", "descriptors").num_retries == 9


def test_selection_keeps_names_as_written_and_finds_them_in_any_spelling(everything: Platform) -> None:
    resources = everything.extract.resources
    found = resources.overrides[normalise_endpoint("TPDM", "survey_responses")]
    assert (found.written, found.namespace, found.name) == ("survey_responses", "tpdm", "survey_responses")
    assert found == resources.overrides[normalise_endpoint("tpdm", "surveyResponses")]
    assert "tpdm/candidates" in resources.overrides
    assert "edfi/studentsectionassociations" in resources.overrides
    assert not everything.extract.descriptors.all
    assert everything.extract.descriptors.overrides == {}


@pytest.mark.parametrize("nothing", ["none", "{}", "null"])
def test_no_descriptors_may_be_selected(tmp_path: Path, nothing: str) -> None:
    platform = configured(tmp_path, f"extract: {{descriptors: {nothing}}}\n")
    assert not platform.extract.descriptors.all
    assert platform.extract.resources.all


def test_listed_endpoints_are_not_all(tmp_path: Path) -> None:
    platform = configured(tmp_path, "extract: {resources: {students: {page_size: 7}}}\n")
    assert not platform.extract.resources.all
    assert list(platform.extract.resources.overrides) == ["edfi/students"]


def test_paths_start_from_the_folder_of_the_file(everything: Platform, tmp_path: Path) -> None:
    assert isinstance(everything.warehouse, SnowflakeWarehouse)
    assert everything.warehouse.private_key_path == tmp_path / "keys" / "snowflake.p8"
    assert everything.extract.tmp_dir == Path.home() / "scratch"
    bundle = everything.earthbeam.bundles["psat_sat"]
    assert bundle.path == tmp_path / "bundles" / "PSAT_SAT"
    assert bundle.inputs["OTHER"] == f"{tmp_path}/maps/{{grain}}.csv"
    assert everything.earthbeam.earthmover.path == f"{tmp_path}/tools/earthmover"
    assert everything.earthbeam.lightbeam.path == "lightbeam"


def test_path_templates_of_a_folder_with_braces_can_still_be_filled(tmp_path: Path) -> None:
    folder = tmp_path / "{agency}"
    folder.mkdir()
    platform = configured(folder, 'earthbeam: {bundles: {psat: {path: ., inputs: {A: "in/{year}.csv"}}}}\n')
    template = platform.earthbeam.bundles["psat"].inputs["A"]
    assert isinstance(template, str)
    assert template.format(year=2025) == str(folder / "in" / "2025.csv")


def test_bucket_prefix_and_urls_lose_their_outer_slashes(everything: Platform) -> None:
    assert isinstance(everything.lake, S3Lake)
    assert everything.lake.prefix == "edfi/lake"
    assert everything.lake.endpoint_url == "http://127.0.0.1:9000"


def test_lake_may_be_encrypted_by_the_bucket_or_by_a_key_of_ours(
    everything: Platform, tmp_path: Path
) -> None:
    assert isinstance(everything.lake, S3Lake)
    assert (everything.lake.encryption, everything.lake.kms_key_id) == ("aws:kms", "alias/lake")
    for encryption in (None, "AES256", "aws:kms"):
        given = f', encryption: "{encryption}"' if encryption else ""
        lake = configured(tmp_path, f"lake: {{kind: s3, bucket: edfi{given}}}\n").lake
        assert isinstance(lake, S3Lake)
        assert (lake.encryption, lake.kms_key_id) == (encryption, None)


def test_bundle_applies_to_the_pairs_it_names_or_to_all(everything: Platform, tmp_path: Path) -> None:
    assert everything.bundle_pairs("psat_sat") == (GRAND_BEND,)
    platform = configured(tmp_path, "earthbeam: {bundles: {psat: {path: .}}}\n")
    assert platform.bundle_pairs("psat") == platform.pairs()


def test_hook_results_may_be_named_in_templates(tmp_path: Path) -> None:
    bundle = 'path: ., parameters: {A: "{unzipped}"}, hooks: {preprocess: "agency.files:unzip"}'
    platform = configured(tmp_path, f"earthbeam: {{bundles: {{psat: {{{bundle}}}}}}}\n")
    assert platform.earthbeam.bundles["psat"].parameters == {"A": "{unzipped}"}


@pytest.mark.parametrize("code", ["grand_bend", "2025_north", "a.b-C_9", "'1234567'", "_x", "a" * 63])
def test_usual_tenant_codes_are_taken(tmp_path: Path, code: str) -> None:
    platform = configured(tmp_path, TENANTS.replace("grand_bend", code))
    assert platform.pairs() == (TenantYear(code.strip("'"), 2025),)


def test_configuration_cannot_be_changed(everything: Platform) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        everything.extract.endpoint_defaults.page_size = 1
    with pytest.raises(ValidationError, match="frozen"):
        everything.lake = everything.lake


def test_every_mistake_is_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
    timezone: Chicago
    extract: {run_type: bulkk, page_size: 1}
    tenants:
      a|b: {years: {2025: {}}}
    """
    with pytest.raises(ConfigError) as raised:
        configured(tmp_path, text)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{tmp_path / 'agency.yaml'} has 7 mistakes:"
    assert [line.split(" (")[0].strip() for line in lines[1:]] == [
        "timezone",
        "extract.page_size",
        "extract.run_type",
        "tenants.a|b",
        "tenants.a|b.years.2025.base_url",
        "tenants.a|b.years.2025.client_id",
        "tenants.a|b.years.2025.client_secret",
    ]


def test_text_is_parsed_without_a_file(tmp_path: Path) -> None:
    platform = parse_platform(TENANTS, "standard input", tmp_path)
    assert platform.source == "standard input"
    assert platform.lake == LocalLake(kind="local", root=tmp_path / "data" / "lake")
    with pytest.raises(ConfigError, match=r"^standard input: is empty"):
        parse_platform("", "standard input", tmp_path)


def test_file_is_the_one_given_else_of_the_environment_else_here_else_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(folder: str) -> Path:
        (tmp_path / folder).mkdir()
        text = TENANTS.replace("grand_bend", folder)
        return write_config(tmp_path / folder, text).rename(tmp_path / folder / "edfi_dagster.yaml")

    given, environment, here = named("given"), named("environment"), named("here")
    monkeypatch.chdir(here.parent)
    monkeypatch.setenv("EDFI_DAGSTER_CONFIG", "../environment/edfi_dagster.yaml")
    assert load_platform(given).pairs()[0].tenant == "given"
    assert load_platform().pairs()[0].tenant == "environment"
    assert load_platform().folder.samefile(environment.parent)
    monkeypatch.delenv("EDFI_DAGSTER_CONFIG")
    assert load_platform().pairs()[0].tenant == "here"
    here.unlink()
    assert load_platform().source == "the embedded default"


def test_named_file_that_is_missing_is_never_replaced_by_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(
        ConfigError, match=r"missing\.yaml: the file given as --config does not exist; correct"
    ):
        load_platform(missing)
    monkeypatch.setenv("EDFI_DAGSTER_CONFIG", str(missing))
    with pytest.raises(
        ConfigError, match=r"missing\.yaml: the file that \$EDFI_DAGSTER_CONFIG names does not exist"
    ):
        load_platform()
    with pytest.raises(ConfigError, match="is not a file"):
        load_platform(tmp_path)


def test_link_that_leads_nowhere_is_not_replaced_by_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edfi_dagster.yaml").symlink_to(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match=r"edfi_dagster\.yaml: .* does not exist; correct the path"):
        load_platform()


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agency.yaml"
    path.write_bytes(b"timezone: \xff\xfe")
    with pytest.raises(ConfigError, match=r"agency\.yaml: is not UTF-8 text \(byte 10\); save it as UTF-8"):
        load_platform(path)
    path.write_bytes(b"\xef\xbb\xbf" + TENANTS.encode())
    assert load_platform(path).pairs() == (GRAND_BEND,)


def test_loading_contacts_nothing_and_reads_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "bundles" / "PSAT_SAT").mkdir(parents=True)
    monkeypatch.setenv("GRAND_BEND_KEY", "hunter2")
    platform = load_platform(write_config(tmp_path, EVERYTHING))
    assert len(platform.pairs()) == 3
    monkeypatch.chdir(tmp_path)
    assert len(load_platform().pairs()) == 4


def test_json_schema_accepts_what_is_right_and_refuses_unknown_keys() -> None:
    # In JSON every key is text and a date is written as text.
    typed = yaml.safe_load(EVERYTHING.replace("2025-01-31", '"2025-01-31"'))
    typed["tenants"] = {
        code: tenant | {"years": {str(year): ods for year, ods in tenant["years"].items()}}
        for code, tenant in typed["tenants"].items()
    }
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(typed)] == []
    for text in (
        "extract: {pagesize: 1}",
        "lake: {kind: s4}",
        "extract: {resources: al}",
        "slack: {token: abc}",
    ):
        wrong = typed | yaml.safe_load(text)
        assert list(validator.iter_errors(wrong)), text
    words = typed | {"extract": {"resources": "all", "descriptors": "none"}}
    assert list(validator.iter_errors(words)) == []


@pytest.mark.parametrize("written", ["off", "'off'", "false"])
def test_verify_counts_may_be_off_however_yaml_reads_it(written: str) -> None:
    document = f"""
extract: {{verify_counts: {written}}}
tenants:
  grand_bend:
    years:
      2025: {{base_url: "https://a.org/api", client_id: {{env: K}}, client_secret: {{env: S}}}}
      2026:
        base_url: https://b.org/api
        client_id: {{env: K}}
        client_secret: {{env: S}}
        extract: {{verify_counts: repair}}
"""
    platform = parse_platform(document, "platform.yaml", Path())
    modes = [platform.ods(pair).extract.verify_counts for pair in platform.pairs()]
    assert modes == ["off", "repair"]
