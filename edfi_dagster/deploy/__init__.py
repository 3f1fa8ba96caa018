"""Where the platform runs: files for Kubernetes and for one host, and what several hosts ask of a configuration."""

from edfi_dagster.deploy.files import KINDS, FileExists, write_deployment
from edfi_dagster.deploy.hosts import HOSTS_VARIABLE, check_stores

__all__ = ["HOSTS_VARIABLE", "KINDS", "FileExists", "check_stores", "write_deployment"]
