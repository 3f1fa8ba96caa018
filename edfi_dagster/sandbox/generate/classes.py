"""Courses, sections, who is in them, grades and attendance."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from edfi_dagster.sandbox.generate.people import Student, staff_school
from edfi_dagster.sandbox.generate.schools import District, School
from edfi_dagster.sandbox.generate.words import COURSES
from edfi_dagster.sandbox.model import Body

SEATS = 24
COURSES_AT_ONCE = 4
EVENTS_PER_STUDENT = 2
ABSENCES = ("Unexcused Absence", "Excused Absence", "Tardy", "Early departure", "Partial", "In Attendance")
LETTERS = ((90, "A"), (80, "B"), (70, "C"), (60, "D"), (0, "F"))


def generate_classes(district: District) -> None:
    """Courses, offerings and sections of every school, then their teachers, students and grades."""
    world = district.world
    taught = [(level, *course) for level, courses in COURSES.items() for course in courses]
    world.add("courses", [_course(district, *course) for course in taught])
    by_school: dict[int, list[Student]] = {}
    for student in district.students:
        by_school.setdefault(student.school.id, []).append(student)
    for school in district.schools:
        offerings = world.add("courseOfferings", list(_offerings(district, school)))
        groups = max(1, -(-len(by_school.get(school.id, ())) // SEATS))
        district.sections += world.add("sections", list(_sections(district, school, offerings, groups)))
    _generate_teaching(district)
    placed = chain.from_iterable(
        _placements(district, school, by_school.get(school.id, [])) for school in district.schools
    )
    district.section_enrollments = world.add("studentSectionAssociations", placed)
    graded = ((n, place) for n, place in enumerate(district.section_enrollments) if world.chance(75, 50, n))
    world.add("grades", (_grade(district, place, number) for number, place in graded))
    default = EVENTS_PER_STUDENT * len(district.students)
    count = world.wanted("studentSectionAttendanceEvents", default)
    world.add("studentSectionAttendanceEvents", _section_attendance(district, count))
    count = world.wanted("studentSchoolAttendanceEvents", default)
    world.add("studentSchoolAttendanceEvents", _school_attendance(district, count))


def _course(district: District, level: str, code: str, title: str, subject: str, credits: float) -> Body:
    world = district.world
    system = world.uri("courseIdentificationSystem", "LEA course code")
    return {
        "courseCode": code,
        "educationOrganizationReference": district.agency,
        "courseTitle": title,
        "numberOfParts": 1,
        "identificationCodes": [{"courseIdentificationSystemDescriptor": system, "identificationCode": code}],
        "academicSubjects": [{"academicSubjectDescriptor": world.uri("academicSubject", subject)}],
        "levelCharacteristics": [
            {"courseLevelCharacteristicDescriptor": world.uri("courseLevelCharacteristic", "Core Subject")}
        ],
        "maximumAvailableCredits": credits,
        "highSchoolCourseRequirement": level == "High",
    }


def _offerings(district: District, school: School) -> Iterator[Body]:
    world = district.world
    for session in school.sessions:
        for code, title, _, _ in COURSES[school.level]:
            yield {
                "localCourseCode": code,
                "courseReference": {"courseCode": code, "educationOrganizationId": district.agency_id},
                "schoolReference": school.reference,
                "sessionReference": world.reference("sessions", session),
                "localCourseTitle": title,
                "instructionalTimePlanned": 4_200,
            }


def _sections(district: District, school: School, offerings: list[Body], groups: int) -> Iterator[Body]:
    world = district.world
    for number, offering in enumerate(offerings):
        term = number // len(COURSES[school.level]) + 1
        for group in range(groups):
            room = school.rooms[(number + group) % len(school.rooms)]
            period = school.class_periods[(number + group) % len(school.class_periods)]
            yield {
                "sectionIdentifier": f"{school.id}-{offering['localCourseCode']}-{term}-{group + 1:02d}",
                "courseOfferingReference": world.reference("courseOfferings", offering),
                "locationReference": world.reference("locations", room),
                "locationSchoolReference": school.reference,
                "sectionName": f"{offering['localCourseTitle']} {group + 1}",
                "availableCredits": 0.5,
                "educationalEnvironmentDescriptor": world.uri("educationalEnvironment", "Classroom"),
                "classPeriods": [{"classPeriodReference": world.reference("classPeriods", period)}],
                "officialAttendancePeriod": False,
                "sequenceOfCourse": 1,
            }


def _generate_teaching(district: District) -> None:
    world = district.world
    teachers: dict[int, list[str]] = {}
    for number, person in enumerate(district.staff):
        teachers.setdefault(staff_school(district, number).id, []).append(person["staffUniqueId"])
    taught = [
        (section, teachers[section["courseOfferingReference"]["schoolId"]])
        for section in district.sections
        if section["courseOfferingReference"]["schoolId"] in teachers
    ]
    world.add("staffSectionAssociations", (
        {
            "beginDate": world.day(0),
            "endDate": world.day(277),
            "sectionReference": world.reference("sections", section),
            "staffReference": {"staffUniqueId": staff[number % len(staff)]},
            "classroomPositionDescriptor": world.uri("classroomPosition", "Teacher of Record"),
            "teacherStudentDataLinkExclusion": False,
        }
        for number, (section, staff) in enumerate(taught)
    ))  # fmt: skip


def _placements(district: District, school: School, students: list[Student]) -> Iterator[Body]:
    """Every student in some courses of each session; section references are shared objects."""
    world = district.world
    sections: dict[tuple[str, str], list[Body]] = {}
    for section in district.sections:
        offering = section["courseOfferingReference"]
        if offering["schoolId"] == school.id:
            key = offering["sessionName"], offering["localCourseCode"]
            sections.setdefault(key, []).append(world.reference("sections", section))
    for position, student in enumerate(students):
        reference = student.reference
        for half, session in enumerate(school.sessions):
            for code, *_ in COURSES[school.level][:COURSES_AT_ONCE]:
                choices = sections.get((session["sessionName"], code))
                if not choices:
                    continue
                yield {
                    "beginDate": world.day(140 * half),
                    "endDate": world.day(140 * half + 137),
                    "sectionReference": choices[position % len(choices)],
                    "studentReference": reference,
                    "homeroomIndicator": False,
                }


def _grade(district: District, place: Body, number: int) -> Body:
    world = district.world
    section = place["sectionReference"]
    spring = "Spring" in section["sessionName"]
    order, sequence = ("Third", 3) if spring else ("First", 1)
    points = 58 + world.number(51, number) % 43
    return {
        "gradeTypeDescriptor": world.uri("gradeType", "Grading Period"),
        "gradingPeriodReference": world.reference_of(
            "gradingPeriods",
            gradingPeriodDescriptor=world.uri("gradingPeriod", f"{order} Nine Weeks"),
            gradingPeriodName=f"{world.year - 1}-{world.year} {order} Nine Weeks",
            periodSequence=sequence,
            schoolId=section["schoolId"],
            schoolYear=world.year,
        ),
        "studentSectionAssociationReference": world.reference("studentSectionAssociations", place),
        "numericGradeEarned": float(points),
        "letterGradeEarned": next(letter for least, letter in LETTERS if points >= least),
    }


def _section_attendance(district: District, count: int) -> Iterator[Body]:
    """Events cycle through section enrollments, then days, then categories: every key comes once."""
    world, places = district.world, district.section_enrollments
    days = {half: district.days[95 * half : 95 * half + 85] for half in (0, 1)}
    uris = [world.uri("attendanceEventCategory", category) for category in ABSENCES]
    environment = world.uri("educationalEnvironment", "Classroom")
    for number in range(count if places else 0):
        place = places[number % len(places)]
        turn = number // len(places)
        half = 1 if "Spring" in place["sectionReference"]["sessionName"] else 0
        cycle, step = divmod(turn, 85)
        if cycle >= len(uris):
            return
        yield {
            "attendanceEventCategoryDescriptor": uris[cycle],
            "eventDate": days[half][(step * 32 + number % len(places) * 7) % 85],
            "sectionReference": place["sectionReference"],
            "studentReference": place["studentReference"],
            "educationalEnvironmentDescriptor": environment,
            "eventDuration": 1.0,
        }


def _school_attendance(district: District, count: int) -> Iterator[Body]:
    world, places = district.world, district.enrollments
    schools = {school.id: school for school in district.schools}
    uris = [world.uri("attendanceEventCategory", category) for category in ABSENCES]
    total_days = 170
    for number in range(count if places else 0):
        place = places[number % len(places)]
        cycle, step = divmod(number // len(places), total_days)
        if cycle >= len(uris):
            return
        day = (step * 57 + number % len(places) * 11) % total_days
        school = schools[place["schoolReference"]["schoolId"]]
        yield {
            "attendanceEventCategoryDescriptor": uris[cycle],
            "eventDate": district.days[day],
            "schoolReference": place["schoolReference"],
            "sessionReference": world.reference("sessions", school.sessions[0 if day < 90 else 1]),
            "studentReference": place["studentReference"],
            "attendanceEventReason": "Reported by the front office",
        }
