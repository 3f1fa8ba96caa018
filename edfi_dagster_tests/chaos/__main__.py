"""A long chaos run.

    python -m edfi_dagster_tests.chaos --minutes 10 --seed 1 --storage embedded --mode 7.3

Ends with 0 only where the warehouse equals the ODS after one calm delta, nothing that ran broke down otherwise than it
may, and nothing that was written beside the data holds a student's value, a secret or a token. A seed that fails does
the same again; when its requests, writes and kills meet is not part of it. ``--keep`` leaves everything in a folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from edfi_dagster_tests.chaos.campaign import Campaign
from edfi_dagster_tests.chaos.gate import running_gate
from edfi_dagster_tests.chaos.storage import opened


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, help="so many instead of minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--storage", choices=["embedded", "production"], default="embedded")
    parser.add_argument("--mode", choices=["5.3", "6.1", "7.3"], default="7.3", help="the ODS's version")
    parser.add_argument("--keep", type=Path, help="an empty or new folder")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    with ExitStack() as running:
        folder = given.keep or Path(running.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        gate = running.enter_context(running_gate())
        storage = running.enter_context(opened(given.storage))
        campaign = running.enter_context(
            closing(Campaign(folder.absolute(), given.seed, given.mode, gate, storage))
        )
        try:
            campaign.live(lambda n: n < given.rounds if given.rounds else time.monotonic() < until)
            campaign.settle()
        finally:
            print(campaign.report.told(), flush=True)


if __name__ == "__main__":
    main()
