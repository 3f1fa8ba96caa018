"""Assessments with their objectives, and students' results."""

from __future__ import annotations

from collections.abc import Iterator

from edfi_dagster.sandbox.generate.people import Student
from edfi_dagster.sandbox.generate.schools import District
from edfi_dagster.sandbox.generate.words import GRADES
from edfi_dagster.sandbox.model import Body

# (identifier, title, family of objectives, academic subject, highest score)
ASSESSMENTS = (
    ("DIST-READ", "District Reading Inventory", ("Decoding", "Comprehension", "Vocabulary"), "Reading", 400),
    ("DIST-MATH", "District Mathematics Inventory", ("Operations", "Geometry", "Data"), "Mathematics", 400),
    ("STATE-SCI", "State Science Assessment", ("Life", "Earth"), "Science", 1000),
)
LEVELS = ("Below Basic", "Basic", "Proficient", "Advanced")
RESULTS_PER_STUDENT = 2


def generate_testing(district: District) -> None:
    """Assessments, objective assessments, and results of every student in the first two."""
    world = district.world
    world.add("assessments", [_assessment(district, *assessment) for assessment in ASSESSMENTS])
    world.add("objectiveAssessments", [
        {
            "identificationCode": f"{identifier}-{objective}",
            "assessmentReference": {"assessmentIdentifier": identifier, "namespace": _namespace(district)},
            "academicSubjectDescriptor": world.uri("academicSubject", subject),
            "description": f"{objective} in {title}",
            "maxRawScore": 40.0,
            "scores": [_score_type(district)],
        }
        for identifier, title, objectives, subject, _ in ASSESSMENTS
        for objective in objectives
    ])  # fmt: skip
    default = RESULTS_PER_STUDENT * len(district.students)
    count = world.wanted("studentAssessments", default)
    world.add("studentAssessments", _results(district, count))


def _namespace(district: District) -> str:
    return f"uri://{district.world.tenant.replace('_', '-').lower()}.example.org/Assessment"


def _score_type(district: District) -> Body:
    world = district.world
    return {
        "assessmentReportingMethodDescriptor": world.uri("assessmentReportingMethod", "Scale score"),
        "resultDatatypeTypeDescriptor": world.uri("resultDatatypeType", "Integer"),
        "minimumScore": "0",
        "maximumScore": "1000",
    }


def _assessment(
    district: District, identifier: str, title: str, objectives: tuple[str, ...], subject: str, highest: int
) -> Body:
    world = district.world
    return {
        "assessmentIdentifier": identifier,
        "namespace": _namespace(district),
        "assessmentTitle": title,
        "assessmentVersion": district.world.year,
        "assessmentCategoryDescriptor": world.uri("assessmentCategory", "Benchmark test"),
        "academicSubjects": [{"academicSubjectDescriptor": world.uri("academicSubject", subject)}],
        "assessedGradeLevels": [
            {"gradeLevelDescriptor": world.uri("gradeLevel", grade)} for grade in GRADES[3:]
        ],
        "educationOrganizationReference": district.agency,
        "maxRawScore": float(highest),
        "performanceLevels": [
            {
                "performanceLevelDescriptor": world.uri("performanceLevel", level),
                "assessmentReportingMethodDescriptor": world.uri("assessmentReportingMethod", "Scale score"),
                "minimumScore": str(highest * number // len(LEVELS)),
                "maximumScore": str(highest * (number + 1) // len(LEVELS) - 1),
            }
            for number, level in enumerate(LEVELS)
        ],
        "scores": [_score_type(district)],
    }


def _results(district: District, count: int) -> Iterator[Body]:
    """Results cycle through the students, and through the assessments from turn to turn."""
    students = district.students
    for number in range(count if students else 0):
        turn, position = divmod(number, len(students))
        yield _result(district, students[position], turn)


def _result(district: District, student: Student, turn: int) -> Body:
    world = district.world
    identifier, _, objectives, _, highest = ASSESSMENTS[turn % len(ASSESSMENTS)]
    points = highest // 5 + world.number(81, student.number, turn) % (highest * 3 // 4)
    level = LEVELS[min(len(LEVELS) - 1, points * len(LEVELS) // highest)]
    assessment = {"assessmentIdentifier": identifier, "namespace": _namespace(district)}
    return {
        "studentAssessmentIdentifier": f"{student.id}-{turn + 1}",
        "assessmentReference": assessment,
        "studentReference": student.reference,
        "schoolYearTypeReference": district.year,
        "administrationDate": f"{district.days[(30 + turn * 3) % len(district.days)]}T09:00:00Z",
        "whenAssessedGradeLevelDescriptor": world.uri("gradeLevel", student.grade),
        "scoreResults": [_score(district, points)],
        "performanceLevels": [
            {
                "assessmentReportingMethodDescriptor": world.uri("assessmentReportingMethod", "Scale score"),
                "performanceLevelDescriptor": world.uri("performanceLevel", level),
                "performanceLevelMet": points * 2 > highest,
            }
        ],
        "studentObjectiveAssessments": [
            {
                "objectiveAssessmentReference": {
                    **assessment,
                    "identificationCode": f"{identifier}-{objective}",
                },
                "scoreResults": [_score(district, points // len(objectives))],
                "performanceLevels": [],
            }
            for objective in objectives
        ],
    }


def _score(district: District, points: int) -> Body:
    return {
        "assessmentReportingMethodDescriptor": district.world.uri("assessmentReportingMethod", "Scale score"),
        "resultDatatypeTypeDescriptor": district.world.uri("resultDatatypeType", "Integer"),
        "result": str(points),
    }
