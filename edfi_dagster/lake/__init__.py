"""The lake: what the ODS sent, as JSON lines under one path law, with a manifest for every pull."""
