"""Programs and the students in them; cohorts; discipline."""

from __future__ import annotations

from collections.abc import Iterator

from edfi_dagster.sandbox.generate.people import Student
from edfi_dagster.sandbox.generate.schools import District
from edfi_dagster.sandbox.model import Body

# endpoint → (program, its type, percent of students, extra descriptor or flag values of a row)
PROGRAMS: dict[str, tuple[str, str, int, Body]] = {
    "studentProgramAssociations": ("Gifted and Talented", "Gifted and Talented", 9, {}),
    "studentSpecialEducationProgramAssociations": (
        "Special Education",
        "Special Education",
        12,
        {"ideaEligibility": True, "specialEducationHoursPerWeek": 10.0, "schoolHoursPerWeek": 35.0},
    ),
    "studentCTEProgramAssociations": (
        "Career and Technical Education",
        "Career and Technical Education",
        8,
        {},
    ),
    "studentHomelessProgramAssociations": ("Homeless", "Homeless", 3, {"homelessUnaccompaniedYouth": False}),
    "studentLanguageInstructionProgramAssociations": (
        "English as a Second Language",
        "English as a Second Language (ESL)",
        14,
        {"englishLearnerParticipation": True},
    ),
    "studentSchoolFoodServiceProgramAssociations": (
        "Food Service",
        "School Food Service",
        45,
        {"directCertification": True},
    ),
    "studentTitleIPartAProgramAssociations": ("Title I Part A", "Title I Part A", 20, {}),
    "studentSection504ProgramAssociations": (
        "Section 504 Placement",
        "Section 504 Placement",
        4,
        {"section504Eligibility": True, "accommodationPlan": True},
    ),
}
BEHAVIORS = ("School Code of Conduct", "Disorderly Conduct", "Fighting", "Truancy", "Bullying")
ACTIONS = ("In School Suspension", "Detention", "Out of School Suspension", "Community Service")


def generate_programs(district: District) -> None:
    """Programs of the district and each kind of student program association."""
    world = district.world
    world.add("programs", [
        {
            "programName": name,
            "programTypeDescriptor": world.uri("programType", kind),
            "educationOrganizationReference": district.agency,
            "programId": f"P{number + 1:03d}",
        }
        for number, (name, kind, _, _) in enumerate(PROGRAMS.values())
    ])  # fmt: skip
    for number, endpoint in enumerate(PROGRAMS):
        world.add(endpoint, _participations(district, endpoint, number))


def _participations(district: District, endpoint: str, number: int) -> Iterator[Body]:
    world = district.world
    name, kind, percent, extra = PROGRAMS[endpoint]
    own: Body = dict(extra)
    if endpoint == "studentTitleIPartAProgramAssociations":
        own["titleIPartAParticipantDescriptor"] = world.uri(
            "titleIPartAParticipant", "Public Schoolwide Program"
        )
    if endpoint == "studentSpecialEducationProgramAssociations":
        own["specialEducationSettingDescriptor"] = world.uri(
            "specialEducationSetting", "Inside regular class 80% or more of the day"
        )
    program = {
        "educationOrganizationId": district.agency_id,
        "programName": name,
        "programTypeDescriptor": world.uri("programType", kind),
    }
    status = {
        "participationStatusDescriptor": world.uri("participationStatus", "Active"),
        "statusBeginDate": world.day(0),
    }
    for student in district.students:
        if world.chance(percent, 61, number, student.number):
            yield {
                "beginDate": world.day(world.number(62, number, student.number) % 40),
                "educationOrganizationReference": district.agency,
                "programReference": program,
                "studentReference": student.reference,
                "programParticipationStatuses": [status],
                "servedOutsideOfRegularSession": False,
                **own,
            }


def generate_conduct(district: District) -> None:
    """Cohorts, then incidents with the students involved and the actions that followed."""
    world = district.world
    cohorts = world.add("cohorts", [
        {
            "cohortIdentifier": f"{school.id}-{number}",
            "educationOrganizationReference": {"educationOrganizationId": school.id},
            "cohortTypeDescriptor": world.uri("cohortType", kind),
            "cohortDescription": f"{kind} at {school.name}",
        }
        for school in district.schools
        for number, kind in enumerate(("Academic Intervention", "Counselor List"))
    ])  # fmt: skip
    world.add("studentCohortAssociations", (
        {
            "beginDate": world.day(14),
            "cohortReference": world.reference("cohorts", cohorts[2 * student.school.number]),
            "studentReference": student.reference,
        }
        for student in district.students
        if world.chance(12, 71, student.number)
    ))  # fmt: skip
    involved = [student for student in district.students if world.chance(7, 72, student.number)]
    world.add("disciplineIncidents", (_incident(district, n, s) for n, s in enumerate(involved)))
    behaviors = "studentDisciplineIncidentBehaviorAssociations"
    world.add(behaviors, (_behavior(district, n, s) for n, s in enumerate(involved)))
    participants = "studentDisciplineIncidentAssociations"
    if world.has(participants):
        world.add(participants, (_participant(district, n, s) for n, s in enumerate(involved)))
    world.add("disciplineActions", (_action(district, n, s) for n, s in enumerate(involved)))


def _incident_reference(student: Student, number: int) -> Body:
    return {"incidentIdentifier": str(number + 1), "schoolId": student.school.id}


def _incident_day(district: District, number: int) -> str:
    return district.days[(number * 17 + 5) % len(district.days)]


def _incident(district: District, number: int, student: Student) -> Body:
    world = district.world
    behavior = world.uri("behavior", BEHAVIORS[number % len(BEHAVIORS)])
    return {
        "incidentIdentifier": str(number + 1),
        "schoolReference": student.school.reference,
        "incidentDate": _incident_day(district, number),
        "incidentTime": "10:42:00",
        "incidentLocationDescriptor": world.uri("incidentLocation", "Hallway or stairs"),
        "reporterDescriptionDescriptor": world.uri("reporterDescription", "Staff"),
        "behaviors": [{"behaviorDescriptor": behavior}],
        "reportedToLawEnforcement": False,
    }


def _behavior(district: District, number: int, student: Student) -> Body:
    world = district.world
    role = world.uri("disciplineIncidentParticipationCode", "Perpetrator")
    return {
        "behaviorDescriptor": world.uri("behavior", BEHAVIORS[number % len(BEHAVIORS)]),
        "disciplineIncidentReference": _incident_reference(student, number),
        "studentReference": student.reference,
        "disciplineIncidentParticipationCodes": [{"disciplineIncidentParticipationCodeDescriptor": role}],
    }


def _participant(district: District, number: int, student: Student) -> Body:
    """What Data Standard 5 replaced with the behavior associations."""
    return {
        "disciplineIncidentReference": _incident_reference(student, number),
        "studentReference": student.reference,
        "studentParticipationCodeDescriptor": district.world.uri("studentParticipationCode", "Perpetrator"),
    }


def _action(district: District, number: int, student: Student) -> Body:
    world = district.world
    association = {
        "behaviorDescriptor": world.uri("behavior", BEHAVIORS[number % len(BEHAVIORS)]),
        "studentUniqueId": student.id,
        **_incident_reference(student, number),
    }
    return {
        "disciplineActionIdentifier": f"A{number + 1}",
        "disciplineDate": _incident_day(district, number),
        "studentReference": student.reference,
        "responsibilitySchoolReference": student.school.reference,
        "disciplines": [{"disciplineDescriptor": world.uri("discipline", ACTIONS[number % len(ACTIONS)])}],
        "actualDisciplineActionLength": float(1 + number % 5),
        "disciplineActionLength": float(1 + number % 5),
        "studentDisciplineIncidentBehaviorAssociations": [
            {"studentDisciplineIncidentBehaviorAssociationReference": association}
        ],
        "studentDisciplineIncidentAssociations": [
            {
                "studentDisciplineIncidentAssociationReference": {
                    "studentUniqueId": student.id,
                    **_incident_reference(student, number),
                }
            }
        ],
    }
