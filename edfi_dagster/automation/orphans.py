"""Runs whose process ended with the code server it was a child of: ``python -m edfi_dagster.automation.orphans``.

Dagster does not learn of it: they stay in progress, and keep their tenant and year from running. To be run just before
the code server of a deployment that has only this one, and no other place for runs: whatever is in progress then is dead.
"""

from __future__ import annotations

import dagster as dg

IN_PROGRESS = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def end_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Report every run in progress as failed, which an instance with run retries then runs again; their ids."""
    found = instance.get_runs(dg.RunsFilter(statuses=list(IN_PROGRESS)))
    for run in found:
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, "The code server ended, and the run with it.")
        else:
            instance.report_run_failed(run, "The code server ended, and the run with it.")
    return [run.run_id for run in found]


def main() -> None:
    """As above, on the instance of DAGSTER_HOME."""
    with dg.DagsterInstance.get() as instance:
        ended = end_orphans(instance)
    print(f"runs that ended with their code server: {', '.join(ended) or 'none'}")


if __name__ == "__main__":
    main()
