"""An agency's own steps before and after a bundle: a Python function, or a command."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.process import find_tool, run_child
from edfi_dagster.earthbeam.result import BundleResult
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.warehouse.contract import Warehouse

_SECONDS = 3600.0
_CHUNK, _ROWS_AT_ONCE = 1 << 20, 200
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Shells have braces of their own, so only names that are known are filled in.
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class HookCall:
    """What a hook is told. ``folder`` is gone after the run; a preprocess hook may leave files there for it.

    ``inputs`` (variable → file) are those known before it runs. ``outputs`` and ``result`` are a postprocess hook's alone.
    A function may ``keep`` files in the lake and ``insert_rows`` into tables of the warehouse.
    """

    bundle: str
    tenant: str
    year: int
    grain: str | None
    folder: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    outputs: Path | None = None
    result: BundleResult | None = None
    lake: LakeStore | None = field(default=None, repr=False)
    warehouse: Warehouse | None = field(default=None, repr=False)

    def keep(self, file: Path, path: str) -> str:
        """Store a file in the lake as ``path`` below its root, as it is; its address there. Raises LakeError."""
        assert self.lake is not None
        with file.open("rb") as source, self.lake.writing(path) as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
        return self.lake.uri(path)

    def insert_rows(self, table: str, rows: Sequence[Mapping[str, object]]) -> int:
        """Append rows (column → value, the same columns in each) to a table that is there; all of them or none.

        ``table`` lies in the schema of the raw tables. Returns how many. Raises WarehouseError, ToolFailed.
        """
        assert self.warehouse is not None
        columns = list(rows[0]) if rows else []
        wrong = [name for name in (table, *columns) if not _NAME.fullmatch(name)]
        if wrong or any(list(row) != columns for row in rows):
            raise ToolFailed(f"rows for {table}: give the same columns in each, of letters, digits and _")
        marks = f"({', '.join('?' * len(columns))})"
        with self.warehouse.connected() as connection, connection.transaction():
            place = f"{connection.table(table)} ({', '.join(columns)})"
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                batch = rows[start : start + _ROWS_AT_ONCE]
                values = [value for row in batch for value in row.values()]
                connection.run(f"INSERT INTO {place} VALUES {', '.join([marks] * len(batch))}", values)  # noqa: S608
        return len(rows)


def run_hook(hook: str | tuple[str, ...], call: HookCall, values: Mapping[str, str]) -> dict[str, str]:
    """Call a function (``package.module:function``) with the call, or run a command's words with ``values`` filled in.

    What it returns, or prints as the JSON object in its last line, is filled into parameters and inputs by name.
    Raises ToolFailed.
    """
    returned = _called(hook, call) if isinstance(hook, str) else _command(hook, call, values)
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise ToolFailed(
            f"hook {_name(hook)} returned {type(returned).__name__}; let it return a mapping, or None"
        )
    return {str(name): str(value) for name, value in returned.items()}


def _called(hook: str, call: HookCall) -> Any:
    module, _, name = hook.partition(":")
    try:
        function: Callable[[HookCall], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ToolFailed(
            f"hook {hook} cannot be found ({error}); install its module where runs execute"
        ) from error
    try:
        return function(call)
    except Exception as error:
        # An agency's own code may raise anything, and its text may hold what stands in the file.
        raise ToolFailed(f"hook {hook} raised {type(error).__name__}; run it alone to see why") from error


def _command(hook: tuple[str, ...], call: HookCall, values: Mapping[str, str]) -> Any:
    words = [_PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word) for word in hook]
    told = {
        "EARTHBEAM_BUNDLE": call.bundle,
        "EARTHBEAM_TENANT": call.tenant,
        "EARTHBEAM_YEAR": str(call.year),
        "EARTHBEAM_GRAIN": call.grain or "",
        "EARTHBEAM_FOLDER": str(call.folder),
        **({"EARTHBEAM_OUTPUTS": str(call.outputs)} if call.outputs else {}),
        **{f"EARTHBEAM_{name}": str(path) for name, path in call.inputs.items()},
    }
    # An agency's own command gets the whole environment: it may need what reaches its files.
    ended = run_child(
        [find_tool(words[0]), *words[1:]],
        folder=call.folder,
        environment={**os.environ, **told},
        seconds=_SECONDS,
        log=call.folder / "hook.log",
    )
    if ended.code != 0:
        raise ToolFailed(f"hook {words[0]} ended with exit code {ended.code}")
    printed = ended.said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if not printed or not printed[-1].startswith("{"):
        return None
    try:
        return json.loads(printed[-1])
    except json.JSONDecodeError:
        raise ToolFailed(f"hook {words[0]} printed a last line that is no JSON object") from None


def _name(hook: str | tuple[str, ...]) -> str:
    return hook if isinstance(hook, str) else hook[0]
