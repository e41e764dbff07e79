"""``era ingest``: the pipelines at once, in a thread; Dagster after a head start, recording real runs.

Importing Dagster takes a second of CPU time, which the pipelines would have to share with it (one interpreter lock). So
what is done within the head start is recorded when it is done; what takes longer is recorded as it goes on. Where
nothing changed, Dagster is not imported at all and no run is recorded.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from era_ingest.pipelines.indexes import DomainIndexReport, refresh_domain_indexes
from era_ingest.pipelines.landing import Arrivals, resolve_paths
from era_ingest.pipelines.loading import audit_loaded, load_found
from era_ingest.pipelines.ministers import MinistersReport, build_ministers
from era_ingest.pipelines.outcome import IngestOutcome
from era_ingest.pipelines.report import BookStatus
from era_ingest.pipelines.services import open_services
from era_ingest.pipelines.work import BookWork, Loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from era_ingest.core.audit import Finding
    from era_ingest.pipelines.outcome import IngestOptions
    from era_ingest.pipelines.report import Progress
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings

HEAD_START_S = 5.0
"""How long the pipelines have the process for themselves; then Dagster is imported beside them, seconds."""
TELL_S = 1.0
"""How often the recorded run is told how far the books are, seconds."""
_QUIET = frozenset({BookStatus.UNCHANGED, BookStatus.PENDING})


def run_ingest(
    paths: Sequence[Path], settings: Settings, options: IngestOptions, report: Callable[[Progress], None]
) -> IngestOutcome:
    """Load books from paths, rebuild what depends on them, and record it as Dagster materializations.

    Args:
        paths: Landing folders, books' folders, or files.
        settings: The process settings.
        options: Switches of the ingestion.
        report: Told how far it is, from another thread, at most five times a second.

    Returns:
        What came of it; what stopped the loading early stands in its ``ingest.error``.

    Raises:
        ConfigurationError: A path, a setting or the database is not fit for use.
        StoreUnavailableError: The database or a disk is away. What was finished is kept.
    """
    started = time.monotonic()
    work = LocalWork(paths, settings, options, report)
    with work:
        arrivals = work.arrivals.result()
        run_ids: tuple[str, ...] = ()
        if not work.nothing_to_record(HEAD_START_S):
            from era_ingest.orchestration.recorded import record_runs

            run_ids = record_runs(settings, work)
        loaded = work.loaded.result()
        ministers = work.ministers.result()
    return IngestOutcome(
        ingest=loaded.report,
        ministers=ministers,
        landing_defects=arrivals.defects,
        work_seconds=work.seconds,
        seconds=time.monotonic() - started,
        run_ids=run_ids,
        held_back=arrivals.held_back,
    )


class LocalWork:
    """The pipelines in a thread of their own; its futures are done one after another.

    It is the `Era` of the runs that record it: their steps wait for what is on its way already.

    Attributes:
        run_id: The Dagster run that loads the books, and what provenance rows name.
        arrivals: What lies at the paths.
        loaded: What became of the books.
        ministers: What became of the minister files; None if the loading stopped before them.
        indexes: What became of views and indexes.

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
        self.run_id = str(uuid4())
        self.options = options
        self.arrivals: Future[Arrivals] = Future()
        self.loaded: Future[Loaded] = Future()
        self.ministers: Future[MinistersReport | None] = Future()
        self.indexes: Future[list[DomainIndexReport]] = Future()
        self._paths = paths
        self._settings = settings
        self._tell = report
        self._progress: Progress | None = None
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

    def nothing_to_record(self, head_start_s: float) -> bool:
        """Say whether all is over within a time and nothing was changed; raise what went wrong before that."""
        futures: tuple[Future[Any], ...] = (self.loaded, self.ministers, self.indexes)
        if wait(futures, timeout=head_start_s).not_done:
            return False
        report = self.loaded.result().report
        if any(book.status not in _QUIET for book in report.books) or report.error:
            return False
        ministers = self.ministers.result()
        return not (ministers and ministers.published) and not self.indexes.result()

    # The Era of the recorded runs: what they ask for is what this does anyway.

    @property
    def retries(self) -> bool:
        """Never: the work is done once, and a person waits for it."""
        return False

    def load(self, work: BookWork, report: Callable[[Progress], None]) -> Loaded:
        """Wait for the books; tell meanwhile how far they are."""
        del work
        while not self.loaded.done():
            wait([self.loaded], timeout=TELL_S)
            if self._progress is not None:
                report(self._progress)
        return self.loaded.result()

    def build_ministers(self, domains: tuple[str, ...] | None) -> MinistersReport:
        """Wait for the minister files."""
        del domains
        return self.ministers.result() or MinistersReport()

    def refresh_indexes(self, domains: tuple[str, ...] | None) -> Sequence[DomainIndexReport]:
        """Wait for views and indexes."""
        del domains
        return self.indexes.result()

    def audit_ministers(self, domains: tuple[str, ...] | None) -> Sequence[Finding]:
        """Nothing: the files were written from these rows a moment ago; `era verify` compares them."""
        del domains
        return ()

    def _report(self, progress: Progress) -> None:
        self._progress = progress
        self._tell(progress)

    def _run(self) -> None:
        futures: tuple[Future[Any], ...] = (self.arrivals, self.loaded, self.ministers, self.indexes)
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: whoever waits for a result gets it
            first = _first_of(error)
            cause: BaseException = CancelledError() if isinstance(first, asyncio.CancelledError) else first
            for future in futures:
                if not future.done():
                    future.set_exception(cause)
        finally:
            self._ended = time.monotonic()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with open_services(self._settings) as services:
            arrivals = await resolve_paths(
                services, self._paths, run_id=self.run_id, allow_removals=self.options.allow_removals
            )
            self.arrivals.set_result(arrivals)
            work = BookWork(
                slugs=tuple(source.slug for source in arrivals.sources),
                removed=arrivals.removed,
                run_id=self.run_id,
                force=self.options.force,
                retry_refused=self.options.retry_refused,
            )
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


def _first_of(error: BaseException) -> BaseException:
    """Return the error that ended the others, where tasks ran together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
