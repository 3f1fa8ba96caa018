"""``python -m edfi_dagster.airflow``: the table of every argument and its place, printed or written."""

from edfi_dagster.airflow.arguments import markdown
from edfi_dagster.config.markdown import marked_main

marked_main("airflow arguments", markdown, __doc__ or "")
