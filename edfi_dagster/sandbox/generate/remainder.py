"""A few rows for the endpoints without a generator of their own, built from the catalogue's fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edfi_dagster.sandbox.generate.schools import District, address
from edfi_dagster.sandbox.generate.words import FIRST_NAMES, LAST_NAMES
from edfi_dagster.sandbox.model import EDUCATION_ORGANIZATIONS, Body, Endpoint, load_orders

ROWS = 6
ATTEMPTS_PER_ROW = 4
# Collections that a district of this size has no data for. What refers to them stays empty, too.
_EMPTY = (
    "communityOrganizations communityProviders crisisEvents educationContents interventionPrescriptions "
    "interventions learningStandardEquivalenceAssociations localContractedStaffs localEncumbrances "
    "openStaffPositions organizationDepartments postSecondaryInstitutions postSecondaryEvents programEvaluations "
    "restraintEvents staffLeaves staffEducationOrganizationContactAssociations "
    "studentMigrantEducationProgramAssociations studentNeglectedOrDelinquentProgramAssociations "
    "assessmentBatteryParts studentEducationOrganizationAssessmentAccommodations surveyProgramAssociations "
    "educationOrganizationNetworks studentHealths descriptorMappings surveySectionResponses sourceDimensions "
    "financialAids rubricDimensions accountabilityRatings"
)
EMPTY = frozenset(_EMPTY.split())
CATEGORIES = {
    "postSecondaryInstitutions": "Post Secondary Institution",
    "organizationDepartments": "Organization Department",
    "educationOrganizationNetworks": "Education Organization Network",
}
REFERRED_ITEMS = ("learningStandards", "accountCodes")
PERSON_TEXTS = {"personalTitlePrefix": "Dr", "generationCodeSuffix": "Jr", "birthCity": "Millrace"}


def generate_remainder(district: District) -> None:
    """Fill every endpoint that has no rows yet, in load order, unless it is meant to stay empty."""
    world = district.world
    orders = load_orders(world.store.model)
    for endpoint in sorted(world.store.model.endpoints, key=lambda e: (orders[e.path], e.number)):
        asked = world.rows.get(endpoint.path)
        if endpoint.is_descriptor or world.existing(endpoint.path) or asked == 0:
            continue
        if endpoint.name not in EMPTY or asked:
            world.add(endpoint.path, _records(district, endpoint, asked or ROWS))


def _records(district: District, endpoint: Endpoint, count: int) -> Iterator[Body]:
    seen: set[int] = set()
    for attempt in range(count * ATTEMPTS_PER_ROW):
        if len(seen) == count:
            return
        record = _record(district, endpoint, attempt)
        if record is None:
            return
        key = endpoint.key_hash(record)
        if key not in seen:
            seen.add(key)
            yield record


def _record(district: District, endpoint: Endpoint, number: int) -> Body | None:
    """One record whose references exist and agree where they share a column; ``None`` where none can."""
    bound: Body = {}
    record: Body = {}
    for name, target in endpoint.references.items():
        if name in endpoint.required:
            reference = _agreeing(district, endpoint, name, target, bound, number)
            if reference is None:
                return None
            record[name] = reference
    for name, kind in endpoint.fields.items():
        wanted = name in endpoint.required or district.world.chance(
            40, 91, endpoint.number, number, len(name)
        )
        if name not in endpoint.references and wanted:
            value = _value(district, endpoint, name, kind, number)
            if value is not None:
                record[name] = bound.get(name, value)
    return record


def _agreeing(
    district: District, endpoint: Endpoint, name: str, target: str, bound: Body, number: int
) -> Body | None:
    """A reference to some row, beginning at the ``number``-th, that repeats what is already bound."""
    references = _candidates(district, target)
    for step in range(len(references)):
        reference = references[(number + step) % len(references)]
        flat = {endpoint.flat(name, part): value for part, value in reference.items()}
        if all(bound.get(column, value) == value for column, value in flat.items()):
            bound.update(flat)
            return dict(reference)
    return None


def _candidates(district: District, target: str) -> list[Body]:
    if target == EDUCATION_ORGANIZATIONS:
        schools = [{"educationOrganizationId": school.id} for school in district.schools]
        return [district.agency, *schools]
    if target == "ed-fi/schoolYearTypes":
        return [district.year]
    return [district.world.reference(target, row) for row in district.world.existing(target)]


def _value(district: District, endpoint: Endpoint, name: str, kind: str, number: int) -> Any:
    world = district.world
    if kind == "descriptor":
        target = world.store.model.descriptor_for(name)
        return world.some_uri(target, endpoint.number, number, len(name)) if target else None
    if kind == "array":
        return _items(district, endpoint, name, number) if name in endpoint.required else None
    if kind == "string":
        return _text(district, endpoint, name, number)
    if kind == "date":
        return _date(district, name, number)
    simple: dict[str, Any] = {
        "integer": _integer(district, endpoint, name, number),
        "number": float(10 + world.number(92, endpoint.number, number, len(name)) % 90),
        "boolean": world.chance(50, 93, endpoint.number, number, len(name)),
        "date-time": f"{world.day(7 * number)}T09:30:00Z",
        "object": {"title": "Local standards"} if name == "contentStandard" else None,
    }
    return simple.get(kind)


def _integer(district: District, endpoint: Endpoint, name: str, number: int) -> int:
    if name in ("fiscalYear", "publicationYear"):
        return district.world.year
    if name.endswith("Id"):
        return district.agency_id * 1000 + 700 + endpoint.number + 10 * number
    return number + 1


def _date(district: District, name: str, number: int) -> str:
    if name == "birthDate":
        return f"{1985 + number % 15}-{1 + number % 12:02d}-{1 + number % 27:02d}"
    return district.world.day(7 * number + len(name))


def _text(district: District, endpoint: Endpoint, name: str, number: int) -> str:
    world = district.world
    lower = name.lower()
    if lower == "namespace" or lower.endswith("namespace"):
        return f"uri://{world.tenant.replace('_', '-').lower()}.example.org"
    if lower.endswith(("uri", "url", "website")):
        return f"https://example.org/{endpoint.name}/{number + 1}"
    if lower.endswith("time"):
        return f"{8 + number % 7:02d}:30:00"
    if lower.endswith("mailaddress"):
        return f"{endpoint.singular.lower()}{number + 1}@example.org"
    if lower.endswith("surname"):
        return world.pick(LAST_NAMES, 94, endpoint.number, number)
    if lower.endswith(("firstname", "middlename")):
        return world.pick(FIRST_NAMES["Female"], 95, endpoint.number, number, len(name))
    if name in PERSON_TEXTS:
        return PERSON_TEXTS[name]
    if name == "code":
        return f"{endpoint.singular[:3].upper()}{number + 1:03d}"
    if lower.endswith(("identifier", "id", "code", "number")):
        return f"{endpoint.singular[:4].upper()}-{number + 1:04d}"
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    return f"{words.capitalize()} {number + 1}"


def _items(district: District, endpoint: Endpoint, name: str, number: int) -> list[Body]:
    """One plausible entry for a collection that must not be empty."""
    world = district.world
    if name == "categories":
        category = CATEGORIES.get(endpoint.name, "Other")
        uri = world.uri("educationOrganizationCategory", category)
        return [{"educationOrganizationCategoryDescriptor": uri}]
    if name == "addresses":
        return [address(world, number)]
    entry = name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s")
    target = world.store.model.descriptor_for(f"{entry}Descriptor")
    if target is not None:
        return [{f"{entry}Descriptor": world.some_uri(target, endpoint.number, number)}]
    if name in REFERRED_ITEMS:
        return [{f"{entry}Reference": ref} for ref in _candidates(district, f"ed-fi/{name}")[:1]]
    return []
