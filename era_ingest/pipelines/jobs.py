"""Jobs as callers see them, and the run queue as the service sees it: all it has to know of what is behind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class JobState(StrEnum):
    """How a job stands."""

    QUEUED = "queued"
    """It waits for its turn, or for another attempt."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTLY = "partly"
    """The book is loaded; something of it stands in the quarantine."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it stays as it is."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far one stage is.

    Attributes:
        name: The stage, by its asset's name.
        unit: What is counted: ``books`` or ``texts``.
        done: How many are done.
        total: How many there are; None: not known yet.
        seconds: How long it was busy, once that is known.
        started_at: When it started, seconds since 1970; None: not yet.
        seconds_left: Estimate while the run goes on; None: unknown, or done.
    """

    name: str
    unit: str
    done: int
    total: int | None
    seconds: float | None = None
    started_at: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """How the runs of one job stand.

    Attributes:
        state: How the job stands.
        progress: Percent done, 0 to 100; never less than it was.
        stages: Each stage's progress, in their order.
        run_id: The latest run.
        attempts: How many runs there were.
        started_at: When the latest run started, seconds since 1970; None: not yet.
        ended_at: When it ended.
        seconds_left: Estimate; None: unknown.
        quarantined: What of the book stands in the quarantine; known at the end.
        error: Why the latest run failed, in words.
    """

    state: JobState
    progress: int
    stages: tuple[StageProgress, ...]
    run_id: str
    attempts: int
    started_at: float | None = None
    ended_at: float | None = None
    seconds_left: float | None = None
    quarantined: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a run is requested for.

    Attributes:
        job_id: The job's id, which becomes the first run's id.
        slug: The book's partition key.
        priority: Greater ones go first.
    """

    job_id: str
    slug: str
    priority: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How all runs together stand. Times are seconds since 1970.

    Attributes:
        counts: Runs by status, in lower case.
        waiting: Runs that wait in the queue.
        waiting_since: When the first of those was put there; None: none waits.
        last_success: When a run of each job succeeded last; jobs that never did are left out.
        last_made: When each asset was materialized last; likewise.
    """

    counts: Mapping[str, int]
    waiting: int
    waiting_since: float | None
    last_success: Mapping[str, float]
    last_made: Mapping[str, float]


class RunQueue(Protocol):
    """The queue of runs and the record of what became of them. Its calls block: call them from a thread."""

    def waiting(self) -> set[str]:
        """Return the ids of all runs that wait in the queue, whoever asked for them."""
        ...

    def request(self, ticket: Ticket) -> None:
        """Put a run into the queue; asked again for the same job, do nothing."""
        ...

    def views(self, job_ids: Collection[str]) -> dict[str, RunView]:
        """Return how jobs stand; those that have no run are left out."""
        ...

    def facts(self) -> RunFacts:
        """Return how all runs together stand; some ten short queries."""
        ...

    def cancel(self, job_id: str) -> None:
        """Take a job's run out of the queue, or end it.

        Raises:
            ConflictError: It has ended already, or never had a run.
        """
        ...
