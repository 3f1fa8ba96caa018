"""The catalogues of all data standards, and one platform whose tenants have different ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edfi_dagster.config import ConfigError, Platform, TenantYear, parse_platform
from edfi_dagster.ods.catalogue import (
    Endpoint,
    catalogued_standards,
    endpoints_of,
    near_names,
    standard_endpoints,
)

STANDARDS = ("3.3", "4.0", "5.0", "5.1", "5.2", "6.0")
ALWAYS_REKEYED = {
    "classPeriods",
    "courseOfferings",
    "gradebookEntries",
    "grades",
    "locations",
    "sectionAttendanceTakenEvents",
    "sections",
    "sessions",
    "staffSectionAssociations",
    "studentGradebookEntries",
    "studentSchoolAssociations",
    "studentSchoolAttendanceEvents",
    "studentSectionAssociations",
    "studentSectionAttendanceEvents",
    "surveySectionAssociations",
}


def by_path(standard: str) -> dict[str, Endpoint]:
    return {endpoint.path: endpoint for endpoint in standard_endpoints(standard)}


# -- the catalogues ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standard", "resources", "descriptors"),
    [
        ("3.3", {"ed-fi": 114, "tpdm": 15}, {"ed-fi": 183, "tpdm": 18}),
        ("4.0", {"ed-fi": 125, "tpdm": 15}, {"ed-fi": 189, "tpdm": 18}),
        ("5.0", {"ed-fi": 128, "tpdm": 15}, {"ed-fi": 200, "tpdm": 18}),
        ("5.1", {"ed-fi": 131, "tpdm": 15}, {"ed-fi": 209, "tpdm": 18}),
        ("5.2", {"ed-fi": 138, "tpdm": 15}, {"ed-fi": 211, "tpdm": 18}),
        ("6.0", {"ed-fi": 187}, {"ed-fi": 268}),
    ],
)
def test_each_standard_has_its_endpoints(
    standard: str, resources: dict[str, int], descriptors: dict[str, int]
) -> None:
    endpoints = standard_endpoints(standard)
    assert Counter(e.namespace for e in endpoints if not e.is_descriptor) == resources
    assert Counter(e.namespace for e in endpoints if e.is_descriptor) == descriptors
    assert len({e.path.lower() for e in endpoints}) == len({e.snake for e in endpoints}) == len(endpoints)


def test_every_standard_that_can_be_configured_has_a_catalogue() -> None:
    assert catalogued_standards() == list(STANDARDS)
    for standard in STANDARDS:
        assert endpoints_of(platform(top=standard), A) == standard_endpoints(standard)
        assert endpoints_of(platform(a=standard), A) == standard_endpoints(standard)


@pytest.mark.parametrize("standard", STANDARDS)
def test_every_part_of_a_natural_key_is_a_required_field_or_of_a_required_reference(standard: str) -> None:
    resources = [e for e in standard_endpoints(standard) if not e.is_descriptor]
    assert not [e.path for e in resources if not e.key]
    for endpoint in resources:
        for path in endpoint.key.values():
            field, dot, part = path.partition(".")
            assert endpoint.fields[field].endswith("!"), (endpoint.path, path)
            assert bool(dot) == bool(part) == endpoint.fields[field].startswith("ref:"), (endpoint.path, path)


@pytest.mark.parametrize("standard", STANDARDS)
def test_references_lead_to_endpoints_of_the_same_standard(standard: str) -> None:
    """Education organizations are abstract: they have no endpoint of their own."""
    endpoints = by_path(standard)
    targets = {
        kind.removeprefix("ref:").removesuffix("!")
        for endpoint in endpoints.values()
        for kind in endpoint.fields.values()
        if kind.startswith("ref:")
    }
    assert targets - endpoints.keys() == {"ed-fi/educationOrganizations"}


@pytest.mark.parametrize("standard", STANDARDS)
def test_the_key_part_of_a_reference_is_part_of_its_targets_key(standard: str) -> None:
    """Either whole, or renamed where Ed-Fi's rules unify or shorten the name."""
    endpoints = by_path(standard)
    for endpoint in endpoints.values():
        for path in endpoint.key.values():
            field, _, part = path.partition(".")
            target = endpoints.get(endpoint.fields.get(field, "").removeprefix("ref:").removesuffix("!"))
            if target is not None:
                assert part in target.key, (endpoint.path, path)


@pytest.mark.parametrize("standard", STANDARDS)
def test_a_program_is_in_a_key_with_the_organization_it_belongs_to(standard: str) -> None:
    """Two organizations may have a program of one name and type (ODS/API SQL: ``ProgramEducationOrganizationId``)."""
    for endpoint in standard_endpoints(standard):
        of_program = {path for path in endpoint.key.values() if path.startswith("programReference.")}
        parts = {"educationOrganizationId", "programName", "programTypeDescriptor"}
        assert of_program in (set(), {f"programReference.{part}" for part in parts}), endpoint.path


@pytest.mark.parametrize("standard", STANDARDS)
def test_the_same_families_can_change_their_key_in_every_standard(standard: str) -> None:
    rekeyed = {e.name for e in standard_endpoints(standard) if e.key_can_change}
    extra = {"fieldworkExperienceSectionAssociations"} if standard == "6.0" else set()
    assert rekeyed == ALWAYS_REKEYED | extra


def test_natural_keys_are_those_of_their_own_standard() -> None:
    assert [*by_path("3.3")["ed-fi/gradebookEntries"].key] != [*by_path("4.0")["ed-fi/gradebookEntries"].key]
    assert dict(by_path("4.0")["ed-fi/gradebookEntries"].key) == {
        "gradebookEntryIdentifier": "gradebookEntryIdentifier",
        "namespace": "namespace",
    }
    assert dict(by_path("4.0")["ed-fi/gradingPeriods"].key) == {
        "gradingPeriodDescriptor": "gradingPeriodDescriptor",
        "periodSequence": "periodSequence",
        "schoolId": "schoolReference.schoolId",
        "schoolYear": "schoolYearTypeReference.schoolYear",
    }
    assert "gradingPeriodName" in by_path("5.0")["ed-fi/gradingPeriods"].key
    assert by_path("4.0")["ed-fi/grades"].key["gradingPeriodSequence"] == (
        "gradingPeriodReference.periodSequence"
    )
    assert "beginDate" not in by_path("4.0")["ed-fi/staffSectionAssociations"].key
    assert "beginDate" in by_path("5.0")["ed-fi/staffSectionAssociations"].key
    assert by_path("6.0")["ed-fi/certificationExamResults"].key["namespace"] == (
        "certificationExamReference.namespace"
    )


@pytest.mark.parametrize(
    ("path", "standards"),
    [
        ("ed-fi/parents", ("3.3", "4.0")),
        ("ed-fi/studentParentAssociations", ("3.3", "4.0")),
        ("ed-fi/contacts", ("5.0", "5.1", "5.2", "6.0")),
        ("ed-fi/learningObjectives", ("3.3", "4.0")),
        ("ed-fi/payrolls", ("3.3",)),
        ("ed-fi/localPayrolls", ("4.0", "5.0", "5.1", "5.2", "6.0")),
        ("ed-fi/crisisEvents", ("5.1", "5.2", "6.0")),
        ("ed-fi/assessmentAdministrations", ("5.2", "6.0")),
        ("tpdm/candidates", ("3.3", "4.0", "5.0", "5.1", "5.2")),
        ("ed-fi/candidates", ("6.0",)),
        ("ed-fi/schoolYearTypes", STANDARDS),
    ],
)
def test_which_standards_have_an_endpoint(path: str, standards: tuple[str, ...]) -> None:
    assert tuple(s for s in STANDARDS if path in by_path(s)) == standards


def test_an_endpoint_is_in_the_same_group_and_table_in_every_standard() -> None:
    for attribute in ("domain", "snake", "is_descriptor", "has_changes"):
        found: dict[str, set[object]] = {}
        for standard in STANDARDS:
            for endpoint in standard_endpoints(standard):
                found.setdefault(endpoint.name, set()).add(getattr(endpoint, attribute))
        assert not {name: values for name, values in found.items() if len(values) > 1}, attribute


# -- one platform, several standards -------------------------------------------------------------------------

A, B = TenantYear("a", 2025), TenantYear("b", 2025)


def platform(top: str = "5.2", *, a: str = "", b: str = "", extract: str = "", of_a: str = "") -> Platform:
    """Two tenants, each with a data standard of its own where one is given; ``extract`` is flow YAML."""
    lines = [f'extract: {{data_standard: "{top}"{", " if extract else ""}{extract}}}', "tenants:"]
    for tenant, standard, more in (("a", a, of_a), ("b", b, "")):
        of_year = ", ".join(filter(None, [f'data_standard: "{standard}"' if standard else "", more]))
        lines += [
            f"  {tenant}:",
            "    years:",
            "      2025:",
            "        base_url: https://ods.example.org/api",
            "        client_id: {env: KEY}",
            "        client_secret: {env: SECRET}",
            f"        extract: {{{of_year}}}",
        ]
    return parse_platform("\n".join(lines), "agency.yaml", Path.cwd())


def names(found: tuple[Endpoint, ...]) -> list[str]:
    return [endpoint.path for endpoint in found]


def test_each_pair_pulls_all_of_its_own_standard() -> None:
    mixed = platform(a="4.0", b="6.0")
    assert endpoints_of(mixed, A) == standard_endpoints("4.0")
    assert endpoints_of(mixed, B) == standard_endpoints("6.0")


def test_a_named_endpoint_is_skipped_where_the_pairs_standard_lacks_it() -> None:
    mixed = platform(
        a="4.0",
        b="6.0",
        extract="resources: {parents: {}, contacts: {}, students: {}, tpdm/candidates: {}, candidates: {}}, "
        "descriptors: {oldEthnicityDescriptors: {}, busRouteDescriptors: {}}",
    )
    assert names(endpoints_of(mixed, A)) == [
        "ed-fi/parents",
        "ed-fi/students",
        "tpdm/candidates",
        "ed-fi/oldEthnicityDescriptors",
    ]
    assert names(endpoints_of(mixed, B)) == [
        "ed-fi/contacts",
        "ed-fi/students",
        "ed-fi/candidates",
        "ed-fi/busRouteDescriptors",
    ]


def test_the_same_record_type_has_one_table_across_standards() -> None:
    mixed = platform(b="6.0", extract="resources: {tpdm/candidates: {}, candidates: {}}, descriptors: none")
    tables = {endpoint.path: endpoint.snake for pair in (A, B) for endpoint in endpoints_of(mixed, pair)}
    assert tables == {"tpdm/candidates": "candidates", "ed-fi/candidates": "candidates"}


def test_an_extension_has_one_name_whoever_else_is_declared() -> None:
    mixed = platform(a="4.0", b="5.2", extract="resources: {sample/contacts: {}}, descriptors: none")
    assert [endpoints_of(mixed, pair)[0].snake for pair in (A, B)] == ["sample_contacts", "sample_contacts"]
    alone = platform(a="4.0", b="4.0", extract="resources: {sample/contacts: {}}, descriptors: none")
    assert endpoints_of(alone, A)[0].snake == "sample_contacts"
    for name in ("tx/certifications", "tpdm/certifications"):
        for b in ("5.2", "6.0"):
            mixed = platform(a="5.2", b=b, extract=f"resources: {{{name}: {{}}}}, descriptors: none")
            snake = name.replace("/", "_")
            assert [(e.path, e.snake) for e in endpoints_of(mixed, A)] == [(name, snake)]


def test_an_endpoint_of_an_extension_is_pulled_whoever_else_is_declared() -> None:
    """One that no catalogue has, in a namespace that another pair's standard has."""
    for b in ("6.0", "5.2"):
        mixed = platform(a="6.0", b=b, extract="resources: {tpdm/payStubs: {}}, descriptors: none")
        assert [e.path for e in endpoints_of(mixed, A)] == ["tpdm/payStubs"]


def test_a_name_that_no_declared_standard_has_is_an_error_for_every_pair() -> None:
    mixed = platform(a="5.0", b="6.0", extract="resources: {parents: {}}")
    for pair in (A, B):
        with pytest.raises(
            ConfigError, match=r"extract\.resources\.parents: .*of data standard 3\.3 and 4\.0"
        ):
            endpoints_of(mixed, pair)


def test_a_years_options_for_an_endpoint_of_another_years_standard_are_an_error() -> None:
    mixed = platform(a="5.2", b="4.0", of_a="resources: {parents: {page_size: 5}}")
    with pytest.raises(ConfigError, match=r"tenants\.a\.years\.2025\.extract\.resources\.parents: "):
        endpoints_of(mixed, A)


# -- slips of the pen ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("tpdm/candidatez", r"did you mean tpdm/candidates\?"),
        ("TPDM/Candidate", r"did you mean tpdm/candidates\?"),
        ("studnets", r"did you mean students\?"),
        ("student_school_asociations", r"did you mean studentSchoolAssociations"),
        ("candidates", r"it is of data standard 6\.0; check data_standard"),
        ("payrolls", r"it is of data standard 3\.3; check data_standard"),
        ("tpdm/students", r"did you mean students\?"),
        ("wheels", r"check the spelling, write <namespace>/wheels"),
    ],
)
def test_a_mistaken_name_in_a_known_namespace_is_an_error_with_advice(written: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=rf"^agency\.yaml: extract\.resources\.{written}: .*{advice}"):
        endpoints_of(platform(extract=f"resources: {{{written}: {{}}}}"), A)


def test_a_name_in_an_unknown_namespace_is_taken_on_trust() -> None:
    found = endpoints_of(platform(extract="resources: {sample/studnets: {}}, descriptors: none"), A)
    assert names(found) == ["sample/studnets"]


def test_near_names_are_few_and_written_as_the_configuration_wants_them() -> None:
    endpoints = [e for standard in ("5.2", "6.0") for e in standard_endpoints(standard)]
    assert near_names("candidats", endpoints) == ["tpdm/candidates", "candidates"]
    assert near_names("ed-fi/gradeLevelsDescriptors", endpoints)[0] == "gradeLevelDescriptors"
    assert near_names("zebras", endpoints) == []
    assert len(near_names("studentAssociations", endpoints)) <= 3
