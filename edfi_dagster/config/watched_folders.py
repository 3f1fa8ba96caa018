"""Folders that bundles watch: a file of one tenant and year must not be taken for another's."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import combinations
from string import Formatter
from typing import TYPE_CHECKING, NamedTuple

from edfi_dagster.config.earthbeam import InputFolder, grain_piece
from edfi_dagster.config.values import TenantYear

if TYPE_CHECKING:
    from edfi_dagster.config.models import Platform

_USUAL = "".join(map(chr, range(32, 0x250)))


class _Watched(NamedTuple):
    """One folder of one input of a bundle, for one tenant and year."""

    bundle: str
    variable: str
    pair: TenantYear
    folder: str
    pattern: str
    is_split: bool


def shared_folders(platform: Platform) -> Iterator[tuple[tuple[str, ...], str]]:
    """Inputs that would take another tenant's or year's files, as path and message; each input once.

    Folders are compared without links, `..` and case: many disks ignore case.
    """
    found: dict[str, dict[_Watched, None]] = defaultdict(dict)
    for watched in _watched(platform):
        found[_key(watched.folder)][watched] = None
    told = set()
    for places in found.values():
        for one, other in combinations(places, 2):
            if (one.bundle, one.variable) not in told and _mixes(one, other):
                told.add((one.bundle, one.variable))
                yield (
                    ("earthbeam", "bundles", one.bundle, "inputs", one.variable, "folder"),
                    _told(one, other),
                )


def _watched(platform: Platform) -> Iterator[_Watched]:
    for name, bundle in platform.earthbeam.bundles.items():
        for variable, place in bundle.inputs.items():
            if not isinstance(place, InputFolder):
                continue
            for pair in platform.bundle_pairs(name):
                for grain in bundle.grains or ("",):
                    values = {"tenant": pair.tenant, "year": str(pair.year), "grain": grain_piece(grain)}
                    folder = _filled(place.folder, values)
                    if folder is not None:
                        yield _Watched(name, variable, pair, folder, place.pattern, place.split_by_tenant)


def _filled(template: str, values: Mapping[str, str]) -> str | None:
    """The folder; None if only a hook knows it, as such a folder is not watched."""
    try:
        return Formatter().vformat(template, (), values)
    except (LookupError, ValueError, AttributeError):
        return None


def _key(folder: str) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(folder)).casefold()


def _mixes(one: _Watched, other: _Watched) -> bool:
    splits = one.is_split and other.is_split
    return one.pair != other.pair and not splits and patterns_overlap(one.pattern, other.pattern)


def _told(one: _Watched, other: _Watched) -> str:
    second = f"{other.pair}" if other.bundle == one.bundle else f"{other.pair} of bundle {other.bundle}"
    same = "one folder"
    if os.path.realpath(one.folder) != os.path.realpath(other.folder):
        same = "folders whose names differ only in case, which many disks take for one"
    return (
        f"{one.pair} and {second} would load each other's files: both watch {same}, {one.folder}; "
        "give each its own, for example with {tenant} and {year} in the path, or set split_by_tenant: true if the "
        "bundle keeps only the rows of its own tenant and year"
    )


def patterns_overlap(one: str, other: str) -> bool:
    """Whether some file name matches both patterns, which are those of `fnmatch`."""
    first, second = _tokens(one), _tokens(other)
    alphabet = _USUAL + one + other
    reached, waiting = {(0, 0)}, [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if i == len(first) and j == len(second):
            return True
        for step in _steps(first[i : i + 1], second[j : j + 1], alphabet):
            place = (i + step[0], j + step[1])
            if place not in reached:
                reached.add(place)
                waiting.append(place)
    return False


def _steps(one: Sequence[str], other: Sequence[str], alphabet: str) -> Iterator[tuple[int, int]]:
    """How far both patterns may go on from here: past an empty `*`, or past one character that both take."""
    if one == ["*"]:
        yield 1, 0
        if other:
            yield 0, 1
    if other == ["*"]:
        yield 0, 1
        if one:
            yield 1, 0
    if one and other and any(fnmatchcase(c, one[0]) and fnmatchcase(c, other[0]) for c in alphabet):
        yield 1, 1


def _tokens(pattern: str) -> list[str]:
    """A pattern in pieces that take one character each, and `*`."""
    found = []
    at = 0
    while at < len(pattern):
        end = at + 1
        if pattern[at] == "[":
            begin = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
            end = pattern.find("]", begin + 1) + 1 or at + 1
        found.append(pattern[at:end])
        at = end
    return found
