"""What a command prints of a run while it goes on: our own sentences on standard error, none of Dagster's events."""

import logging
import sys
from typing import Any

import dagster as dg


@dg.logger
def terse(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Sentences of the run as they are said; warnings are marked."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_ours)
    handler.setFormatter(_Sentence())
    logger = logging.Logger("edfi_dagster")
    logger.addHandler(handler)
    return logger


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
