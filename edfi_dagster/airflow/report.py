"""What a translation took over, what it left and why, and where the secrets are that it did not write."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Report:
    """Filled while translating. Places are ``tenant/year``, or the name of a block or file."""

    taken: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    remarks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    left: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    secrets: dict[str, str] = field(default_factory=dict)

    def take(self, old: str, new: str, place: str) -> None:
        """``old`` became ``new``."""
        _add(self.taken[old, new], place)

    def leave(self, old: str, instead: str, place: str) -> None:
        """``old`` has no counterpart; ``instead`` is what to do about it."""
        _add(self.left[old, instead], place)

    def remark(self, text: str, place: str) -> None:
        """Something that a person should look at."""
        _add(self.remarks[text], place)

    def secret(self, variable: str, origin: str) -> dict[str, str]:
        """Note what belongs into a variable; the value to write into the configuration."""
        self.secrets[variable] = origin
        return {"env": variable}

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "taken": [{"from": old, "to": new, "at": at} for (old, new), at in self.taken.items()],
            "left": [{"what": old, "instead": instead, "at": at} for (old, instead), at in self.left.items()],
            "remarks": [{"text": text, "at": at} for text, at in self.remarks.items()],
            "secrets": [{"variable": name, "from": origin} for name, origin in self.secrets.items()],
        }


def _add(places: list[str], place: str) -> None:
    if place not in places:
        places.append(place)
