"""Dagster's run queue as the HTTP service sees it: `pipelines.jobs.RunQueue`.

A job is the run of its id and whatever retries Dagster made of it: they all carry the job's tag.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.api import create_execution_plan
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.tags import PRIORITY_TAG, WILL_RETRY_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from era_ingest.errors import ConflictError, StoreUnavailableError
from era_ingest.orchestration.asking import UNFINISHED
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.jobs import INGEST_JOB, JOB_TAG, books_config
from era_ingest.orchestration.partitions import BOOKS, PARTITION_TAG, build_target
from era_ingest.orchestration.run_facts import read_facts
from era_ingest.orchestration.run_views import RunViews

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.remote_origin import RemoteJobOrigin

    from era_ingest.pipelines.jobs import RunFacts, RunQueue, RunView, Ticket
    from era_ingest.settings import Settings

LAUNCHED_BY = {"era/launched_by": "era serve"}
DEFINITIONS = "era_ingest.definitions"
SENSOR = "landing_sensor"
LOCATION_KEPT_S = 30.0
"""How long the name of the daemon's code location is taken for known, seconds."""
_WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)


@contextmanager
def open_run_queue(settings: Settings, definitions: dg.Definitions) -> Iterator[RunQueue]:
    """Yield the run queue of an installation.

    Args:
        settings: The process settings.
        definitions: The graph.

    Raises:
        EraError: Dagster's storage cannot be opened.
    """
    with open_instance(settings, capture_prints=False) as instance:
        yield DagsterRunQueue(instance, definitions.resolve_job_def(INGEST_JOB))


def books_of_unfinished_jobs(instance: dg.DagsterInstance) -> set[str]:
    """Return the partition keys of the books whose jobs wait in the queue or are at work."""
    unfinished = dg.RunsFilter(tags=LAUNCHED_BY, statuses=list(UNFINISHED))
    return {run.tags[PARTITION_TAG] for run in instance.get_runs(unfinished)}


class DagsterRunQueue:
    """Runs of ``ingest``, a book each, in the queue of Dagster's daemon.

    Args:
        instance: Dagster's.
        job: The job ``ingest``.
    """

    def __init__(self, instance: dg.DagsterInstance, job: dg.JobDefinition) -> None:
        self._instance = instance
        self._job = job
        self._config = books_config(None)
        self._plan: ExecutionPlan = create_execution_plan(
            job, self._config, instance_ref=instance.get_ref(), tags={}
        )
        self._views = RunViews(instance)
        self._location = DEFINITIONS
        self._location_until = float("-inf")

    def waiting(self) -> set[str]:
        """Return the ids of all runs that wait in the queue."""
        return set(self._instance.get_run_ids(dg.RunsFilter(statuses=list(_WAITING))))

    def request(self, ticket: Ticket) -> None:
        """Put a run into the queue; one that is there already stays as it is."""
        run = self._instance.get_run_by_id(ticket.job_id)
        if run is None:
            self._instance.add_dynamic_partitions(str(BOOKS.name), [ticket.slug])
            run = self._instance.create_run_for_job(
                self._job,
                execution_plan=self._plan,
                run_id=ticket.job_id,
                run_config=self._config,
                status=dg.DagsterRunStatus.NOT_STARTED,
                tags={
                    **build_target([ticket.slug], [ticket.slug]).tags,
                    **LAUNCHED_BY,
                    JOB_TAG: ticket.job_id,
                    PRIORITY_TAG: str(ticket.priority),
                },
                remote_job_origin=self._origin(),
                job_code_origin=_code_origin(),
            )
        if run.status is dg.DagsterRunStatus.NOT_STARTED:
            # Not by the instance, which reads the run twice more. A queue needs no workspace.
            self._instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))  # type: ignore[arg-type]

    def views(self, job_ids: Collection[str]) -> dict[str, RunView]:
        """Return how jobs stand."""
        runs: dict[str, list[dg.RunRecord]] = {}
        for record in self._records(job_ids):
            runs.setdefault(record.dagster_run.tags[JOB_TAG], []).append(record)
        return {job_id: self._views.view(records) for job_id, records in runs.items()}

    def facts(self) -> RunFacts:
        """Return how all runs together stand."""
        return read_facts(self._instance)

    def cancel(self, job_id: str) -> None:
        """Take a job's run out of the queue, or end it; keep one that failed from being tried again."""
        latest = next(iter(self._records([job_id])), None)
        if latest is None:
            raise ConflictError(f"The job {job_id} has no run yet; try again in a moment.", reason="no_run")
        run = latest.dagster_run
        if run.is_complete_and_waiting_to_retry:
            self._instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "false"})
        elif run.is_finished:
            raise ConflictError(
                f"The job {job_id} has ended already ({run.status.value.lower()}).", reason="ended"
            )
        elif (
            run.status is not dg.DagsterRunStatus.CANCELING
            and not self._instance.run_coordinator.cancel_run(run.run_id)
        ):
            raise StoreUnavailableError(
                f"The run {run.run_id} cannot be reached to end it; try again in a moment."
            )

    def _records(self, job_ids: Collection[str]) -> Sequence[dg.RunRecord]:
        """Return the runs of jobs, the latest first."""
        return self._instance.get_run_records(dg.RunsFilter(tags={JOB_TAG: list(job_ids)}))

    def _origin(self) -> RemoteJobOrigin:
        """Return where the daemon finds the job: in the code location in which it evaluates our sensor."""
        if time.monotonic() >= self._location_until:
            self._location, self._location_until = self._find_location(), time.monotonic() + LOCATION_KEPT_S
        target = LoadableTargetOrigin(executable_path=sys.executable, module_name=DEFINITIONS)
        location = ManagedGrpcPythonEnvCodeLocationOrigin(target, self._location)
        return RemoteRepositoryOrigin(location, "__repository__").get_job_origin(self._job.name)

    def _find_location(self) -> str:
        sensors = [
            state
            for state in self._instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
            if state.instigator_name == SENSOR
        ]
        latest = max(sensors, key=lambda state: _last_tick(state.instigator_data), default=None)
        return latest.origin.repository_origin.code_location_origin.location_name if latest else DEFINITIONS


def _last_tick(data: object) -> float:
    return float(getattr(data, "last_tick_timestamp", None) or 0.0)


def _code_origin() -> JobPythonOrigin:
    pointer = ModuleCodePointer(DEFINITIONS, "defs")
    repository = RepositoryPythonOrigin(sys.executable, pointer, entry_point=DEFAULT_DAGSTER_ENTRY_POINT)
    return JobPythonOrigin(INGEST_JOB, repository)
