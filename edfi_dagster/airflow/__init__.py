"""Floor 0: the switch from the Airflow project (``edu_edfi_airflow``): its YAML and connections become a configuration.

Reads files alone: nothing of Airflow is imported, and nothing is contacted.
"""

from edfi_dagster.airflow.connections import Connection, read_connections
from edfi_dagster.airflow.documents import read_yaml
from edfi_dagster.airflow.report import Report
from edfi_dagster.airflow.translation import Airflow, Translation, translate

__all__ = ["Airflow", "Connection", "Report", "Translation", "read_connections", "read_yaml", "translate"]
