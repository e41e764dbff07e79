"""Jobs in JSON: what the routes answer with, and the page shows."""

from datetime import UTC, datetime
from uuid import UUID

from pydantic import BaseModel, Field

from era_ingest.pipelines.jobs import JobState
from era_ingest.pipelines.submission import Job
from era_ingest.service.problems import MAX_ERRORS, ProblemPlace


class AcceptedJob(BaseModel):
    """A book that will be loaded."""

    job_id: UUID
    status_url: str
    events_url: str
    book: str
    repeated: bool = Field(description="it was accepted before, with the same Idempotency-Key")
    defects: list[ProblemPlace] = Field(
        description=f"what of it will be refused while the rest is loaded; at most {MAX_ERRORS}"
    )


class Stage(BaseModel):
    """How far one stage is."""

    name: str
    unit: str = Field(description="what is counted: books or texts")
    done: int
    total: int | None = Field(description="null: not known yet")
    started_at: datetime | None = Field(description="stages overlap; null: not yet")
    seconds: float | None = Field(description="how long it was busy; null: not known yet")
    seconds_left: float | None = Field(description="an estimate; null: unknown, or done")


class JobBody(BaseModel):
    """How a job stands."""

    job_id: UUID
    book: str
    state: JobState
    progress: int = Field(ge=0, le=100, description="percent done")
    stages: list[Stage]
    priority: int
    accepted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None = Field(description="since it started; null: not yet")
    seconds_left: float | None = Field(description="an estimate; null: unknown")
    attempts: int = Field(description="runs that there were")
    run_id: str = Field(description="the latest run in Dagster")
    quarantined: int | None = Field(description="what of the book stands in the quarantine")
    error: str | None = Field(description="why the latest run failed")


class JobPage(BaseModel):
    """Jobs, the latest first."""

    jobs: list[JobBody]
    next: str | None = Field(description="URL of the next page; null: this is the last")


def show_job(job: Job) -> JobBody:
    """Return a job for JSON."""
    run = job.run
    ended = run.ended_at if run.ended_at is not None else datetime.now(UTC).timestamp()
    return JobBody(
        job_id=job.row.id,
        book=job.row.book,
        state=run.state,
        progress=run.progress,
        stages=[
            Stage(
                name=s.name,
                unit=s.unit,
                done=s.done,
                total=s.total,
                started_at=_time(s.started_at),
                seconds=s.seconds,
                seconds_left=s.seconds_left,
            )
            for s in run.stages
        ],
        priority=job.row.priority,
        accepted_at=job.row.accepted_at,
        started_at=_time(run.started_at),
        ended_at=_time(run.ended_at),
        seconds=None if run.started_at is None else round(max(0.0, ended - run.started_at), 3),
        seconds_left=run.seconds_left,
        attempts=run.attempts,
        run_id=run.run_id,
        quarantined=run.quarantined,
        error=run.error,
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
