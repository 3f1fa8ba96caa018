"""What a translation took over, what it could not carry over, and where the secrets are that it did not write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edfi_dagster.config.errors import printable

_NAMED = 3
_NOTHING_TO_DO = ("none", "not needed", "no switch", "always")


class Left(NamedTuple):
    """Something that could not be carried over: the file it stands in, what it is, and what to do."""

    file: str
    what: str
    instead: str


@dataclass
class Report:
    """Filled while translating. ``file`` is the file that a path belongs to unless another is named."""

    file: str = "airflow_config.yml"
    taken: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    remarks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    left: dict[Left, list[str]] = field(default_factory=lambda: defaultdict(list))
    secrets: dict[str, str] = field(default_factory=dict)

    def take(self, old: str, new: str, place: str) -> None:
        """``old`` became ``new``; ``place`` is ``tenant/year``, or the name of a block or file."""
        _add(self.taken[old, new], place)

    def leave(self, what: str, instead: str, path: str, file: str | None = None) -> None:
        """``what``, at ``path`` of a file, is not carried over; ``instead`` says why and what to do."""
        _add(self.left[Left(file or self.file, printable(what), printable(instead))], printable(path))

    def remark(self, text: str, place: str) -> None:
        """Something that was carried over, but that a person should look at."""
        _add(self.remarks[text], place)

    def secret(self, variable: str, origin: str) -> dict[str, str]:
        """Note what belongs into a variable; the value to write into the configuration."""
        self.secrets[variable] = origin
        return {"env": variable}

    def comments(self) -> Iterator[str]:
        """What could not be carried over, as lines of the written file; what asks for nothing comes last."""
        for left, paths in sorted(
            self.left.items(), key=lambda item: item[0].instead.startswith(_NOTHING_TO_DO)
        ):
            yield f"# {left.file}, {some(paths)}: {left.what}: {left.instead.replace('`', '')}"

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "taken": [{"from": old, "to": new, "at": at} for (old, new), at in self.taken.items()],
            "remarks": [{"text": text, "at": at} for text, at in self.remarks.items()],
            "secrets": [{"variable": name, "from": origin} for name, origin in self.secrets.items()],
            "left": [{**left._asdict(), "at": at} for left, at in self.left.items()],
        }


def some(places: Sequence[str]) -> str:
    """The first few of many places."""
    rest = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return ", ".join(places[:_NAMED]) + rest


def _add(places: list[str], place: str) -> None:
    if place not in places:
        places.append(place)
