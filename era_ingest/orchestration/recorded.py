"""The Dagster runs of ``era ingest``: executed in this process, on work that is under way already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from era_ingest.orchestration.assets.domains import domain_index, minister_files
from era_ingest.orchestration.assets.ingest import load_books
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.jobs import INGEST_JOB, MINISTERS_JOB, ingest_job, ministers_job
from era_ingest.orchestration.partitions import BOOKS, register

if TYPE_CHECKING:
    from collections.abc import Mapping

    from era_ingest.orchestration.local_run import LocalWork
    from era_ingest.settings import Settings

SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
LAUNCHED_BY = {"era/launched_by": "era ingest"}


def record_runs(settings: Settings, work: LocalWork) -> tuple[str, ...]:
    """Record what is on its way as runs of ``ingest`` and, if domains were built, of ``ministers``; return their ids.

    Raises:
        EraError: Dagster's storage cannot be opened, or the work failed.
    """
    definitions = dg.Definitions(
        assets=[load_books, minister_files, domain_index],
        jobs=[ingest_job, ministers_job],
        resources={"era": work},
        executor=dg.in_process_executor,
    )
    with open_instance(settings) as instance:
        arrivals = work.arrivals.result()
        register(instance, BOOKS, [source.slug for source in arrivals.sources])
        config = {
            "books": [source.slug for source in arrivals.sources],
            "removed": list(arrivals.removed),
            "force": work.options.force,
            "retry_refused": work.options.retry_refused,
        }
        run_ids = [_execute(definitions, INGEST_JOB, instance, {"load_books": config}, work.run_id)]
        ministers = work.ministers.result()
        if (ministers and ministers.published) or work.indexes.result():
            run_ids.append(_execute(definitions, MINISTERS_JOB, instance, {}, None))
    return tuple(run_ids)


def _execute(
    definitions: dg.Definitions,
    job: str,
    instance: dg.DagsterInstance,
    ops: Mapping[str, Mapping[str, Any]],
    run_id: str | None,
) -> str:
    """Execute one job in this process; a step that fails is the run's failure, not ours: we report it ourselves."""
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        run_config={**SILENT, "ops": {name: {"config": config} for name, config in ops.items()}},
        run_id=run_id,
        tags=LAUNCHED_BY,
        raise_on_error=False,
    )
    return result.run_id
