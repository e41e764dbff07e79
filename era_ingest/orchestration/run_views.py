"""How a run of one book stands, from Dagster's record of it: its status, observations, materializations, errors."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG

from era_ingest.pipelines.jobs import JobState, RunView, StageProgress
from era_ingest.pipelines.report import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_ERROR_CHARS = 2_000
MAX_EVENTS = 200
"""Events of a run that are looked at, the latest first; a run of a book has a dozen."""
MAX_KEPT = 5_000
"""Runs that have ended, of which the view is kept: it does not change."""

DECIDED_AFTER_S = 60.0
"""A failed run of which nobody said for so long whether it is tried again is not."""

_BUSY = {
    Stage.BOOKS: "read",
    Stage.CHUNKS: "chunk_files",
    Stage.EMBEDDINGS: "embed",
    Stage.VECTOR_TABLES: "load",
}
"""Under what a run's report counts the busy seconds of each stage."""
_STATES = {
    dg.DagsterRunStatus.NOT_STARTED: JobState.QUEUED,
    dg.DagsterRunStatus.QUEUED: JobState.QUEUED,
    dg.DagsterRunStatus.SUCCESS: JobState.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: JobState.FAILED,
    dg.DagsterRunStatus.CANCELED: JobState.CANCELLED,
}
_TOLD_BY = {
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
}


class RunViews:
    """Makes views of runs, and keeps those of runs that have ended.

    Args:
        instance: Dagster's.
        clock: Seconds since 1970.
    """

    def __init__(self, instance: dg.DagsterInstance, *, clock: Callable[[], float] = time.time) -> None:
        self._instance = instance
        self._clock = clock
        self._kept: OrderedDict[str, RunView] = OrderedDict()
        self._lock = threading.Lock()

    def view(self, records: Sequence[dg.RunRecord]) -> RunView:
        """Return how a job stands: by its latest run, and as far as any of its runs came.

        What a failed run finished is kept, so that the next one passes it quickly: progress does not go back.

        Args:
            records: All runs of the job, the latest first.
        """
        latest, *earlier = [self._of_run(record) for record in records]
        furthest = max((view.progress for view in earlier), default=0)
        return replace(latest, attempts=len(records), progress=max(latest.progress, furthest))

    def _of_run(self, record: dg.RunRecord) -> RunView:
        """Return how a job stands whose only run is this one."""
        run = record.dagster_run
        with self._lock:
            kept = self._kept.get(run.run_id)
        if kept is not None and not self._may_be_retried(record):
            return kept
        view = self._build(record)
        if view.state.ended:
            with self._lock:
                self._kept[run.run_id] = view
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
        return view

    def _build(self, record: dg.RunRecord) -> RunView:
        run = record.dagster_run
        state = _STATES.get(run.status, JobState.RUNNING)
        if self._may_be_retried(record):
            state = JobState.QUEUED
        facts = _Facts(self._events(run.run_id) if record.start_time or run.is_finished else [])
        if state is JobState.SUCCEEDED and facts.quarantined:
            state = JobState.PARTLY
        loaded = state in {JobState.SUCCEEDED, JobState.PARTLY}
        left = facts.seconds_left(self._clock()) if state is JobState.RUNNING else None
        return RunView(
            state=state,
            progress=100 if loaded else facts.progress,
            stages=facts.stages(record.start_time, left),
            run_id=run.run_id,
            attempts=1,
            started_at=record.start_time,
            ended_at=record.end_time if state.ended else None,
            seconds_left=left,
            quarantined=facts.quarantined,
            error=facts.error if run.status is dg.DagsterRunStatus.FAILURE else None,
        )

    def _may_be_retried(self, record: dg.RunRecord) -> bool:
        """Say whether a failed run is to be tried again, or Dagster has not decided yet: it does so after it failed."""
        run = record.dagster_run
        if run.status is not dg.DagsterRunStatus.FAILURE or WILL_RETRY_TAG in run.tags:
            return bool(run.is_complete_and_waiting_to_retry)
        undecided_s = self._clock() - (record.end_time or 0.0)
        return bool(self._instance.run_retries_enabled) and undecided_s < DECIDED_AFTER_S

    def _events(self, run_id: str) -> list[dg.EventLogEntry]:
        found = self._instance.get_records_for_run(
            run_id, of_type=_TOLD_BY, limit=MAX_EVENTS, ascending=False
        )
        return [record.event_log_entry for record in found.records]


class _Facts:
    """What the events of one run say.

    Args:
        events: The latest first.
    """

    def __init__(self, events: Sequence[dg.EventLogEntry]) -> None:
        self._made: dict[str, Mapping[str, Any]] = {}
        self._seen: Mapping[str, Any] = {}
        self._seen_at = 0.0
        self._share = 0.0
        self.error: str | None = None
        for entry in events:
            event = entry.dagster_event
            if event is not None:
                self._take(event, entry.timestamp)

    def _take(self, event: dg.DagsterEvent, timestamp: float) -> None:
        if event.is_step_failure:
            self.error = _words_of(event)
        elif event.is_run_failure:
            self.error = self.error or _bounded(event.message or "")
        elif event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
            seen = _values(event.asset_observation_data.asset_observation.metadata)
            # The share is of an estimate, which may grow while books are read; what was told stands.
            self._share = max(self._share, float(seen.get("share done", 0.0)))
            if not self._seen:
                self._seen, self._seen_at = seen, timestamp
        elif event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            made = event.step_materialization_data.materialization
            self._made.setdefault(made.asset_key.path[-1], _values(made.metadata))

    @property
    def quarantined(self) -> int | None:
        """How much of the book is in quarantine, once the run knows."""
        found = self._made.get(Stage.BOOKS.value, {}).get("quarantined")
        return None if found is None else int(found)

    @property
    def progress(self) -> int:
        """Percent done while the run goes on; never 100."""
        return min(99, int(100 * self._share))

    def seconds_left(self, now: float) -> float | None:
        """Return the estimate of the latest observation, less what has passed since."""
        left = self._seen.get("seconds left, about")
        return None if left is None else max(0.0, round(float(left) - (now - self._seen_at), 1))

    def stages(self, started_at: float | None, seconds_left: float | None) -> tuple[StageProgress, ...]:
        """Return each stage's progress.

        Args:
            started_at: When the run started: its stages overlap from there on.
            seconds_left: Of the run, while it goes on: a stage that is not done ends with it.
        """
        stages = [self._stage(stage) for stage in Stage]
        return tuple(
            replace(s, started_at=started_at, seconds_left=None if s.done == s.total else seconds_left)
            for s in stages
        )

    def _stage(self, stage: Stage) -> StageProgress:
        made = self._made.get(stage.value)
        busy = {} if made is None else made.get("run: busy seconds by stage", {})
        seconds = busy.get(_BUSY[stage])
        if stage is not Stage.EMBEDDINGS:
            return StageProgress(stage.value, "books", int(made is not None), 1, seconds)
        if made is not None:
            texts = int(made["texts embedded"]) + int(made["texts reused"])
            return StageProgress(stage.value, "texts", texts, texts, seconds)
        digits = "".join(filter(str.isdigit, str(self._seen.get("texts to do", ""))))
        done = int(self._seen.get("texts done", 0))
        return StageProgress(stage.value, "texts", done, int(digits) if digits else None)


def words_of_failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why a run failed, in words, without a traceback."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    found = instance.get_records_for_run(run_id, of_type=kinds, limit=MAX_EVENTS, ascending=False)
    return _Facts([record.event_log_entry for record in found.records]).error or ""


def _values(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    return {name: value.value for name, value in metadata.items()}


def _words_of(event: dg.DagsterEvent) -> str:
    """Return why a step failed, without a traceback."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return _bounded(data.user_failure_data.description)
    return _bounded(data.error.message if data.error else event.message or "")


def _bounded(text: str) -> str:
    words = text.strip()
    return words if len(words) <= MAX_ERROR_CHARS else words[: MAX_ERROR_CHARS - 1] + "…"
