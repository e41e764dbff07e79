"""The Dagster runs of ``era ingest``: executed in this process, on work that is under way elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import dagster as dg
import sqlalchemy.exc

from era_ingest.errors import PermanentError, StoreUnavailableError
from era_ingest.orchestration.assets.domains import domain_index, minister_files
from era_ingest.orchestration.assets.ingest import load_books
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.jobs import (
    INGEST_JOB,
    MINISTERS_JOB,
    domains_config,
    ingest_job,
)
from era_ingest.orchestration.partitions import BOOKS, DOMAINS, PARTITION_TAG, register, unregister
from era_ingest.orchestration.patience import PATIENCE_S
from era_ingest.store.embedded.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from dagster_shared.error import SerializableErrorInfo

    from era_ingest.pipelines.work import BookWork, Era
    from era_ingest.settings import Settings

_MINISTERS_JOB = dg.define_asset_job(
    MINISTERS_JOB, selection=dg.AssetSelection.assets("minister_files", "domain_index").without_checks()
)
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
LAUNCHED_BY = {"era/launched_by": "era ingest"}


def record_runs(settings: Settings, order: Future[BookWork], era: Era) -> tuple[str, ...]:
    """Record what is on its way as runs of ``ingest`` and, if domains were built, of ``ministers``; return their ids.

    Args:
        settings: Where the instance is.
        order: What is loaded; waited for when everything is ready.
        era: Waits for what came of it.

    Raises:
        EraError: Dagster's storage cannot be opened, or the work failed.
    """
    definitions = dg.Definitions(
        assets=[load_books, minister_files, domain_index],
        jobs=[ingest_job, _MINISTERS_JOB],
        resources={"era": era},
        executor=dg.in_process_executor,
    )
    ingest, ministers_job = (definitions.resolve_job_def(name) for name in (INGEST_JOB, MINISTERS_JOB))
    with _open_patiently(settings) as instance:
        work = order.result()
        register(instance, BOOKS, work.slugs)
        config = {
            "books": list(work.slugs),
            "removed": list(work.removed),
            "force": work.force,
            "retry_refused": work.retry_refused,
        }
        run_ids = [
            _execute(ingest, instance, config={"ops": {"load_books": {"config": config}}}, run_id=work.run_id)
        ]
        ministers, indexes = era.build_ministers(None), era.refresh_indexes(None)
        files = list(ministers.published)
        domains = [*files, *(report.domain for report in indexes)]
        if domains:
            register(instance, DOMAINS, domains)
            run_ids.append(
                _execute(
                    ministers_job,
                    instance,
                    config=domains_config(files=files, indexes=[report.domain for report in indexes]),
                    tags={PARTITION_TAG: domains[0]},
                )
            )
            empty = {report.domain for report in indexes if report.view is None}
            unregister(instance, DOMAINS, empty)
    return tuple(run_ids)


def _open_patiently(settings: Settings) -> dg.DagsterInstance:
    """Open the instance, also while the database restarts: the work beside us waits for it too.

    Raises:
        EraError: It cannot be opened, or not within a minute.
    """
    for waited_s in Waiter().attempts(PATIENCE_S):
        try:
            return open_instance(settings, capture_prints=False)
        except StoreUnavailableError:
            if waited_s >= PATIENCE_S:
                raise
    raise AssertionError


def _execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    *,
    config: Mapping[str, Any],
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Execute one job in this process; return its run's id.

    A step that fails for what the work itself says (``dg.Failure``) is told by the outcome.

    Raises:
        PermanentError: A check found wrong rows, or Dagster itself failed.
        KeyboardInterrupt: Ctrl-C, which Dagster took for the run's end.
    """
    try:
        result = job.execute_in_process(
            instance=instance,
            run_config={**SILENT, **config},
            run_id=run_id,
            tags={**LAUNCHED_BY, **(tags or {})},
            raise_on_error=False,
        )
    except (dg.DagsterError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise PermanentError(
            f"Dagster could not record the run: {str(error).strip()}. What was loaded is safe; run `era doctor`."
        ) from error
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data is None:
                _raise(result.run_id, failure.error)
        elif event.is_job_failure and event.job_failure_data.first_step_failure_event is None:
            _raise(result.run_id, event.job_failure_data.error)  # between two steps, or before the first
    return result.run_id


def _raise(run_id: str, error: SerializableErrorInfo | None) -> NoReturn:
    """Raise what ended a run from outside of the work."""
    if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
        raise KeyboardInterrupt
    reason = error.message.strip() if error is not None else "no reason given"
    raise PermanentError(f"The Dagster run {run_id} failed: {reason}. See it in `era dev`.")
