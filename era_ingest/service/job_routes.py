"""Jobs over HTTP: hand in a book, see how it stands, follow it, cancel it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import PurePath
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import UploadFile

from era_ingest.errors import PermanentError, TransientError
from era_ingest.pipelines.jobs import JobState
from era_ingest.pipelines.posted import MAX_NAME_BYTES, PostedBook, check_landed, check_posted
from era_ingest.pipelines.submission import Job
from era_ingest.service.job_bodies import AcceptedJob, JobBody, JobPage, show_job
from era_ingest.service.parts import Parts, parts_of
from era_ingest.service.problems import MAX_ERRORS, Problem, ProblemPlace

MAX_PRIORITY = 1_000
MAX_PAGE = 100
MAX_KEY_CHARS = 255
MAX_STREAMS = 100
"""Jobs that are followed at once, at most."""
LOOK_EVERY_S = 1.0
"""How often a job that is followed is looked at."""
KEEP_ALIVE_S = 15.0
LONGEST_STREAM_S = 3_600.0
"""A stream ends after so long; whoever follows connects again, as browsers do by themselves."""
_EVER_CHANGING: dict[str, Any] = {
    "seconds": True,
    "seconds_left": True,
    "stages": {"__all__": {"seconds_left"}},
}
"""What alone is no change that followers are told."""
_SUFFIXES = {"application/json": "json", "text/markdown": "md", "text/plain": "txt"}
_BY_SUFFIX = {"json": "json", "md": "md", "markdown": "md", "txt": "txt"}

router = APIRouter(prefix="/v1", tags=["jobs"])


_BODIES: dict[str, Any] = {
    "requestBody": {
        "description": "The book itself; no body: it lies in the landing folder already.",
        "content": {
            "application/json": {"schema": {"description": "doctrine JSON, as in the landing folder"}},
            "text/markdown": {"schema": {"type": "string"}},
            "text/plain": {"schema": {"type": "string"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
        },
    }
}


@router.post("/ingest", status_code=202, summary="Hand in a book", openapi_extra=_BODIES)
async def ingest(
    request: Request,
    response: Response,
    book: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=MAX_NAME_BYTES,
            description=f"the book's name, {MAX_NAME_BYTES} bytes at most; of a file: its own, unless given",
        ),
    ] = None,
    priority: Annotated[int, Query(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="greater goes first")] = 0,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1, max_length=MAX_KEY_CHARS, description="posted again with it, it is the same job"
        ),
    ] = None,
) -> AcceptedJob:
    """Check a book, put it into the landing folder and request its run."""
    parts = parts_of(request)
    with parts.jobs.posting():
        posted = await _read(request, parts, book)
        accepted = await parts.jobs.submit(
            posted, priority=priority, key=idempotency_key, caller=request.state.caller
        )
    status_url = f"/v1/jobs/{accepted.job_id}"
    response.headers["Location"] = status_url
    return AcceptedJob(
        job_id=accepted.job_id,
        status_url=status_url,
        events_url=f"{status_url}/events",
        book=posted.name,
        repeated=accepted.repeated,
        defects=[
            ProblemPlace(pointer=defect.pointer, reason=defect.reason, detail=defect.detail)
            for defect in posted.defects[:MAX_ERRORS]
        ],
    )


async def _read(request: Request, parts: Parts, name: str | None) -> PostedBook:
    """Return the book of a request, checked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    root, options = parts.settings.landing_dir, parts.options
    if kind == "multipart/form-data":
        async with request.form(max_files=2, max_fields=2) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile) or not file.filename or len(form.multi_items()) != 1:
                raise PermanentError(
                    "A multipart body holds one book as a file, in the part `file`, and no more."
                )
            suffix = _BY_SUFFIX.get(PurePath(file.filename).suffix[1:].lower())
            stem, data = PurePath(file.filename).stem, await file.read()
    else:
        suffix, stem, data = _SUFFIXES.get(kind), None, await request.body()
        if not data:
            return await asyncio.to_thread(check_landed, root, _named(name), options)
    if suffix is None:
        raise HTTPException(
            415, "A book is JSON, Markdown (.md) or plain text (.txt), itself or as multipart."
        )
    return await asyncio.to_thread(check_posted, root, _named(name, stem), suffix, data, options)


def _named(*names: str | None) -> str:
    """Return the first name that is given."""
    name = next((name for name in names if name is not None), None)
    if name is None:
        raise PermanentError("Name the book: `?book=NAME`.")
    return name


@router.get("/jobs", summary="List jobs")
async def list_jobs(
    request: Request,
    state: Annotated[list[JobState] | None, Query(description="only these")] = None,
    book: Annotated[list[str] | None, Query(max_length=MAX_PAGE, description="only of these books")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    after: Annotated[UUID | None, Query(description="the last job of the page before")] = None,
) -> JobPage:
    """Return jobs, the latest first. By state, a page may be short and still have a next one."""
    books = None if book is None else [name.replace("\0", "") for name in book]
    jobs, following = await parts_of(request).jobs.page(limit=limit, after=after, books=books, states=state)
    url = None if following is None else str(request.url.include_query_params(after=following).query)
    return JobPage(jobs=[show_job(job) for job in jobs], next=None if url is None else f"/v1/jobs?{url}")


@router.get("/jobs/{job_id}", summary="How a job stands")
async def get_job(request: Request, job_id: UUID) -> JobBody:
    """Return how a job stands: under one id, however often its run was tried again."""
    return show_job(await parts_of(request).jobs.find(job_id))


@router.delete("/jobs/{job_id}", status_code=202, summary="Cancel a job")
async def cancel_job(request: Request, job_id: UUID) -> JobBody:
    """Take a job out of the queue, or end its run; 409 where it has ended already."""
    return show_job(await parts_of(request).jobs.cancel(job_id))


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "an event `job` at each change"},
        204: {"description": "it has ended, and the last event was seen"},
    },
)
async def follow_job(
    request: Request,
    job_id: UUID,
    last_event_id: Annotated[
        str | None, Header(max_length=MAX_KEY_CHARS, description="of the event that was seen last")
    ] = None,
) -> Response:
    """Send how a job stands, at once and at each change, as server-sent events, until it has ended.

    Who comes back with the event's id is sent what changed since; 204 once that is nothing more, ever: a browser then
    stops to come back.
    """
    parts = parts_of(request)
    job = await parts.jobs.find(job_id)
    if job.run.state.ended and last_event_id == _event_id(job):
        return Response(status_code=204)
    if parts.streams >= MAX_STREAMS:
        wait = {"Retry-After": "5"}
        return Problem(
            503, "too_many_streams", "Too many jobs are followed at once.", headers=wait
        ).response()
    return StreamingResponse(_events(parts, job, last_event_id), media_type="text/event-stream")


async def _events(parts: Parts, job: Job, last: str | None) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    end, silent_since = loop.time() + LONGEST_STREAM_S, loop.time()
    with parts.streaming():
        while True:
            event_id = _event_id(job)
            if event_id != last:
                yield f"event: job\nid: {event_id}\ndata: {show_job(job).model_dump_json()}\n\n"
                last, silent_since = event_id, loop.time()
            elif loop.time() - silent_since >= KEEP_ALIVE_S:
                yield ": still there\n\n"
                silent_since = loop.time()
            if job.run.state.ended or loop.time() >= end or await parts.ends_within(LOOK_EVERY_S):
                return
            with suppress(TransientError):  # the database is away: the stream goes on when it is back
                job = await parts.jobs.find(job.row.id)


def _event_id(job: Job) -> str:
    """Return what tells how a job stands from how it stood before."""
    shown = show_job(job).model_dump_json(exclude=_EVER_CHANGING)
    return blake2b(shown.encode(), digest_size=8).hexdigest()
