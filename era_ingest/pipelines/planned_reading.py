"""The reading of the books that a plan names: from files, or from the chunks that an earlier run left."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from era_ingest.core.model import Defect
from era_ingest.core.names import show_name
from era_ingest.errors import EraError, MalformedDocumentError
from era_ingest.logs import bound
from era_ingest.pipelines.chunked import ChunkedBook
from era_ingest.pipelines.planning import processing_of, unchanged_report
from era_ingest.pipelines.reading import ReadOptions, read_books
from era_ingest.pipelines.report import BookReport, BookStatus, Stage
from era_ingest.pipelines.retrying import patient
from era_ingest.store import quarantine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from era_ingest.core.source import BookSource
    from era_ingest.pipelines.planning import Plan
    from era_ingest.pipelines.report import IngestReport, IngestRequest
    from era_ingest.pipelines.services import Services

_log = logging.getLogger(__name__)

_READS_FILES = frozenset({Stage.BOOKS, Stage.CHUNKS})
_USES_VECTORS = frozenset({Stage.EMBEDDINGS, Stage.VECTOR_TABLES})


async def read_planned(
    services: Services, request: IngestRequest, plan: Plan, result: IngestReport
) -> AsyncIterator[ChunkedBook]:
    """Yield the books that need vectors or rows; report those that end here.

    A book ends here if it cannot be read (its defects go to the quarantine, and what was loaded of it before
    stays), if its bytes turn out to be those that are loaded, or if no later stage was asked for.
    """
    if request.stages & _READS_FILES:
        reading = _read_files(services, request, plan, result)
    else:
        reading = _read_chunks(services, plan, result)
    async for book in reading:
        if request.stages & _USES_VECTORS:
            yield book
        else:
            result.books.append(report_of(book, BookStatus.LOADED))


def report_of(book: ChunkedBook, status: BookStatus) -> BookReport:
    """Return a report with the book's counts."""
    record = book.record
    return BookReport(
        record.slug,
        record.name,
        status,
        chapters=record.chapters,
        entries=record.entries,
        passages=record.passages,
    )


async def _read_files(
    services: Services, request: IngestRequest, plan: Plan, result: IngestReport
) -> AsyncIterator[ChunkedBook]:
    options = ReadOptions.from_settings(services.settings, processing=processing_of(services.settings))
    waited_from = time.monotonic()
    async for source, outcome in read_books(plan.work, options):
        _add_seconds(result, "read", time.monotonic() - waited_from)
        if isinstance(outcome, EraError):
            await _refuse_book(services, request, source, outcome, result)
        elif not request.force and not request.retry_refused and _is_same(plan, outcome):
            result.books.append(unchanged_report(plan.states[source.slug]))
        else:
            if Stage.CHUNKS in request.stages:
                started = time.monotonic()
                await asyncio.to_thread(services.chunk_files.write, source.slug, outcome.table)
                _add_seconds(result, "chunk_files", time.monotonic() - started)
            if Stage.VECTOR_TABLES not in request.stages:
                await _quarantine(services, outcome.record.name, outcome.record.defects, request.run_id)
            yield outcome
        waited_from = time.monotonic()


def _is_same(plan: Plan, book: ChunkedBook) -> bool:
    """Say whether exactly these bytes are loaded under these settings, whatever the files' times say."""
    state = plan.states.get(book.record.slug)
    return (
        state is not None
        and plan.model is not None
        and state.is_loaded(plan.model.id, book.record.content_fingerprint)
    )


async def _read_chunks(services: Services, plan: Plan, result: IngestReport) -> AsyncIterator[ChunkedBook]:
    """Yield books from the chunk files that an earlier materialization wrote."""
    for source in plan.work:
        try:
            table = await asyncio.to_thread(services.chunk_files.read, source.slug)
            book = ChunkedBook.from_table(table)
        except EraError as error:
            result.books.append(_refused_report(source, error))
            continue
        yield book


async def _refuse_book(
    services: Services, request: IngestRequest, source: BookSource, error: EraError, result: IngestReport
) -> None:
    """Put a book that cannot be read into the quarantine."""
    result.books.append(_refused_report(source, error))
    pointer = error.pointer if isinstance(error, MalformedDocumentError) else ""
    reason = error.reason if isinstance(error, MalformedDocumentError) else "unreadable"
    file = error.file if isinstance(error, MalformedDocumentError) else source.path
    defect = Defect(show_name(file), pointer, reason, error.message)
    await _quarantine(services, source.name, [defect], request.run_id)


@patient
async def _quarantine(services: Services, book: str, defects: Sequence[Defect], run_id: str) -> None:
    async with services.database.connection() as conn:
        await quarantine.replace_defects(conn, book, defects, run_id=run_id)


def _refused_report(source: BookSource, error: EraError) -> BookReport:
    with bound(book=source.name, stage=Stage.BOOKS):
        _log.warning("book refused", extra={"error": error.message})
    return BookReport(source.slug, source.name, BookStatus.REFUSED, error=error.message)


def _add_seconds(result: IngestReport, stage: str, seconds: float) -> None:
    result.stage_seconds[stage] = result.stage_seconds.get(stage, 0.0) + seconds
