"""The warehouse: raw tables that dbt reads, and the ledger that moves with their rows."""
