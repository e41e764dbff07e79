"""Dagster only: assets, partitions, resources, sensors, schedules, checks, storage."""
