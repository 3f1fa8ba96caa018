"""What is raised when the configuration, or something it names, is not right."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(Exception):
    """The configuration is wrong; the text names file, place, what is wrong and what would be right."""


class UndeclaredPair(ConfigError):
    """A (tenant, year) was asked for that the configuration does not declare."""


class Problems(ValueError):
    """Several mistakes found by one validator, each with its path below the value that was validated."""

    def __init__(self, problems: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, path))}: {text}" for path, text in self.problems))
