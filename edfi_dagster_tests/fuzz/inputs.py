"""Inputs that nobody would write and somebody will send, and how many of them a run tries.

A run is the same every time. ``EDFI_DAGSTER_FUZZ=50`` tries fifty times as many, others each time, and tells how many.
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

T = TypeVar("T", bound=Callable[..., None])

TIMES = int(os.environ.get("EDFI_DAGSTER_FUZZ", "1"))
tried: Counter[str] = Counter()
"""What was fuzzed → how many inputs."""

SECONDS = 20.0
"""An input that takes longer hangs; a busy machine must not seem to."""


def fuzzed(examples: int) -> Callable[[T], T]:
    options = settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=timedelta(seconds=SECONDS),
        suppress_health_check=list(HealthCheck),
    )
    large = pytest.mark.filterwarnings("ignore:Generating overly large repr")
    return lambda test: large(options(test))


# -- values ------------------------------------------------------------------------------------------------

ODD_TEXTS = st.sampled_from(
    [
        "", " ", "..", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "a\x00b", "x\r\nSet-Cookie: a=b", "\x1b[31mred",
        "'; DROP TABLE students; --", '"', "${jndi:x}", "{{ 7*7 }}", "%s%n", "\u202e", "\ud800", "\U0001f600", "NaN", "null",
        "9" * 5000, "-1", "1e999", "2025-02-30", "x" * 70_000, "id", "Id",
    ]
)  # fmt: skip
ODD_NUMBERS = st.sampled_from(
    [
        0,
        -1,
        2**31,
        2**63 - 1,
        2**63,
        2**64,
        -(2**63) - 1,
        10**40,
        1e308,
        float("inf"),
        float("nan"),
        -0.0,
        0.5,
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), ODD_NUMBERS, st.integers(), ODD_TEXTS, st.text(st.characters(), max_size=20)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(ODD_TEXTS, st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=8,
)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a document."""
    below = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in below:
        yield document, key
        yield from places(value)


@st.composite
def spoiled(draw: st.DrawFn, document: Any) -> Any:
    """The document with some of its values replaced, repeated, wrapped or taken away."""
    spoilt = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(spoilt))
        if not found:
            return draw(VALUES)
        container, key = draw(st.sampled_from(found))
        match draw(st.sampled_from(["replace", "replace", "take", "wrap", "repeat", "rename"])):
            case "take":
                del container[key]
            case "wrap":
                container[key] = [container[key]]
            case "repeat" if isinstance(container, list):
                container.append(container[key])
            case "rename" if isinstance(container, dict):
                container[draw(ODD_TEXTS)] = container.pop(key)
            case _:
                container[key] = draw(VALUES)
    return spoilt


# -- bytes -------------------------------------------------------------------------------------------------

DEEP = 20_000
BROKEN = st.sampled_from(
    [
        b"", b" ", b"null", b"[]", b"{}", b"[[]]", b"[{}]", b'"', b"[" * DEEP, b'{"a":' * DEEP, b"[" * 900 + b"]" * 900,
        b"[" * DEEP + b"]" * DEEP, b"\xff\xfe[\x00]\x00", b"\xef\xbb\xbf[]", b"<html>503</html>", b"\x00" * 10, b"9" * 6000,
        b'[{"id":"\xff"}]', b'[{"id":"\\ud800"}]', b'[{"id":"a"}]x', b'[{"id":"a"},]', b"[1e999]", b"[NaN]", b'{"a":1e999}',
    ]
)  # fmt: skip


def encoded(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=True).encode()


@st.composite
def bodies(draw: st.DrawFn, document: Any) -> bytes:
    """What may come instead of a document: another one, or bytes that are none."""
    match draw(st.sampled_from(["spoiled", "spoiled", "spoiled", "any", "broken", "damaged"])):
        case "spoiled":
            return encoded(draw(spoiled(document)))
        case "any":
            return encoded(draw(VALUES))
        case "broken":
            return draw(BROKEN)
    body = encoded(document)
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.sampled_from([b"", b"\xff", b"\x00", b"{", b'"', b"\xef\xbb\xbf", body]))
