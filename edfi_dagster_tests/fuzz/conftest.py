from __future__ import annotations

import pytest

from edfi_dagster_tests.fuzz.inputs import tried


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tried:
        told = ", ".join(f"{what} {number:,}" for what, number in sorted(tried.items()))
        terminalreporter.write_line(f"inputs fuzzed: {sum(tried.values()):,} ({told})")
