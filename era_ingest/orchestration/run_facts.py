"""How all runs together stand, by Dagster's public calls: for metrics."""

from __future__ import annotations

import dagster as dg

from era_ingest.orchestration.jobs import INGEST_JOB, LANDING_JOB, MINISTERS_JOB
from era_ingest.pipelines.jobs import RunFacts
from era_ingest.pipelines.report import Stage

JOBS = (INGEST_JOB, MINISTERS_JOB, LANDING_JOB)
ASSETS = (
    "landing_catalog",
    *(stage.value for stage in Stage),
    "quarantine",
    "minister_files",
    "domain_index",
)
WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)


def read_facts(instance: dg.DagsterInstance) -> RunFacts:
    """Return how all runs together stand; every query is short, by an index or of one row."""
    counts = {
        status.value.lower(): instance.get_runs_count(dg.RunsFilter(statuses=[status]))
        for status in dg.DagsterRunStatus
        if status is not dg.DagsterRunStatus.MANAGED  # of tests that Dagster has no more
    }
    waiting = dg.RunsFilter(statuses=list(WAITING))
    first = instance.get_run_records(waiting, limit=1, ascending=True)
    return RunFacts(
        counts=counts,
        waiting=sum(counts[status.value.lower()] for status in WAITING),
        waiting_since=first[0].create_timestamp.timestamp() if first else None,
        last_success={job: at for job in JOBS if (at := _last_success(instance, job)) is not None},
        last_made=_last_made(instance),
    )


def _last_success(instance: dg.DagsterInstance, job: str) -> float | None:
    succeeded = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
    latest = instance.get_run_records(succeeded, limit=1)
    return latest[0].end_time if latest else None


def _last_made(instance: dg.DagsterInstance) -> dict[str, float]:
    """Return when each asset was materialized last."""
    records = instance.get_asset_records([dg.AssetKey(asset) for asset in ASSETS])
    return {
        record.asset_entry.asset_key.path[-1]: record.asset_entry.last_materialization.timestamp
        for record in records
        if record.asset_entry.last_materialization is not None
    }
