"""Jobs: what was handed in over HTTP, and how it stands; the same pieces again while somebody looks."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from era_ingest.pipelines.jobs import JobState
from era_ingest.service.job_bodies import JobBody, show_job
from era_ingest.service.pages.paging import MAX_FILTER_CHARS, with_query, without_nul
from era_ingest.service.pages.reading import reading
from era_ingest.service.pages.rendering import render
from era_ingest.service.parts import Parts, parts_of
from era_ingest.store import browsing

LISTED = 6
"""Jobs on the front page."""
PAGE_LINES = 25

router = APIRouter(include_in_schema=False)


@router.get("/jobs")
async def list_jobs(
    request: Request,
    state: JobState | None = None,
    book: Annotated[str, Query(max_length=MAX_FILTER_CHARS)] = "",
    after: UUID | None = None,
) -> Response:
    """List jobs, the latest first."""
    parts, name = parts_of(request), without_nul(book).strip()
    await _see(parts)
    jobs, following = await parts.jobs.page(
        limit=PAGE_LINES,
        after=after,
        books=[name] if name else None,
        states=None if state is None else [state],
    )
    query = {"state": state.value if state else "", "book": name}
    return render(
        request,
        "jobs.html",
        jobs=[show_job(job) for job in jobs],
        state=state,
        states=list(JobState),
        book=name,
        later=None if following is None else with_query("/jobs", {**query, "after": str(following)}),
        first=after is None,
        live=with_query("/jobs/piece", {**query, "after": str(after or "")}),
    )


@router.get("/jobs/latest")
async def latest_piece(request: Request) -> Response:
    """Show the latest jobs, as they stand on the front page."""
    return render(request, "pieces/jobs.html", jobs=await list_latest(parts_of(request), LISTED))


@router.get("/jobs/piece")
async def list_piece(
    request: Request,
    state: JobState | None = None,
    book: Annotated[str, Query(max_length=MAX_FILTER_CHARS)] = "",
    after: UUID | None = None,
) -> Response:
    """Show a page of jobs, without what stands around it."""
    name = without_nul(book)
    jobs, _ = await parts_of(request).jobs.page(
        limit=PAGE_LINES,
        after=after,
        books=[name] if name else None,
        states=None if state is None else [state],
    )
    return render(request, "pieces/jobs.html", jobs=[show_job(job) for job in jobs])


@router.get("/jobs/{job_id}")
async def show(request: Request, job_id: UUID) -> Response:
    """Show one job."""
    return await _show(request, job_id, "job.html")


@router.get("/jobs/{job_id}/piece")
async def show_piece(request: Request, job_id: UUID) -> Response:
    """Show how one job stands, without what stands around it."""
    return await _show(request, job_id, "pieces/job.html")


async def list_latest(parts: Parts, count: int) -> list[JobBody]:
    """Return the latest jobs."""
    jobs, _ = await parts.jobs.page(limit=count)
    return [show_job(job) for job in jobs]


async def _show(request: Request, job_id: UUID, template: str) -> Response:
    parts = parts_of(request)
    await _see(parts)
    job = show_job(await parts.jobs.find(job_id))
    async with reading(parts) as conn:
        slug = (await browsing.book_slugs(conn, [job.book])).get(job.book)
    return render(request, template, job=job, slug=slug)


async def _see(parts: Parts) -> None:
    """Find out within seconds, not half a minute, that the database is away.

    Raises:
        StoreUnavailableError: It is.
    """
    async with reading(parts):
        pass
