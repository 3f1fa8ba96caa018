from __future__ import annotations

from collections import Counter

import pytest

from edfi_dagster.config import ConfigError, Platform, embedded_platform
from edfi_dagster.ods.catalogue import (
    Endpoint,
    endpoints_of,
    find_endpoints,
    off_nowhere,
    snake_case,
    standard_endpoints,
)
from edfi_dagster_tests.ods.platforms import PAIR, endpoint, platform_at

STANDARD = standard_endpoints("5.2")


def chosen(extract: str, of_year: str = "", tables: str = "") -> list[Endpoint]:
    return list(endpoints_of(configured(extract, of_year, tables), PAIR))


def configured(extract: str, of_year: str = "", tables: str = "") -> Platform:
    text = f"extract: {extract}" + (f"\ntables: {tables}" if tables else "")
    return platform_at("https://ods.example.org/api", text, f"extract: {of_year}" if of_year else "")


# -- the standard --------------------------------------------------------------------------------------------


def test_data_standard_5_2_has_153_resources_and_229_descriptors() -> None:
    assert Counter((e.kind, e.namespace) for e in STANDARD) == {
        ("resource", "ed-fi"): 138,
        ("resource", "tpdm"): 15,
        ("descriptor", "ed-fi"): 211,
        ("descriptor", "tpdm"): 18,
    }
    assert len({e.path.lower() for e in STANDARD}) == len({e.snake for e in STANDARD}) == 153 + 229


def test_every_endpoint_has_a_natural_key_and_a_domain_that_dagster_takes_as_group() -> None:
    assert not [e.path for e in STANDARD if not e.key]
    assert not [e.path for e in STANDARD if not e.domain.replace("_", "").isalnum()]
    assert not [e.path for e in STANDARD if e.name.endswith("Descriptors") != e.is_descriptor]


def test_natural_keys_have_role_names_and_paths_into_references() -> None:
    assert dict(endpoint("students").key) == {"studentUniqueId": "studentUniqueId"}
    assert dict(endpoint("gradeLevelDescriptors").key) == {"namespace": "namespace", "codeValue": "codeValue"}
    assert dict(endpoint("feederSchoolAssociations").key) == {
        "beginDate": "beginDate",
        "feederSchoolId": "feederSchoolReference.schoolId",
        "schoolId": "schoolReference.schoolId",
    }
    assert dict(endpoint("studentProgramAssociations").key) == {
        "beginDate": "beginDate",
        "educationOrganizationId": "educationOrganizationReference.educationOrganizationId",
        "programEducationOrganizationId": "programReference.educationOrganizationId",
        "programName": "programReference.programName",
        "programTypeDescriptor": "programReference.programTypeDescriptor",
        "studentUniqueId": "studentReference.studentUniqueId",
    }


def test_the_resources_whose_key_can_change_are_those_with_a_trigger_for_it() -> None:
    assert {e.name for e in STANDARD if e.key_can_change} == {
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


def test_descriptors_and_school_year_types_have_no_changes_to_read() -> None:
    assert {e.path for e in STANDARD if not e.is_descriptor and not e.has_changes} == {
        "ed-fi/schoolYearTypes"
    }
    assert not [e.path for e in STANDARD if e.is_descriptor and e.has_changes]


def test_a_standard_without_catalogue_is_refused_with_those_there_are() -> None:
    told = r"no catalogue of data standard '3\.1'; write one of 3\.3, 4\.0, 5\.0, 5\.1, 5\.2, 6\.0"
    with pytest.raises(ConfigError, match=told):
        standard_endpoints("3.1")


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("students", "students"),
        ("studentCTEProgramAssociations", "student_cte_program_associations"),
        ("studentTitleIPartAProgramAssociations", "student_title_i_part_a_program_associations"),
        ("studentSection504ProgramAssociations", "student_section504_program_associations"),
        ("studentIEPs", "student_ieps"),
        ("studentIEPGoals", "student_iep_goals"),
        ("courseIdentificationSystemDescriptors", "course_identification_system_descriptors"),
        ("ideaEvents", "idea_events"),
        ("IDEAEvents", "idea_events"),
        ("Students", "students"),
    ],
)
def test_snake_case_keeps_acronyms_together(name: str, snake: str) -> None:
    assert snake_case(name) == snake


@pytest.mark.parametrize(
    "written",
    [
        "studentSchoolAssociations",
        "StudentSchoolAssociations",
        "studentschoolassociations",
        "student_school_associations",
        "ed-fi/studentSchoolAssociations",
        "Ed_Fi/student_school_associations",
        "edfi/STUDENTSCHOOLASSOCIATIONS",
        " studentSchoolAssociations ",
    ],
)
def test_an_endpoint_is_found_in_any_casing(written: str) -> None:
    (found,) = find_endpoints([written], STANDARD)
    assert found.path == "ed-fi/studentSchoolAssociations"


@pytest.mark.parametrize("written", ["tpdm/candidates", "TPDM/Candidates", "candidates", "Candidates"])
def test_an_endpoint_of_another_namespace_is_found_with_it_or_by_its_snake_name(written: str) -> None:
    assert [e.path for e in find_endpoints([written], STANDARD)] == ["tpdm/candidates"]


def test_endpoints_come_in_the_order_written_and_once_each() -> None:
    found = find_endpoints(["students", "schools", "Students", "ed-fi/schools"], STANDARD)
    assert [e.path for e in found] == ["ed-fi/students", "ed-fi/schools"]


@pytest.mark.parametrize("written", ["studnets", "tpdm/students", "", "a/b/c", "students/deletes"])
def test_an_unknown_name_is_an_error_that_quotes_it(written: str) -> None:
    with pytest.raises(ConfigError, match=f"no endpoint called '{written}'"):
        find_endpoints(["schools", written], STANDARD)


def test_every_unknown_name_is_told_with_what_is_near() -> None:
    told = r"'studnets', 'zebras', 'scools' is configured; did you mean students or schools\?"
    with pytest.raises(ConfigError, match=told):
        find_endpoints(["studnets", "schools", "zebras", "scools"], STANDARD)


def test_without_anything_near_how_names_are_written_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"no endpoint called 'zebras' is configured; names are as in the API"
    ):
        find_endpoints(["zebras"], STANDARD)


# -- the choice ----------------------------------------------------------------------------------------------


def test_all_of_the_standard_is_chosen_unless_said_otherwise(tmp_path: pytest.TempPathFactory) -> None:
    assert endpoints_of(configured("{}"), PAIR) == STANDARD
    embedded = embedded_platform(tmp_path)  # type: ignore[arg-type]
    assert [endpoints_of(embedded, pair) for pair in embedded.pairs()] == [STANDARD] * 4


def test_only_what_is_named_is_chosen_without_a_star() -> None:
    found = chosen(
        "{resources: {Students: {}, tpdm/candidates:, student_sections: {enabled: false}}, descriptors: none}"
    )
    assert [e.path for e in found] == ["ed-fi/students", "tpdm/candidates"]


def test_a_star_is_all_but_what_is_switched_off() -> None:
    found = chosen(
        '{resources: {"*": {}, students: {enabled: false}, tpdm/candidates: {enabled: false}}, descriptors: all}'
    )
    assert {e.path for e in STANDARD} - {e.path for e in found} == {"ed-fi/students", "tpdm/candidates"}


def test_what_is_switched_off_need_not_exist_for_other_years_may_have_it() -> None:
    assert len(chosen('{resources: {"*": {}, payrolls: {enabled: false}}, descriptors: none}')) == 153


@pytest.mark.parametrize(
    ("resources", "nowhere"),
    [
        ('{"*": {}, Payrolls: {enabled: false}, students: {enabled: false}}', ["Payrolls"]),
        ('{"*": {}, candidates: {enabled: false}}', ["candidates"]),  # tpdm/candidates in 5.2, ed-fi's in 6.0
        ('{"*": {}, tpdm/candidates: {enabled: false}, sample/buses: {enabled: false}}', []),
        ("{students: {}, payrolls: {enabled: false}}", []),
    ],
)
def test_a_name_that_switches_nothing_off_is_found(resources: str, nowhere: list[str]) -> None:
    assert off_nowhere(configured(f"{{resources: {resources}}}")) == nowhere


@pytest.mark.parametrize("written", ["sample/busRoutes", "Sample/bus_routes", "sample/BusRoutes"])
def test_an_endpoint_of_an_extension_is_taken_on_trust(written: str) -> None:
    found = chosen(
        f"{{resources: {{{written}: {{}}, students: {{}}}}, descriptors: {{sample/busTypeDescriptors: }}}}"
    )
    bus, _, kinds = found
    assert (bus.path, bus.snake, bus.domain) == ("sample/busRoutes", "bus_routes", "other")
    assert (bus.has_changes, bus.key_can_change, dict(bus.key)) == (True, True, {})
    assert (kinds.path, kinds.is_descriptor, kinds.has_changes) == ("sample/busTypeDescriptors", True, False)


def test_a_name_that_ed_fi_has_too_carries_its_namespace_whether_or_not_both_are_chosen() -> None:
    for others in ("", ", students: {}, contacts: {}"):
        found = chosen(
            f"{{resources: {{homograph/students: {{}}, sample-x/Contacts: {{}}{others}}}, descriptors: none}}"
        )
        names = {e.path: e.snake for e in found}
        assert names["homograph/students"] == "homograph_students"
        assert names["sample-x/contacts"] == "sample_x_contacts"
        assert all(
            names.get(path, name) == name
            for path, name in {"ed-fi/students": "students", "ed-fi/contacts": "contacts"}.items()
        )


@pytest.mark.parametrize(
    ("extract", "place"),
    [
        ("{resources: {studnets: {}}}", "extract.resources.studnets"),
        ('{resources: {"*": {}, ed-fi/Studnets: {page_size: 5}}}', "extract.resources.ed-fi/Studnets"),
        ("{resources: {candidates: {}}}", "extract.resources.candidates"),
        ("{descriptors: {gradeLevelsDescriptors: {}}}", "extract.descriptors.gradeLevelsDescriptors"),
        # Misspelt, what was meant to be switched off would be pulled.
        ('{resources: {"*": {}, studentHealth: {enabled: false}}}', "extract.resources.studentHealth"),
        ('{resources: {"*": {}, candidate: {enabled: false}}}', "extract.resources.candidate"),
        ('{resources: {"*": {}, tpdm/candidate: {enabled: false}}}', "extract.resources.tpdm/candidate"),
        (
            '{descriptors: {"*": {}, vizaDescriptors: {enabled: false}}}',
            "extract.descriptors.vizaDescriptors",
        ),
    ],
)
def test_a_name_unknown_to_the_standard_is_an_error_with_its_place(extract: str, place: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^agency\.yaml: {place}: the data standard of grand_bend/2025 has no such"
    ):
        chosen(extract)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("resources", "studnets"), ("resources", "sample/buses"), ("descriptors", "gradeDescriptors")],
)
def test_a_years_options_for_an_unknown_endpoint_are_an_error_with_their_place(kind: str, name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^agency\.yaml: tenants\.grand_bend\.years\.2025\.extract\.{kind}\.{name}: "
    ):
        chosen("{}", of_year=f"{{{kind}: {{{name}: {{page_size: 5}}}}}}")


def test_a_years_options_for_a_known_or_named_endpoint_are_fine() -> None:
    of_year = (
        "{resources: {Students: {page_size: 5}, sample/buses: {page_size: 5}, payrolls: {page_size: 5}}}"
    )
    assert (
        len(chosen('{resources: {"*": {}, sample/buses: {}, payrolls: {enabled: false}}}', of_year))
        == 153 + 229 + 1
    )


@pytest.mark.parametrize("table", ["surveys", "SURVEYS", "student_cte_program_associations"])
def test_a_shared_table_with_a_resources_name_is_an_error(table: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^agency\.yaml: tables\.run_log: '{table}' is the table of ed-fi/"
    ):
        chosen("{}", tables=f"{{run_log: {table}}}")


def test_a_shared_table_may_have_the_name_of_what_is_no_table_of_its_own() -> None:
    assert chosen(
        "{resources: {students: {}}, descriptors: all}",
        tables="{run_log: surveys, deletes: grade_level_descriptors}",
    )
