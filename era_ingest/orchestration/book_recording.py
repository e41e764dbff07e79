"""Recording books while a run goes on: partitions turn green as they finish, and a crash forgets few of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import dagster as dg

from era_ingest.orchestration.metadata import book_metadata, run_metadata
from era_ingest.orchestration.partitions import keys_of
from era_ingest.orchestration.progress import Observer
from era_ingest.orchestration.recording import Made, has_dependents, record
from era_ingest.pipelines.report import BookStatus, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from era_ingest.pipelines.report import BookReport, IngestReport, Progress
    from era_ingest.pipelines.work import BookWork

GOOD = frozenset({BookStatus.LOADED, BookStatus.UNCHANGED})
PAUSE_S = 20.0
"""Finished books are recorded together every so many seconds."""


class BookRecorder:
    """Records each good book once an asset, and observes how far the run is.

    A book that was found unchanged is recorded where its partition was asked for (a backfill waits for it) or has no
    materialization yet. What is known only at the end, such as the size of a book's quarantine, stands at the books
    that are recorded then; the last one carries what is true of the whole run.

    Args:
        context: Of the step that loads the books.
        work: What it is to do.
        clock: Monotonic, seconds.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        work: BookWork,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._stages = [stage for stage in Stage if stage in work.stages]
        self._observe = Observer(context.log_event, clock=clock)
        self._clock = clock
        self._next = clock() + PAUSE_S
        self._asked = frozenset(keys_of(context))
        self._known = frozenset[str]() if self._asked else self._materialized()
        self._seen = 0
        self._waiting: list[BookReport] = []
        self._good: list[BookReport] = []
        self._withheld = has_dependents(context)

    def __call__(self, progress: Progress) -> None:
        """Take note of a run's progress; write what is due."""
        self._observe(progress)
        now = self._clock()
        if now >= self._next:
            self._next = now + PAUSE_S
            self._take(progress.books)
            early, self._waiting = self._waiting[:-1], self._waiting[-1:]
            self._write([(book, {}) for book in early], model=None)

    def finish(self, report: IngestReport) -> list[BookReport]:
        """Record the rest; return all books that came through and were to be recorded."""
        self._take(report.books)
        whole = run_metadata(report) if self._waiting and not self._withheld else {}
        last = len(self._waiting) - 1
        self._write(
            [(book, whole if number == last else {}) for number, book in enumerate(self._waiting)],
            model=report.model,
        )
        self._waiting = []
        return self._good

    def _take(self, books: Sequence[BookReport]) -> None:
        """Take over the books that finished since the last time; the sequence only grows."""
        fresh = [book for book in books[self._seen :] if self._is_due(book)]
        self._seen = len(books)
        self._good += fresh
        self._waiting += fresh

    def _is_due(self, book: BookReport) -> bool:
        if book.status is BookStatus.UNCHANGED:
            return book.slug in self._asked or book.slug not in self._known
        return book.status is BookStatus.LOADED

    def _write(self, books: Sequence[tuple[BookReport, dict[str, object]]], *, model: str | None) -> None:
        """Record books, unless assets of the same run stand on them: Dagster records those of itself."""
        if not books or self._withheld:
            return
        for stage in self._stages:
            made = [
                Made(book.slug, {**book_metadata(stage, book, model=model), **more}) for book, more in books
            ]
            record(self._context, stage.value, made)

    def _materialized(self) -> frozenset[str]:
        key = dg.AssetKey(Stage.VECTOR_TABLES.value)
        return frozenset(self._context.instance.get_materialized_partitions(key))
