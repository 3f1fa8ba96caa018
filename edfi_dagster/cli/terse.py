"""What a command prints of a run while it goes on: our own sentences on standard error, none of Dagster's events."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from rich.status import Status

from edfi_dagster.cli.screen import Screen


@dg.logger
def terse(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Sentences of the run as they are said; warnings are marked."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_ours)
    handler.setFormatter(_Sentence())
    logger = logging.Logger("edfi_dagster")
    logger.addHandler(handler)
    return logger


@contextmanager
def progress(subject: str) -> Iterator[dg.LoggerDefinition]:
    """The logger ``terse`` of a run that, on a terminal, also counts what the run has materialized so far."""
    with Screen(stderr=True).status(f"{subject}: starting") as status:
        counter = _Counter(subject, status)

        @dg.logger
        def counting(init_context: dg.InitLoggerContext) -> logging.Logger:
            logger: logging.Logger = terse.logger_fn(init_context)
            logger.addHandler(counter)
            return logger

        yield counting


class _Counter(logging.Handler):
    """Tells a status how many assets were materialized, and which was the last."""

    def __init__(self, subject: str, status: Status) -> None:
        super().__init__()
        self._subject, self._status, self._count = subject, status, 0

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is not None and event.is_step_materialization and event.asset_key:
            self._count += 1
            last = event.asset_key.to_user_string()
            self._status.update(f"{self._subject}: {self._count} assets materialized, last {last}")


def _is_ours(record: logging.LogRecord) -> bool:
    meta: dict[str, Any] = getattr(record, "dagster_meta", {})
    # Checks that a run did not get to are no fault of it.
    unasked = "did not yield or return expected outputs" in str(meta.get("orig_message", ""))
    return not meta.get("dagster_event") and not unasked


class _Sentence(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        said = str(meta.get("orig_message", record.getMessage()))
        return f"Warning: {said}" if record.levelno == logging.WARNING else said
