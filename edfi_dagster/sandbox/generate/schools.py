"""The district itself: agencies, schools, their calendars, sessions, periods and rooms."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edfi_dagster.sandbox.generate.words import LEVEL_GRADES, PLACES, STREETS
from edfi_dagster.sandbox.generate.world import World
from edfi_dagster.sandbox.model import Body

LEVELS = ("Elementary", "Middle", "High")
STUDENTS_PER_SCHOOL = 500
PERIODS = 7
ROOMS = 8
# The district of the embedded default's first tenant; other tenants' numbers derive from their names.
KNOWN_AGENCIES = {"grand_bend": 255901}
HOLIDAYS = ((14, 1), (100, 3), (126, 10), (154, 1), (182, 1), (210, 5))


@dataclass
class School:
    """One school with what its classes need; ``reference`` may be shared by records."""

    id: int
    name: str
    level: str
    number: int
    sessions: list[Body] = field(default_factory=list)
    grading_periods: list[Body] = field(default_factory=list)
    class_periods: list[Body] = field(default_factory=list)
    rooms: list[Body] = field(default_factory=list)

    @property
    def reference(self) -> Body:
        return {"schoolId": self.id}

    @property
    def grades(self) -> tuple[str, ...]:
        return LEVEL_GRADES[self.level]


@dataclass
class District:
    """What later generators build on."""

    world: World
    agency_id: int
    schools: list[School] = field(default_factory=list)
    days: list[str] = field(default_factory=list)
    students: list[Any] = field(default_factory=list)
    staff: list[Body] = field(default_factory=list)
    enrollments: list[Body] = field(default_factory=list)
    sections: list[Body] = field(default_factory=list)
    section_enrollments: list[Body] = field(default_factory=list)

    @property
    def year(self) -> Body:
        return {"schoolYear": self.world.year}

    @property
    def agency(self) -> Body:
        return {"educationOrganizationId": self.agency_id}

    def of_level(self, level: str) -> list[School]:
        return [school for school in self.schools if school.level == level]


def generate_district(world: World) -> District:
    """School years, agencies, schools and everything a school has before people come."""
    agency_id = KNOWN_AGENCIES.get(world.tenant, 100_000 + world.salt % 800_000)
    district = District(world, agency_id)
    world.add("schoolYearTypes", _school_years(world))
    _generate_agencies(district)
    per_level = max(1, round(world.students / STUDENTS_PER_SCHOOL / len(LEVELS)))
    for number in range(per_level * len(LEVELS)):
        level = LEVELS[number % len(LEVELS)]
        name = f"{PLACES[(world.salt + number) % len(PLACES)]} {level} School"
        district.schools.append(School(agency_id * 1000 + number + 1, name, level, number))
    world.add("schools", [_school(district, school) for school in district.schools])
    _generate_calendars(district)
    for school in district.schools:
        _generate_schedule(district, school)
        _generate_periods_and_rooms(district, school)
    return district


def _school_years(world: World) -> Iterator[Body]:
    for year in range(world.year - 12, world.year + 14):
        yield {
            "schoolYear": year,
            "currentSchoolYear": year == world.year,
            "schoolYearDescription": f"{year - 1}-{year}",
        }


def _generate_agencies(district: District) -> None:
    world, place = district.world, district.world.tenant.replace("_", " ").replace("-", " ").title()
    state_id, center_id = district.agency_id // 1000, district.agency_id // 1000 * 1000 + 950
    state = {"stateEducationAgencyId": state_id}
    world.add(
        "stateEducationAgencies",
        [
            _organization(world, "State Education Agency")
            | state
            | {"nameOfInstitution": "Example State Education Agency"}
        ],
    )
    world.add(
        "educationServiceCenters",
        [
            _organization(world, "Education Service Center")
            | {"educationServiceCenterId": center_id, "stateEducationAgencyReference": dict(state)}
            | {"nameOfInstitution": f"{place} Region Service Center"}
        ],
    )
    world.add("localEducationAgencies", [
        _organization(world, "Local Education Agency")
        | {
            "localEducationAgencyId": district.agency_id,
            "nameOfInstitution": f"{place} Unified School District",
            "shortNameOfInstitution": f"{place} USD",
            "webSite": f"https://www.{world.tenant.replace('_', '-').lower()}.example.org",
            "localEducationAgencyCategoryDescriptor": world.uri(
                "localEducationAgencyCategory",
                "Public school district, not part of a supervisory union",
            ),
            "stateEducationAgencyReference": dict(state),
            "educationServiceCenterReference": {"educationServiceCenterId": center_id},
            "operationalStatusDescriptor": world.uri("operationalStatus", "Active"),
        }
    ])  # fmt: skip


def _organization(world: World, category: str) -> Body:
    uri = world.uri("educationOrganizationCategory", category)
    return {
        "categories": [{"educationOrganizationCategoryDescriptor": uri}],
        "addresses": [address(world, 0)],
    }


def address(world: World, *parts: int, kind: str = "Physical") -> Body:
    return {
        "addressTypeDescriptor": world.uri("addressType", kind),
        "city": world.pick(PLACES, world.salt % 97),
        "postalCode": f"{78000 + world.number(3, *parts) % 900}",
        "stateAbbreviationDescriptor": world.uri("stateAbbreviation", "TX"),
        "streetNumberName": f"{100 + world.number(1, *parts) % 9800} {world.pick(STREETS, 2, *parts)} Street",
        "nameOfCounty": world.pick(PLACES, world.salt % 89),
        "periods": [],
    }


def _school(district: District, school: School) -> Body:
    world = district.world
    category = {"Elementary": "Elementary School", "Middle": "Middle School", "High": "High School"}[
        school.level
    ]
    return {
        "schoolId": school.id,
        "localEducationAgencyReference": {"localEducationAgencyId": district.agency_id},
        "nameOfInstitution": school.name,
        "shortNameOfInstitution": "".join(word[0] for word in school.name.split()),
        "educationOrganizationCategories": [
            {"educationOrganizationCategoryDescriptor": world.uri("educationOrganizationCategory", "School")}
        ],
        "gradeLevels": [{"gradeLevelDescriptor": world.uri("gradeLevel", grade)} for grade in school.grades],
        "schoolCategories": [{"schoolCategoryDescriptor": world.uri("schoolCategory", category)}],
        "schoolTypeDescriptor": world.uri("schoolType", "Regular"),
        "operationalStatusDescriptor": world.uri("operationalStatus", "Active"),
        "titleIPartASchoolDesignationDescriptor": world.uri(
            "titleIPartASchoolDesignation",
            "Not A Title I School"
            if school.number % 2
            else "Title I Part A Schoolwide Assistance Program School",
        ),
        "addresses": [address(world, school.id)],
        "identificationCodes": [_state_code(district, school)],
        "institutionTelephones": [
            {
                "institutionTelephoneNumberTypeDescriptor": world.uri(
                    "institutionTelephoneNumberType", "Main"
                ),
                "telephoneNumber": f"(512) 555-{school.number % 10_000:04d}",
            }
        ],
    }


def _state_code(district: District, school: School) -> Body:
    return {
        "educationOrganizationIdentificationSystemDescriptor": district.world.uri(
            "educationOrganizationIdentificationSystem", "SEA"
        ),
        "identificationCode": f"{district.agency_id}{school.number + 1:03d}",
    }


def _generate_calendars(district: District) -> None:
    world = district.world
    world.add("calendars", [
        {
            "calendarCode": str(school.id),
            "schoolReference": school.reference,
            "schoolYearTypeReference": district.year,
            "calendarTypeDescriptor": world.uri("calendarType", "School"),
        }
        for school in district.schools
    ])  # fmt: skip
    closed = {offset + extra for offset, length in HOLIDAYS for extra in range(length)}
    weekdays = [offset for offset in range(280) if offset % 7 < 5]
    district.days = [world.day(offset) for offset in weekdays if offset not in closed]
    world.add("calendarDates", [
        {
            "date": world.day(offset),
            "calendarReference": {"calendarCode": str(s.id), "schoolId": s.id, "schoolYear": world.year},
            "calendarEvents": [
                {
                    "calendarEventDescriptor": world.uri(
                        "calendarEvent", "Holiday" if offset in closed else "Instructional day"
                    )
                }
            ],
        }
        for s in district.schools
        for offset in weekdays
    ])  # fmt: skip


def _generate_schedule(district: District, school: School) -> None:
    world, year = district.world, district.world.year
    nine_weeks = ("First", "Second", "Third", "Fourth")
    school.grading_periods = world.add("gradingPeriods", [
        {
            "gradingPeriodDescriptor": world.uri("gradingPeriod", f"{order} Nine Weeks"),
            "gradingPeriodName": f"{year - 1}-{year} {order} Nine Weeks",
            "schoolReference": school.reference,
            "schoolYearTypeReference": district.year,
            "beginDate": world.day(70 * number),
            "endDate": world.day(70 * number + 67),
            "periodSequence": number + 1,
            "totalInstructionalDays": 45,
        }
        for number, order in enumerate(nine_weeks)
    ])  # fmt: skip
    school.sessions = world.add("sessions", [
        {
            "sessionName": f"{year - 1}-{year} {term}",
            "schoolReference": school.reference,
            "schoolYearTypeReference": district.year,
            "termDescriptor": world.uri("term", term),
            "beginDate": world.day(140 * half),
            "endDate": world.day(140 * half + 137),
            "totalInstructionalDays": 90,
            "gradingPeriods": [
                {"gradingPeriodReference": world.reference("gradingPeriods", period)}
                for period in school.grading_periods[2 * half : 2 * half + 2]
            ],
        }
        for half, term in enumerate(("Fall Semester", "Spring Semester"))
    ])  # fmt: skip


def _generate_periods_and_rooms(district: District, school: School) -> None:
    world = district.world
    school.class_periods = world.add("classPeriods", [_class_period(school, n) for n in range(PERIODS)])
    world.add("bellSchedules", [_bell_schedule(district, school)])
    school.rooms = world.add("locations", [
        {
            "classroomIdentificationCode": str(100 + room),
            "schoolReference": school.reference,
            "maximumNumberOfSeats": 30,
            "optimalNumberOfSeats": 24,
        }
        for room in range(ROOMS)
    ])  # fmt: skip


def _class_period(school: School, number: int) -> Body:
    start = dt.datetime(2000, 1, 1, 8, 5) + dt.timedelta(minutes=55 * number)
    end = start + dt.timedelta(minutes=50)
    return {
        "classPeriodName": f"Period {number + 1}",
        "schoolReference": school.reference,
        "officialAttendancePeriod": number == 1,
        "meetingTimes": [{"startTime": start.time().isoformat(), "endTime": end.time().isoformat()}],
    }


def _bell_schedule(district: District, school: School) -> Body:
    world = district.world
    return {
        "bellScheduleName": "Normal Schedule",
        "schoolReference": school.reference,
        "classPeriods": [
            {"classPeriodReference": world.reference("classPeriods", period)}
            for period in school.class_periods
        ],
        "dates": [{"date": day} for day in district.days[:5]],
        "gradeLevels": [{"gradeLevelDescriptor": world.uri("gradeLevel", grade)} for grade in school.grades],
        "startTime": "08:05:00",
        "endTime": "14:25:00",
        "totalInstructionalTime": 350,
    }
