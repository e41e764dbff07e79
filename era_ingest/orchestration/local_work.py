"""The pipelines of ``era ingest``, in a thread of their own: load what lies at some paths, and what stands upon it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from era_ingest.orchestration.followed import FollowedWork
from era_ingest.pipelines.indexes import refresh_domain_indexes
from era_ingest.pipelines.landing import Arrivals, resolve_paths
from era_ingest.pipelines.loading import audit_loaded, load_found
from era_ingest.pipelines.ministers import build_ministers
from era_ingest.pipelines.report import BookStatus
from era_ingest.pipelines.services import open_services
from era_ingest.pipelines.work import BookWork, Loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from era_ingest.pipelines.outcome import IngestOptions
    from era_ingest.pipelines.report import BookReport, Progress
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings

_QUIET = frozenset({BookStatus.UNCHANGED, BookStatus.PENDING})


class LocalWork(FollowedWork):
    """The pipelines in a thread of their own.

    Attributes:
        run_id: The Dagster run that loads the books, and what provenance rows name.
        arrivals: What lies at the paths.

    Args:
        paths: Landing folders, books' folders, or files.
        settings: The process settings.
        options: Switches of the ingestion.
        report: Told how far it is.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        settings: Settings,
        options: IngestOptions,
        report: Callable[[Progress], None],
    ) -> None:
        super().__init__()
        self.run_id = str(uuid4())
        self.options = options
        self.arrivals: Future[Arrivals] = Future()
        self._paths = paths
        self._settings = settings
        self._tell = report
        self._noteworthy = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="era-ingest", daemon=True)
        self._started = time.monotonic()
        self._ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long the pipelines took so far."""
        return (self._ended or time.monotonic()) - self._started

    def __enter__(self) -> Self:
        """Set to work."""
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for the end; stop at once if the caller failed or was interrupted."""
        if exception[0] is not None and self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it ended by itself meanwhile, and its loop is closed
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def is_worth_recording(self) -> bool:
        """Wait until anything is changed, or all is over; say whether anything was.

        Raises:
            EraError: What went wrong before that.
        """
        self._noteworthy.wait()
        if self._ended is None:
            return True
        report = self.loaded.result().report
        if _are_noteworthy(report.books) or report.error:
            return True
        ministers = self.ministers.result()
        return bool(ministers and ministers.published) or bool(self.indexes.result())

    def _report(self, progress: Progress) -> None:
        self.progress = progress
        if progress.texts_known or _are_noteworthy(progress.books):
            self._noteworthy.set()
        self._tell(progress)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: whoever waits for a result gets it
            first = _first_of(error)
            cause: BaseException = CancelledError() if isinstance(first, asyncio.CancelledError) else first
            if not self.arrivals.done():
                self.arrivals.set_exception(cause)
            self.fail(cause)
        finally:
            self._ended = time.monotonic()
            self._noteworthy.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with open_services(self._settings) as services:
            arrivals = await resolve_paths(
                services, self._paths, run_id=self.run_id, allow_removals=self.options.allow_removals
            )
            work = BookWork(
                slugs=tuple(source.slug for source in arrivals.sources),
                removed=arrivals.removed,
                run_id=self.run_id,
                force=self.options.force,
                retry_refused=self.options.retry_refused,
            )
            self.order.set_result(work)
            self.arrivals.set_result(arrivals)
            found = {source.slug: source for source in arrivals.sources}
            loaded = await load_found(services, work, found, arrivals.removed, self._report)
            await self._follow_up(services, work, loaded)

    async def _follow_up(self, services: Services, work: BookWork, loaded: Loaded) -> None:
        """Audit what was loaded; bring what stands upon the tables up to date, if all of it was loaded."""
        complete = loaded.report.error is None

        async def audit() -> None:
            self.loaded.set_result(await audit_loaded(services, work, loaded))

        async def build() -> None:
            self.ministers.set_result(await build_ministers(services) if complete else None)

        async def index() -> None:
            self.indexes.set_result(await refresh_domain_indexes(services) if complete else [])

        async with asyncio.TaskGroup() as group:
            for step in (audit, build, index):
                group.create_task(step())


def _are_noteworthy(books: Sequence[BookReport]) -> bool:
    return any(book.status not in _QUIET for book in books)


def _first_of(error: BaseException) -> BaseException:
    """Return the error that ended the others, where tasks ran together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
