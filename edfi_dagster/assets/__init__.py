"""What people see in the Dagster UI: one asset per endpoint, deletes, key changes and raw table."""
