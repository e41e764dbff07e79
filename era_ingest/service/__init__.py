"""The HTTP service: search and jobs for applications that know neither Dagster nor the database."""
