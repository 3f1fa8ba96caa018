"""What is raised when the configuration, or something it names, is not right."""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str) -> str:
    """Return `text` with a space for each character that is none to read: line ends, escapes, halves of surrogates."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8. Not so the name of a file that was given one in another encoding."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


class ConfigError(Exception):
    """The configuration is wrong; the text names file, place, what is wrong and what would be right.

    Its lines are as they are given; a key of the file that stands in one cannot speak to a terminal.
    """

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(map(printable, text.split("\n"))))


class UndeclaredPair(ConfigError):
    """A (tenant, year) was asked for that the configuration does not declare."""


class Problems(ValueError):
    """Several mistakes found by one validator, each with its path below the value that was validated."""

    def __init__(self, problems: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, path))}: {text}" for path, text in self.problems))
