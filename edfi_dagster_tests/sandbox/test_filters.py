from __future__ import annotations

import pytest

from edfi_dagster.sandbox import Store
from edfi_dagster_tests.sandbox.api import Api, body


def test_scalars_references_and_descriptors_filter_by_equality(api: Api, store: Store) -> None:
    enrollments = store.rows("studentSchoolAssociations")
    wanted = enrollments[5]
    found = api.rows(
        "studentSchoolAssociations", studentUniqueId=wanted["studentReference"]["studentUniqueId"]
    )
    assert found == [wanted]
    grade = wanted["entryGradeLevelDescriptor"]
    found = api.rows("studentSchoolAssociations", entryGradeLevelDescriptor=grade)
    assert found == [row for row in enrollments if row["entryGradeLevelDescriptor"] == grade]


def test_filters_are_combined_and_counted(api: Api, store: Store) -> None:
    row = store.rows("students")[0]
    answer = api.get(
        "students", lastSurname=row["lastSurname"], FIRSTNAME=row["firstName"], totalCount="true", limit=0
    )
    expected = [s for s in store.rows("students") if s["lastSurname"] == row["lastSurname"]]
    expected = [s for s in expected if s["firstName"] == row["firstName"]]
    assert answer.headers["Total-Count"] == str(len(expected))


def test_role_names_are_part_of_flattened_names(api: Api, store: Store) -> None:
    name = store.rows("programs")[1]["programName"]
    endpoint = "studentSpecialEducationProgramAssociations"
    assert api.rows(endpoint, programName=name, programEducationOrganizationId=255901) == store.rows(endpoint)
    assert api.rows(endpoint, programEducationOrganizationId=1) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("studentUniqueId", "unknown"), ("birthSexDescriptor", "uri://ed-fi.org/SexDescriptor#Unheard")],
)
def test_an_unknown_value_matches_nothing(api: Api, name: str, value: str) -> None:
    assert api.rows("students", **{name: value}) == []


def test_an_unknown_parameter_is_ignored(api: Api, store: Store) -> None:
    assert len(api.rows("students", studentUniqeId="typo")) == store.count("students")


def test_defaults_of_value_types_do_not_filter(api: Api, store: Store) -> None:
    assert len(api.rows("studentSchoolAssociations", schoolId=0)) == store.count("studentSchoolAssociations")
    assert len(api.rows("schoolYearTypes", currentSchoolYear="false")) == store.count("schoolYearTypes")
    assert len(api.rows("schoolYearTypes", currentSchoolYear="true")) == 1


def test_id_is_a_filter_and_must_be_a_guid(api: Api, store: Store) -> None:
    row = store.rows("students")[7]
    assert api.rows("students", id=row["id"]) == [row]
    refused = api.get("students", id="invalid")
    assert (refused.status_code, list(refused.json()["validationErrors"])) == (400, ["$.id"])


def test_a_value_of_the_wrong_type_is_refused(api: Api) -> None:
    refused = api.get("schools", schoolId="abc")
    assert (refused.status_code, list(refused.json()["validationErrors"])) == (400, ["$.schoolId"])


def test_filtered_pages_continue_by_token(api: Api, store: Store) -> None:
    school = store.rows("schools")[0]["schoolId"]
    expected = [
        row["id"]
        for row in store.rows("studentSchoolAssociations")
        if row["schoolReference"]["schoolId"] == school
    ]
    first = api.get("studentSchoolAssociations", schoolId=school, limit=10)
    rest = api.rows("studentSchoolAssociations", schoolId=school, pageToken=first.headers["Next-Page-Token"])
    assert [row["id"] for row in [*first.json(), *rest]] == expected


def test_identification_codes_filter_collections_that_have_them(api: Api, store: Store) -> None:
    school = store.rows("schools")[1]
    code = school["identificationCodes"][0]
    system = "educationOrganizationIdentificationSystemDescriptor"
    assert api.rows("schools", identificationCode=code["identificationCode"]) == [school]
    assert api.rows("schools", **{system: code[system]}) == store.rows("schools")
    assert api.rows("schools", identificationCode="unknown") == []
    person = store.rows("staffs")[4]
    code = person["identificationCodes"][0]["identificationCode"]
    assert api.rows("staffs", identificationCode=code) == [person]


def test_code_and_system_must_be_of_the_same_item(api: Api, store: Store) -> None:
    endpoint, system = "studentEducationOrganizationAssociations", "studentIdentificationSystemDescriptor"
    row = store.rows(endpoint)[3]
    first, second = row["studentIdentificationCodes"]
    code = {"identificationCode": first["identificationCode"]}
    assert api.rows(endpoint, **code, **{system: first[system]}) == [row]
    assert api.rows(endpoint, **code, **{system: second[system]}) == []


def test_filters_see_every_write(api: Api, store: Store) -> None:
    row = store.rows("students")[0]
    assert api.rows("students", firstName="Zebulon") == []
    store.put("students", row["id"], body(row, firstName="Zebulon"))
    assert [found["id"] for found in api.rows("students", firstName="Zebulon")] == [row["id"]]
    assert api.rows("students", firstName="Zebulon", maxChangeVersion=api.newest - 1) == []
    store.restore("as generated")
    assert api.rows("students", firstName="Zebulon") == []
