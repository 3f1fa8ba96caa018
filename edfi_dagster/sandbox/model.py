"""The resources and descriptors of a data standard, as the sandbox serves them.

Read from the packaged catalogue (``edfi_dagster/ods/catalogues``). Adds what a server needs to know
on top: flattened key names, the space a natural key is unique in, and what each reference points to.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import msgspec

EDUCATION_ORGANIZATIONS = "ed-fi/educationOrganizations"
CONCRETE_ORGANIZATIONS = {
    "communityOrganizations": "communityOrganizationId",
    "communityProviders": "communityProviderId",
    "educationOrganizationNetworks": "educationOrganizationNetworkId",
    "educationServiceCenters": "educationServiceCenterId",
    "localEducationAgencies": "localEducationAgencyId",
    "organizationDepartments": "organizationDepartmentId",
    "postSecondaryInstitutions": "postSecondaryInstitutionId",
    "schools": "schoolId",
    "stateEducationAgencies": "stateEducationAgencyId",
}
DESCRIPTOR_FIELDS = {
    "codeValue": "string!",
    "namespace": "string!",
    "shortDescription": "string!",
    "description": "string",
    "effectiveBeginDate": "date",
    "effectiveEndDate": "date",
}
# Flattened names of parts outside the key (the catalogue names those in it) that the standard does not form by its rule,
# mostly where two references would flatten to one name.
FLAT_NAMES = {
    "interventionStudies interventionPrescriptionReference.educationOrganizationId": (
        "interventionPrescriptionEducationOrganizationId"
    ),
    "localAccounts chartOfAccountReference.educationOrganizationId": "chartOfAccountEducationOrganizationId",
    "objectiveAssessments parentObjectiveAssessmentReference.assessmentIdentifier": "assessmentIdentifier",
    "objectiveAssessments parentObjectiveAssessmentReference.namespace": "namespace",
    "sections locationReference.classroomIdentificationCode": "locationClassroomIdentificationCode",
    "sections locationReference.schoolId": "locationSchoolId",
    "staffEducationOrganizationAssignmentAssociations"
    " employmentStaffEducationOrganizationEmploymentAssociationReference.staffUniqueId": "staffUniqueId",
    "studentInterventionAssociations cohortReference.educationOrganizationId": "cohortEducationOrganizationId",
}

Body = dict[str, Any]


@dataclass(frozen=True)
class KeyPart:
    """One value of a natural key: its flattened name, its path in a record, its type."""

    flat: str
    path: tuple[str, ...]
    type: str


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One collection. ``fields`` has types without the ``!`` that marks required ones.

    ``references`` maps a field to ``<namespace>/<endpoint>``. ``key_space`` is the name within which
    the natural key is unique: the base type for education organizations, else the endpoint itself.
    """

    number: int
    namespace: str
    name: str
    domain: str
    fields: Mapping[str, str]
    required: frozenset[str]
    key: tuple[KeyPart, ...]
    references: Mapping[str, str]
    is_descriptor: bool
    key_changes: bool

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"

    @functools.cached_property
    def singular(self) -> str:
        return singular(self.name)

    @functools.cached_property
    def arrays(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.fields.items() if kind == "array")

    @functools.cached_property
    def key_space(self) -> str:
        return EDUCATION_ORGANIZATIONS if self.is_organization else self.path

    @property
    def is_organization(self) -> bool:
        return self.namespace == "ed-fi" and self.name in CONCRETE_ORGANIZATIONS

    @property
    def tracks_changes(self) -> bool:
        """Whether ``/deletes`` and ``/keyChanges`` exist (school years have neither)."""
        return self.name != "schoolYearTypes"

    def key_values(self, body: Mapping[str, Any]) -> Body:
        """The natural key of a record by flattened names, as in ``keyValues`` of ``/deletes``."""
        return {part.flat: value_at(body, part.path) for part in self.key}

    def key_hash(self, body: Mapping[str, Any]) -> int:
        """The natural key as a number, unique within all of an ODS. Absent values count as null."""
        get = body.get
        return hash_key(
            self.key_space,
            [get(top) if part is None else (get(top) or {}).get(part) for top, part in self._key_paths],
        )

    def flat(self, reference: str, part: str) -> str:
        """The flattened name of a reference's part, as in filters and ``keyValues``."""
        named = self._key_names.get((reference, part)) or FLAT_NAMES.get(f"{self.name} {reference}.{part}")
        return named or flat_name(reference, self.references[reference], part)

    @functools.cached_property
    def _key_names(self) -> dict[tuple[str, ...], str]:
        return {part.path: part.flat for part in self.key}

    @functools.cached_property
    def _key_paths(self) -> tuple[tuple[str, str | None], ...]:
        return tuple((part.path[0], part.path[1] if len(part.path) > 1 else None) for part in self.key)


class Model:
    """All endpoints of a data standard, found by any casing of ``<namespace>/<name>``."""

    def __init__(self, standard: str) -> None:
        catalogue = json.loads(
            (files("edfi_dagster.ods") / "catalogues" / f"{standard}.json").read_text("utf-8")
        )
        self.standard = standard
        self._source = {f"{e['namespace']}/{e['name']}": e for e in catalogue["resources"]}
        self._descriptors = {f"{d['namespace']}/{d['name']}": d for d in catalogue["descriptors"]}
        self._keys: dict[str, tuple[KeyPart, ...]] = {}
        self.endpoints = tuple(self._build())
        self._by_path = {e.path.lower(): e for e in self.endpoints}
        self._by_singular = {e.singular.lower(): e for e in reversed(self.endpoints) if not e.is_descriptor}
        self._descriptor_by_name = {e.singular.lower(): e for e in self.endpoints if e.is_descriptor}

    def get(self, path: str) -> Endpoint | None:
        return self._by_path.get((path if "/" in path else f"ed-fi/{path}").lower())

    def endpoint(self, path: str) -> Endpoint:
        """The endpoint of a path; the namespace defaults to ``ed-fi``. Raises ``KeyError``."""
        found = self.get(path)
        if found is None:
            raise KeyError(f"the data standard {self.standard} has no endpoint {path!r}")
        return found

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - one model per standard lives as long as the process
    def reference_names(self, target: str) -> tuple[str, ...]:
        """The property names of a reference to ``target``, in the order of its natural key."""
        if target == EDUCATION_ORGANIZATIONS:
            return ("educationOrganizationId",)
        return tuple(part.flat for part in self._key(target))

    def reference_types(self, target: str) -> dict[str, str]:
        if target == EDUCATION_ORGANIZATIONS:
            return {"educationOrganizationId": "integer"}
        return {part.flat: part.type for part in self._key(target)}

    @functools.lru_cache(maxsize=4096)  # noqa: B019
    def reference_target(self, name: str) -> str | None:
        """What a reference nested in a collection points to, from its name (``classPeriodReference``)."""
        stem = name.removesuffix("Reference").lower()
        if stem.endswith("educationorganization"):
            return EDUCATION_ORGANIZATIONS
        for start in range(len(stem)):
            if (found := self._by_singular.get(stem[start:])) is not None:
                return found.path
        return None

    @functools.lru_cache(maxsize=4096)  # noqa: B019
    def descriptor_for(self, name: str) -> Endpoint | None:
        """The descriptor endpoint of a property (``entryGradeLevelDescriptor``: gradeLevelDescriptors)."""
        stem = name.lower()
        for start in range(len(stem)):
            if (found := self._descriptor_by_name.get(stem[start:])) is not None:
                return found
        return None

    def _build(self) -> Iterator[Endpoint]:
        number = 0
        for path, source in self._source.items():
            fields = {name: kind.rstrip("!") for name, kind in source["fields"].items()}
            yield Endpoint(
                number=number,
                namespace=source["namespace"],
                name=source["name"],
                domain=source["domain"],
                fields=fields,
                required=frozenset(n for n, kind in source["fields"].items() if kind.endswith("!")),
                key=self._key(path),
                references={n: kind[4:] for n, kind in fields.items() if kind.startswith("ref:")},
                is_descriptor=False,
                key_changes=source["key_changes"],
            )
            number += 1
        yield from self._build_descriptors(number)

    def _build_descriptors(self, number: int) -> Iterator[Endpoint]:
        for offset, source in enumerate(self._descriptors.values()):
            yield Endpoint(
                number=number + offset,
                namespace=source["namespace"],
                name=source["name"],
                domain=source["domain"],
                fields={name: kind.rstrip("!") for name, kind in DESCRIPTOR_FIELDS.items()},
                required=frozenset(n for n, kind in DESCRIPTOR_FIELDS.items() if kind.endswith("!")),
                key=(
                    KeyPart("namespace", ("namespace",), "string"),
                    KeyPart("codeValue", ("codeValue",), "string"),
                ),
                references={},
                is_descriptor=True,
                key_changes=False,
            )

    def _key(self, path: str) -> tuple[KeyPart, ...]:
        if path not in self._keys:
            source = self._source[path]
            named = zip(source["key"], source["key_names"], strict=True)
            self._keys[path] = tuple(self._key_part(source, *part) for part in named)
        return self._keys[path]

    def _key_part(self, source: Mapping[str, Any], json_path: str, flat: str) -> KeyPart:
        kind = source["fields"][json_path.split(".")[0]].rstrip("!")
        if "." not in json_path:
            return KeyPart(flat, (json_path,), kind)
        reference, part = json_path.split(".")
        return KeyPart(flat, (reference, part), self.reference_types(kind[4:])[part])


@functools.cache
def model(standard: str = "5.2") -> Model:
    return Model(standard)


@functools.cache
def load_orders(model: Model) -> dict[str, int]:
    """Load order: one more than the highest among what an endpoint refers to; descriptors come first."""
    orders = {endpoint.path: 1 for endpoint in model.endpoints if endpoint.is_descriptor}

    def order(path: str) -> int:
        if path not in orders:
            orders[path] = 2  # ends the recursion where an endpoint refers to itself
            targets = set(model.endpoint(path).references.values())
            if EDUCATION_ORGANIZATIONS in targets:
                targets.remove(EDUCATION_ORGANIZATIONS)
                targets |= {f"ed-fi/{name}" for name in CONCRETE_ORGANIZATIONS}
            orders[path] = 1 + max([1, *(order(target) for target in sorted(targets - {path}))])
        return orders[path]

    for endpoint in model.endpoints:
        order(endpoint.path)
    return orders


def flat_name(reference: str, target: str, part: str) -> str:
    """The name of a reference's part among its owner's columns: prefixed with the reference's role."""
    prefix, entity = reference.removesuffix("Reference"), singular(target.split("/")[1])
    role = prefix[: -len(entity)] if prefix.lower().endswith(entity.lower()) else ""
    if not role and entity == "program" and part == "educationOrganizationId":
        role = "program"
    if not role or part.startswith(role):
        return part
    return role + part[0].upper() + part[1:]


def singular(name: str) -> str:
    if name == "people":
        return "person"
    return f"{name[:-3]}y" if name.endswith("ies") else name[:-1]


def pascal(name: str) -> str:
    return name[:1].upper() + name[1:]


def value_at(body: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path of a record, ``None`` where it is missing."""
    value: Any = body.get(path[0])
    for step in path[1:]:
        if value.__class__ is not dict:
            return None
        value = value.get(step)
    return value


def hash_key(space: str, values: list[Any]) -> int:
    """A natural key as a signed 64-bit integer, so that the index over keys stays small.

    Case and trailing blanks do not count, as in SQL Server: there ``cou-1`` is the key of a deleted ``COU-1 ``.
    """
    text = msgspec.json.encode([space, *[v.rstrip(" ") if v.__class__ is str else v for v in values]])
    folded = text.lower() if text.isascii() else text.decode().lower().encode()
    digest = blake2b(folded, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
