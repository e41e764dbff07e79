"""From a book that was handed in to a run in the queue, and back: how its job stands.

A job is accepted in one short transaction (`admission`). Then its file is put into the landing folder; from there on
the job is kept, the caller is told, and its run is requested (which takes Dagster 40 ms). What a crash leaves half done
`Jobs.recover` completes, or forgets where nobody was told of it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from era_ingest.errors import EraError, NotFoundError, StoreUnavailableError
from era_ingest.logs import bound
from era_ingest.pipelines.admission import Admission, is_old
from era_ingest.pipelines.arrivals import root_of
from era_ingest.pipelines.jobs import JobState, RunView, Ticket
from era_ingest.pipelines.posted import find_landed, place
from era_ingest.store import jobs as rows
from era_ingest.store.catalogue import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from concurrent.futures import Executor
    from uuid import UUID

    from era_ingest.pipelines.jobs import RunFacts, RunQueue
    from era_ingest.pipelines.posted import PostedBook
    from era_ingest.pipelines.services import Services
    from era_ingest.store.jobs import JobRow

MAX_REQUESTS = 1
"""Runs that are requested at once: each keeps a core busy, which callers wait for too."""
YIELD_S = 1.0
"""How long a request lets posts go first, seconds."""
MAX_SCANNED_PAGES = 5
"""Pages that one listing by state looks through, at most."""
_GONE = "Its run is no longer among Dagster's records."

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """A job and how it stands.

    Attributes:
        row: What was asked for.
        run: How its runs stand.
    """

    row: JobRow
    run: RunView


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that was accepted.

    Attributes:
        job_id: Its id.
        repeated: True if it was accepted before, with the same idempotency key.
    """

    job_id: UUID
    repeated: bool = False


class Jobs:
    """Accepts jobs and tells how they stand.

    Args:
        services: Open services.
        queue: Where runs are requested; its calls go to threads.
        threads: Those threads.
    """

    def __init__(self, services: Services, queue: RunQueue, threads: Executor) -> None:
        self._services = services
        self._queue = queue
        self._threads = threads
        self._admission = Admission(services, self._waiting)
        self._few = asyncio.Semaphore(MAX_REQUESTS)
        self._posting = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._requests: dict[UUID, asyncio.Task[None]] = {}

    async def submit(
        self, book: PostedBook, *, priority: int = 0, key: str | None = None, caller: str = ""
    ) -> Accepted:
        """Accept a book and put it into the landing folder; its run is requested at once, beside the caller.

        Args:
            book: What was handed in.
            priority: Greater ones go first.
            key: The caller's idempotency key: posted again with it, a book is the same job.
            caller: Whose key it is.

        Raises:
            ConflictError: The key came with another book before.
            QueueFullError: As many runs wait as may.
            StoreUnavailableError: Disk or database are away; nothing was accepted.
        """
        key_digest = None if key is None else sha256(f"{caller}\0{key}".encode()).digest()
        body_digest = sha256(book.digest + priority.to_bytes(8, "big", signed=True)).digest()
        admitted = await self._admission.admit(
            book, priority=priority, key_digest=key_digest, body_digest=body_digest
        )
        if not admitted.placed:
            with bound(job=str(admitted.job_id), book=book.name):
                await self._place(book, admitted.job_id)
                _log.info("book accepted", extra={"priority": priority})
                self._request_soon(admitted.job_id, book.slug, priority)
        return Accepted(admitted.job_id, admitted.repeated)

    @contextmanager
    def posting(self) -> Iterator[None]:
        """Say that a post is being worked on as long as the context: runs are requested once there is none.

        A request keeps the process busy for as long as ten posts do, and nobody waits for it.
        """
        self._posting += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._posting -= 1
            if not self._posting:
                self._calm.set()

    async def aclose(self) -> None:
        """Wait for the runs that are being requested."""
        await asyncio.gather(*self._requests.values())

    async def find(self, job_id: UUID) -> Job:
        """Return a job.

        Raises:
            NotFoundError: There is none of this id.
        """
        async with self._services.database.connection() as conn:
            row = await rows.find(conn, job_id)
        if row is None:
            raise NotFoundError(f"There is no job {job_id}.")
        return (await self._with_runs([row]))[0]

    async def page(
        self,
        *,
        limit: int,
        after: UUID | None = None,
        books: Collection[str] | None = None,
        states: Collection[JobState] | None = None,
    ) -> tuple[list[Job], UUID | None]:
        """Return jobs, the latest first, and where the next page begins (None: this is the last).

        By state, a bounded number of jobs is looked through: a page may be short and still have a next one.
        """
        found: list[Job] = []
        for _ in range(MAX_SCANNED_PAGES):
            async with self._services.database.connection() as conn:
                listed = await rows.page(conn, limit=limit, after=after, books=books)
            for job in await self._with_runs(listed):
                if states is None or job.run.state in states:
                    found.append(job)
                    if len(found) == limit:
                        more = len(listed) == limit or job.row.id != listed[-1].id
                        return found, job.row.id if more else None
            if len(listed) < limit:
                return found, None
            after = listed[-1].id
        return found, after

    async def cancel(self, job_id: UUID) -> Job:
        """Take a job out of the queue, or end it; return how it stands then.

        Its book stays in the landing folder, and no sensor asks for it as it is there.

        Raises:
            NotFoundError: There is none of this id.
            ConflictError: It has ended already.
        """
        job = await self.find(job_id)
        if job_id in self._requests:
            await asyncio.shield(self._requests[job_id])
        await self._in_thread(partial(self._queue.cancel, str(job_id)))
        await self._leave_alone(job.row.book)
        return await self.find(job_id)

    async def _waiting(self) -> set[str]:
        return await self._in_thread(self._queue.waiting)

    async def ping(self) -> None:
        """Ask the queue for nothing.

        Raises:
            StoreUnavailableError: It does not answer.
        """
        await self._in_thread(self._queue.waiting)

    async def facts(self) -> RunFacts:
        """Return how all runs together stand.

        Raises:
            StoreUnavailableError: The queue does not answer.
        """
        return await self._in_thread(self._queue.facts)

    async def recover(self) -> int:
        """Request the runs of jobs that a crash left behind, forget those of which nobody was told; return how many."""
        async with self._services.database.connection() as conn:
            old = [
                row for row in await rows.unrequested(conn) if is_old(row) and row.id not in self._requests
            ]
        for row in old:
            if row.placed_at is not None:
                await self._request(row.id, row.slug, row.priority)
            else:
                async with self._services.database.connection() as conn:
                    await rows.withdraw(conn, row.id)
        return len(old)

    async def _place(self, book: PostedBook, job_id: UUID) -> None:
        try:
            await self._in_thread(partial(place, self._services.settings.landing_dir, book))
        except EraError:
            async with self._services.database.connection() as conn:
                await rows.withdraw(conn, job_id)
            raise
        async with self._services.database.connection() as conn:
            if not await rows.mark_placed(conn, job_id):
                raise StoreUnavailableError(
                    "Another post of this book failed; nothing was accepted. Try again."
                )

    def _request_soon(self, job_id: UUID, slug: str, priority: int) -> None:
        if job_id not in self._requests:
            self._requests[job_id] = asyncio.create_task(self._request(job_id, slug, priority))

    async def _leave_alone(self, book: str) -> None:
        """Note in the catalogue that nothing is to be done for a book as it lies in the landing folder."""
        root = root_of(self._services.settings)
        source = await self._in_thread(partial(find_landed, root, book))
        if source is not None:
            async with self._services.database.connection() as conn:
                await mark_done(conn, [source], [], datetime.now(UTC))

    async def _request(self, job_id: UUID, slug: str, priority: int) -> None:
        """Request a job's run; what fails is left for `recover`."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(YIELD_S):
                    await self._calm.wait()
            async with self._few:
                await self._in_thread(partial(self._queue.request, Ticket(str(job_id), slug, priority)))
            async with self._services.database.connection() as conn:
                await rows.mark_requested(conn, job_id)
        except Exception:  # noqa: BLE001 - a task's boundary; it is recorded, and the job is kept
            with bound(job=str(job_id)):
                _log.exception("the job's run cannot be requested just now; it will be tried again")
        finally:
            self._requests.pop(job_id, None)

    async def _with_runs(self, listed: Sequence[JobRow]) -> list[Job]:
        views = await self._views([row.id for row in listed])
        return [Job(row, views.get(str(row.id)) or _without_run(row)) for row in listed]

    async def _views(self, ids: Sequence[UUID]) -> dict[str, RunView]:
        if not ids:
            return {}
        return await self._in_thread(partial(self._queue.views, [str(job_id) for job_id in ids]))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _without_run(row: JobRow) -> RunView:
    """Return how a job stands that has no run: not yet, or no longer."""
    if row.requested_at is None:
        return RunView(JobState.QUEUED, 0, (), str(row.id), 0)
    return RunView(JobState.FAILED, 0, (), str(row.id), 0, error=_GONE)
