"""Whether what was loaded is still right: counts beside the ODS's own, tenants that are late, schemas that changed."""
