"""era_ingest: a Dagster asset graph that turns books into searchable vectors and minister files."""
