"""A module imports only from lower floors, and Dagster only from floor 4 up (design: the folders show the way of the data)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import edfi_dagster

ROOT = Path(edfi_dagster.__file__).parent
FLOORS = {
    "config": 0,
    "airflow": 0.5,
    "deploy": 1,
    "ods": 1,
    "sandbox": 1,
    "lake": 2,
    "warehouse": 3,
    "earthbeam": 3.5,
    "extract": 3.5,
    "health": 3.5,
    "dagster_private": 4,
    "resources": 4,
    "assets": 5,
    "checks": 5,
    "io_managers": 6,
    "automation": 7,
    "definitions": 8,
    "cli": 9,
}
FIRST_DAGSTER_FLOOR = 4


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts != ("__init__.py",):
            yield path, room(parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_every_module_stands_on_a_known_floor() -> None:
    assert {name for _, name in modules()} <= set(FLOORS)


def test_no_module_imports_from_a_higher_floor() -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, here in modules()
        for name in imports(path)
        if name.startswith("edfi_dagster.") and FLOORS[name.split(".")[1]] > FLOORS[here]
    ]
    assert upward == []


def test_dagster_stays_above_the_third_floor() -> None:
    low = [
        str(path.relative_to(ROOT))
        for path, here in modules()
        for name in imports(path)
        if name.split(".")[0].startswith("dagster") and FLOORS[here] < FIRST_DAGSTER_FLOOR
    ]
    assert low == []


def test_only_one_module_imports_what_dagster_does_not_export() -> None:
    private = {
        here
        for path, here in modules()
        for name in imports(path)
        if name.startswith(("dagster._", "dagster_shared"))
    }
    assert private == {"dagster_private"}
