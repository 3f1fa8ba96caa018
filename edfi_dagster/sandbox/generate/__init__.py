"""A believable school district for one ODS, deterministic by seed, in any size."""

from __future__ import annotations

import gc
from collections.abc import Mapping

from edfi_dagster.sandbox.generate.classes import generate_classes
from edfi_dagster.sandbox.generate.people import generate_staff, generate_students
from edfi_dagster.sandbox.generate.programs import generate_conduct, generate_programs
from edfi_dagster.sandbox.generate.remainder import generate_remainder
from edfi_dagster.sandbox.generate.schools import generate_district
from edfi_dagster.sandbox.generate.testing import generate_testing
from edfi_dagster.sandbox.generate.world import World, descriptor_records
from edfi_dagster.sandbox.store import Store

__all__ = ["populate"]


def populate(store: Store, *, seed: int, rows: Mapping[str, int]) -> None:
    """Fill an empty store. ``rows`` sets numbers of rows by endpoint; ``students`` scales the rest.

    Raises ``KeyError`` for an endpoint that the data standard does not have.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing generated forms cycles, and looking for them costs a third of the time
    try:
        world = World(store, seed, rows)
        with world.loader:
            _generate(world)
    finally:
        if collecting:
            gc.enable()


def _generate(world: World) -> None:
    for path, records in descriptor_records(world.store).items():
        world.add(path, records)
    district = generate_district(world)
    generate_students(district)
    generate_staff(district)
    generate_classes(district)
    generate_programs(district)
    generate_conduct(district)
    generate_testing(district)
    generate_remainder(district)
