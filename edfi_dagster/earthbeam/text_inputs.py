"""A run's text files as Earthmover is given them: in UTF-8, whatever encoding they came in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edfi_dagster.earthbeam.bundle import input_variable
from edfi_dagster.earthbeam.encodings import UTF_8, EncodingError, encoding_of, write_as_utf_8
from edfi_dagster.earthbeam.errors import BundleError
from edfi_dagster.earthbeam.rendering import Composed

# What Earthmover reads as text and takes an encoding for, or UTF-8, by extension. XML and HTML say theirs themselves.
_TEXT_TYPES = {
    "csv": "csv", "tsv": "tsv", "txt": "fixedwidth", "fwf": "fixedwidth", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl",
}  # fmt: skip


@dataclass(frozen=True)
class TextInputs:
    """``files`` are the inputs by variable, copies where the file is not UTF-8; ``encodings`` what the text files were in.

    ``declaring`` are the sources whose YAML says an encoding: it is UTF-8 now.
    """

    files: Mapping[str, Path]
    encodings: Mapping[str, str] = field(default_factory=dict)
    declaring: frozenset[str] = frozenset()


def text_inputs(composed: Composed, inputs: Mapping[str, Path], folder: Path) -> TextInputs:
    """Decide on each text file among ``inputs``, and write those that are not UTF-8 below ``folder``.

    Raises BundleError for a file whose encoding nobody can tell.
    """
    files, encodings, declaring = dict(inputs), {}, set()
    for variable, file in inputs.items():
        declared = {}
        for source, settings in _readers(composed, variable, inputs):
            declared[source] = str(settings["encoding"]) if settings.get("encoding") else None
        if not declared:
            continue
        encoding = encodings[variable] = _encoding(variable, file, declared)
        declaring |= {source for source, said in declared.items() if said is not None}
        if encoding != UTF_8:
            files[variable] = folder / variable / file.name
            write_as_utf_8(file, encoding, files[variable])
    return TextInputs(files, encodings, frozenset(declaring))


def source_file(settings: Mapping[str, Any], inputs: Mapping[str, Path]) -> str | None:
    """The variable of the input that a source reads; None if it reads another file."""
    variable = input_variable(settings)
    if variable in inputs:
        return variable
    return next((name for name, path in inputs.items() if str(path) == settings.get("file")), None)


def file_type(settings: Mapping[str, Any], file: Path) -> str:
    """Earthmover's name of what a source reads; empty for what is no text."""
    return str(settings.get("type") or _TEXT_TYPES.get(file.suffix.lower().lstrip("."), ""))


def _readers(
    composed: Composed, variable: str, inputs: Mapping[str, Path]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sources that read an input as text."""
    for source, settings in composed.block("sources").items():
        is_text = file_type(settings, inputs[variable]) in _TEXT_TYPES.values()
        if is_text and source_file(settings, inputs) == variable:
            yield str(source), settings


def _encoding(variable: str, file: Path, declared: Mapping[str, str | None]) -> str:
    said = {one for one in declared.values() if one is not None}
    if len(said) > 1:
        raise BundleError(
            f"{variable}: sources {', '.join(declared)} declare {', '.join(sorted(said))} for one file; let them agree"
        )
    try:
        return encoding_of(file, next(iter(said), None))
    except EncodingError as error:
        raise BundleError(f"{variable}: {error}") from None
