"""Jobs over HTTP, and the test as the daemon and its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.execution.api import execute_run

from era_ingest.definitions import defs
from era_ingest.orchestration.jobs import JOB_TAG
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import build_doctrine

if TYPE_CHECKING:
    from era_ingest_tests.service_kit import Answer, Served


def post(served: Served, book: str, document: Any = None, **headers: str) -> Answer:
    """Hand in a book; None: made up from its name."""
    body = build_doctrine(book) if document is None else document
    return served.ask("POST", f"/v1/ingest?book={book}", body, headers=headers)


def execute(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Execute a run of the queue as a worker of the daemon would; return whether it succeeded."""
    job = dg.reconstructable(ingest_job_for_workers)
    return execute_run(job, take(instance, run_id), instance, raise_on_error=False).success


def take(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """Take a run out of the queue, once it stands there, as the daemon would; return it."""
    starting = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, queued(instance, run_id).job_name)
    instance.report_dagster_event(starting, run_id)
    started = instance.get_run_by_id(run_id)
    assert started is not None
    return started


def queued(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """Wait until a run stands in the queue; return it."""
    in_queue = dg.RunsFilter(run_ids=[run_id], statuses=[dg.DagsterRunStatus.QUEUED])
    assert Waiter().until(lambda: instance.get_runs_count(in_queue) == 1, 60)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def ingest_job_for_workers() -> dg.JobDefinition:
    return defs.resolve_job_def("ingest")


def status(served: Served, job_id: str) -> dict[str, Any]:
    answer = served.ask("GET", f"/v1/jobs/{job_id}")
    assert answer.status == 200
    return dict(answer.json)


def request_retry(instance: dg.DagsterInstance, run_id: str) -> str:
    """Put a retry of a failed run into the queue, with the tags that the daemon gives it."""
    parent = instance.get_run_by_id(run_id)
    assert parent is not None
    tags = {name: value for name, value in parent.tags.items() if name != "dagster/will_retry"}
    retry = instance.create_run_for_job(
        defs.resolve_job_def("ingest"),
        run_config=dict(parent.run_config),
        tags={**tags, "dagster/parent_run_id": run_id, "dagster/root_run_id": run_id},
        parent_run_id=run_id,
        root_run_id=run_id,
        remote_job_origin=parent.remote_job_origin,
        job_code_origin=parent.job_code_origin,
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    assert retry.tags[JOB_TAG] == run_id
    instance.add_run_tags(run_id, {"dagster/auto_retry_run_id": retry.run_id})
    instance.submit_run(retry.run_id, workspace=None)  # type: ignore[arg-type]
    return retry.run_id
