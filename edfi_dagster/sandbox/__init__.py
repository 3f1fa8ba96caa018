"""A local ODS: the Ed-Fi API over generated data, in any version from Ed-Fi 2 to ODS/API 7.3 (``generations``).

``SandboxServer`` runs it in this process over real HTTP; ``python -m edfi_dagster.sandbox`` as its own.
"""

from edfi_dagster.sandbox.errors import ApiError
from edfi_dagster.sandbox.faults import Fault, Faults
from edfi_dagster.sandbox.server import DEFAULT_ODS, SandboxServer, serve
from edfi_dagster.sandbox.site import RequestInfo
from edfi_dagster.sandbox.store import Store, Transaction

__all__ = [
    "DEFAULT_ODS",
    "ApiError",
    "Fault",
    "Faults",
    "RequestInfo",
    "SandboxServer",
    "Store",
    "Transaction",
    "serve",
]
