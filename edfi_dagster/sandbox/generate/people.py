"""Students, their contacts and enrollments; staff and their assignments."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from edfi_dagster.sandbox.generate.schools import District, School, address
from edfi_dagster.sandbox.generate.words import FIRST_NAMES, GRADES, LAST_NAMES, LEVEL_OF_GRADE
from edfi_dagster.sandbox.model import Body

SEXES = ("Female", "Male")
RACES = ("White", "Black - African American", "Asian", "American Indian - Alaska Native", "Other")
STUDENTS_PER_TEACHER = 12


@dataclass(frozen=True)
class Student:
    """A student of this year. ``number`` is the same in every year of a tenant."""

    number: int
    id: str
    grade: str
    school: School
    surname: str

    @property
    def reference(self) -> Body:
        return {"studentUniqueId": self.id}


def generate_students(district: District) -> None:
    """Students with demographics, contacts and their enrollment in a school."""
    world = district.world
    chosen = [_student(district, position) for position in range(world.students)]
    district.students = chosen
    world.add("students", (_student_record(district, student) for student in chosen))
    world.add("studentEducationOrganizationAssociations", (_demographics(district, s) for s in chosen))
    _generate_graduation_plans(district)
    district.enrollments = world.add("studentSchoolAssociations", (_enrollment(district, s) for s in chosen))
    families = [student for student in chosen for _ in range(1 + world.chance(60, 30, student.number))]
    world.add(f"{world.contact}s", (_contact(district, student, n) for n, student in enumerate(families)))
    world.add(
        f"student{world.contact.title()}Associations",
        (_relation(district, student, n) for n, student in enumerate(families)),
    )
    world.add("studentEducationOrganizationResponsibilityAssociations", (
        {
            "beginDate": world.day(0),
            "responsibilityDescriptor": world.uri("responsibility", "Accountability"),
            "educationOrganizationReference": {"educationOrganizationId": student.school.id},
            "studentReference": student.reference,
        }
        for student in chosen[: len(chosen) // 4]
    ))  # fmt: skip


def _student(district: District, position: int) -> Student:
    """The student at a position of this year's roster: each year one grade leaves and one arrives."""
    world = district.world
    per_grade = -(-world.students // len(GRADES))
    number = (world.year - 2000) * per_grade + position
    grade = GRADES[len(GRADES) - 1 - position // per_grade]
    schools = district.of_level(LEVEL_OF_GRADE[grade])
    surname = world.pick(LAST_NAMES, 11, number)
    return Student(number, str(600_000 + number), grade, schools[number % len(schools)], surname)


def _student_record(district: District, student: Student) -> Body:
    world, number = district.world, student.number
    sex = SEXES[world.number(12, number) % 2]
    age = 5 + GRADES.index(student.grade)
    born = dt.date(world.year - 1 - age, 1, 1) + dt.timedelta(days=world.number(13, number) % 365)
    record: Body = {
        "studentUniqueId": student.id,
        "firstName": world.pick(FIRST_NAMES[sex], 14, number),
        "lastSurname": student.surname,
        "birthDate": born.isoformat(),
        "birthSexDescriptor": world.uri("sex", sex),
        "birthCountryDescriptor": world.uri("country", "US"),
    }
    if world.chance(55, 15, number):
        record["middleName"] = world.pick(FIRST_NAMES[sex], 16, number)
    if world.chance(6, 17, number):
        record["preferredFirstName"] = record["firstName"][:3]
    return record


def _demographics(district: District, student: Student) -> Body:
    world, number = district.world, student.number
    record: Body = {
        "educationOrganizationReference": district.agency,
        "studentReference": student.reference,
        "hispanicLatinoEthnicity": world.chance(38, 20, number),
        "sexDescriptor": world.uri("sex", SEXES[world.number(12, number) % 2]),
        "limitedEnglishProficiencyDescriptor": world.uri(
            "limitedEnglishProficiency", "Limited" if world.chance(14, 21, number) else "NotLimited"
        ),
        "races": [{"raceDescriptor": world.uri("race", world.pick(RACES, 22, number))}],
        "languages": [
            {
                "languageDescriptor": world.uri(
                    "language", world.pick(("eng", "eng", "eng", "spa", "vie"), 23, number)
                ),
                "uses": [{"languageUseDescriptor": world.uri("languageUse", "Home language")}],
            }
        ],
        "studentIdentificationCodes": [
            {
                "studentIdentificationSystemDescriptor": world.uri("studentIdentificationSystem", system),
                "assigningOrganizationIdentificationCode": organization,
                "identificationCode": code,
            }
            for system, organization, code in (
                ("State", "SEA", f"9{number:07d}"),
                ("District", str(district.agency_id), student.id),
            )
        ],
        "addresses": [address(world, 5, number, kind="Home")],
        "electronicMails": [
            {
                "electronicMailTypeDescriptor": world.uri("electronicMailType", "Organization"),
                "electronicMailAddress": f"s{student.id}@students.example.org",
            }
        ],
    }
    return record | _circumstances(district, student)


def _circumstances(district: District, student: Student) -> Body:
    """Economic disadvantage and disability, of those whom they concern."""
    world, number = district.world, student.number
    record: Body = {}
    if world.chance(45, 24, number):
        record["studentCharacteristics"] = [
            {
                "studentCharacteristicDescriptor": world.uri(
                    "studentCharacteristic", "Economic Disadvantaged"
                ),
                "periods": [{"beginDate": world.day(0)}],
            }
        ]
    if world.chance(12, 25, number):
        uri = world.uri("disability", "Specific Learning Disability")
        record["disabilities"] = [{"disabilityDescriptor": uri, "orderOfDisability": 1, "designations": []}]
    return record


def _generate_graduation_plans(district: District) -> None:
    world = district.world
    world.add("graduationPlans", [
        {
            "graduationPlanTypeDescriptor": world.uri("graduationPlanType", "Standard"),
            "educationOrganizationReference": district.agency,
            "graduationSchoolYearTypeReference": {"schoolYear": world.year + ahead},
            "totalRequiredCredits": 26.0,
            "individualPlan": False,
            "creditsBySubjects": [
                {"academicSubjectDescriptor": world.uri("academicSubject", subject), "credits": 4.0}
                for subject in ("English", "Mathematics", "Science")
            ],
        }
        for ahead in range(4)
    ])  # fmt: skip


def _enrollment(district: District, student: Student) -> Body:
    world, number = district.world, student.number
    record: Body = {
        "entryDate": world.day(0) if world.chance(95, 26, number) else world.day(35),
        "schoolReference": student.school.reference,
        "studentReference": student.reference,
        "schoolYearTypeReference": district.year,
        "calendarReference": {
            "calendarCode": str(student.school.id),
            "schoolId": student.school.id,
            "schoolYear": world.year,
        },
        "entryGradeLevelDescriptor": world.uri("gradeLevel", student.grade),
        "entryTypeDescriptor": world.uri("entryType", "Next year school"),
        "primarySchool": True,
        "residencyStatusDescriptor": world.uri(
            "residencyStatus", "Resident of administrative unit and usual school attendance area"
        ),
    }
    if student.school.level == "High":
        ahead = len(GRADES) - 1 - GRADES.index(student.grade)
        record["graduationPlanReference"] = {
            "educationOrganizationId": district.agency_id,
            "graduationPlanTypeDescriptor": world.uri("graduationPlanType", "Standard"),
            "graduationSchoolYear": world.year + ahead,
        }
        record["classOfSchoolYearTypeReference"] = {"schoolYear": world.year + ahead}
    if world.chance(4, 27, number):
        record["exitWithdrawDate"] = world.day(180)
        record["exitWithdrawTypeDescriptor"] = world.uri("exitWithdrawType", "Exited")
    return record


def _contact_id(position: int) -> str:
    return f"C{700_000 + position}"


def _contact(district: District, student: Student, position: int) -> Body:
    world, sex = district.world, SEXES[position % 2]
    return {
        f"{world.contact}UniqueId": _contact_id(position),
        "firstName": world.pick(FIRST_NAMES[sex], 31, student.number, position % 2),
        "lastSurname": student.surname,
        "sexDescriptor": world.uri("sex", sex),
        "telephones": [
            {
                "telephoneNumberTypeDescriptor": world.uri("telephoneNumberType", "Mobile"),
                "telephoneNumber": f"(512) 555-{world.number(32, position) % 10_000:04d}",
                "orderOfPriority": 1,
            }
        ],
        "addresses": [address(world, 5, student.number, kind="Home")],
    }


def _relation(district: District, student: Student, position: int) -> Body:
    world = district.world
    return {
        f"{world.contact}Reference": {f"{world.contact}UniqueId": _contact_id(position)},
        "studentReference": student.reference,
        "relationDescriptor": world.uri("relation", "Mother" if position % 2 == 0 else "Father"),
        "emergencyContactStatus": True,
        "livesWith": world.chance(80, 33, position),
        "legalGuardian": True,
        "primaryContactStatus": position % 2 == 0,
    }


def generate_staff(district: District) -> None:
    """A principal and teachers for each school, with employment, assignment and school associations."""
    world = district.world
    teachers = world.wanted("staffs", max(9, world.students // STUDENTS_PER_TEACHER))
    district.staff = world.add("staffs", (_staff(district, number) for number in range(teachers)))
    places = list(enumerate(district.staff))
    employment = "staffEducationOrganizationEmploymentAssociations"
    world.add(employment, (
        {
            "employmentStatusDescriptor": world.uri("employmentStatus", "Tenured or permanent"),
            "hireDate": f"{2004 + number % 18}-08-01",
            "educationOrganizationReference": district.agency,
            "staffReference": {"staffUniqueId": person["staffUniqueId"]},
            "fullTimeEquivalency": 1.0,
            "annualWage": 41_000.0 + 750 * (number % 30),
        }
        for number, person in places
    ))  # fmt: skip
    world.add(
        "staffEducationOrganizationAssignmentAssociations",
        (_assignment(district, *place) for place in places),
    )
    world.add("staffSchoolAssociations", (_staff_school(district, *place) for place in places))


def _staff(district: District, number: int) -> Body:
    world, sex = district.world, SEXES[number % 2]
    first, last = world.pick(FIRST_NAMES[sex], 41, number), world.pick(LAST_NAMES, 42, number)
    return {
        "staffUniqueId": str(200_000 + number),
        "firstName": first,
        "lastSurname": last,
        "birthDate": f"{1962 + world.number(43, number) % 36}-{1 + number % 12:02d}-{1 + number % 27:02d}",
        "sexDescriptor": world.uri("sex", sex),
        "hispanicLatinoEthnicity": world.chance(25, 44, number),
        "races": [{"raceDescriptor": world.uri("race", world.pick(RACES, 45, number))}],
        "highestCompletedLevelOfEducationDescriptor": world.uri(
            "levelOfEducation", world.pick(("Bachelor's", "Master's"), 46, number)
        ),
        "yearsOfPriorTeachingExperience": float(world.number(47, number) % 25),
        "electronicMails": [
            {
                "electronicMailTypeDescriptor": world.uri("electronicMailType", "Work"),
                "electronicMailAddress": f"{first}.{last}.{number}@staff.example.org".lower(),
            }
        ],
        "identificationCodes": [
            {
                "staffIdentificationSystemDescriptor": world.uri("staffIdentificationSystem", "State"),
                "identificationCode": f"T{300_000 + number}",
            }
        ],
    }


def staff_school(district: District, number: int) -> School:
    return district.schools[number % len(district.schools)]


def _assignment(district: District, number: int, person: Body) -> Body:
    leads = number < len(district.schools)
    return {
        "beginDate": district.world.day(-14),
        "staffClassificationDescriptor": district.world.uri(
            "staffClassification", "Principal" if leads else "Teacher"
        ),
        "educationOrganizationReference": {"educationOrganizationId": staff_school(district, number).id},
        "staffReference": {"staffUniqueId": person["staffUniqueId"]},
        "positionTitle": "Principal" if leads else "Teacher",
    }


def _staff_school(district: District, number: int, person: Body) -> Body:
    school = staff_school(district, number)
    return {
        "programAssignmentDescriptor": district.world.uri("programAssignment", "Regular Education"),
        "schoolReference": school.reference,
        "staffReference": {"staffUniqueId": person["staffUniqueId"]},
        "schoolYearTypeReference": district.year,
        "gradeLevels": [{"gradeLevelDescriptor": district.world.uri("gradeLevel", school.grades[0])}],
    }
