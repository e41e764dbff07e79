"""Ingestion: books from their files to rows in the vector tables, as far as each one needs it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from era_ingest.clients.factory import build_embedder
from era_ingest.errors import EraError
from era_ingest.logs import bound
from era_ingest.pipelines.planning import plan_books
from era_ingest.pipelines.report import BookReport, BookStatus, IngestReport, Stage
from era_ingest.pipelines.retrying import patient
from era_ingest.pipelines.telemetry import Telemetry, telling
from era_ingest.store import books, models, quarantine
from era_ingest.store.domains import stale_domains

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.pipelines.report import IngestRequest, Progress
    from era_ingest.pipelines.services import Services
    from era_ingest.store.books import LoadCounts

_log = logging.getLogger(__name__)


async def ingest_books(
    services: Services, request: IngestRequest, report: Callable[[Progress], None] = lambda _progress: None
) -> IngestReport:
    """Take books through the stages; return what became of each.

    Never raises an EraError: what stops the run early stands in the report's ``error``, beside the books that
    were finished by then. All that was finished is durable.

    Args:
        services: Open services.
        request: Which books, which stages.
        report: Told how far it is, at most five times a second.
    """
    started = time.monotonic()
    result = IngestReport()
    telemetry = Telemetry(result, price=services.settings.embed_price)
    with bound(run=request.run_id):
        async with telling(services.database, telemetry, run_id=request.run_id):
            try:
                await _ingest(services, request, report, result, telemetry)
            except EraError as error:
                result.error = error
            _add_pending(request, result)
        result.seconds = time.monotonic() - started
        _log_end(result)
    return result


def _log_end(result: IngestReport) -> None:
    """Say in the log what became of the run."""
    summary = result.summary()
    facts = {name: value for name, value in summary.items() if not isinstance(value, dict)}
    facts |= {f"books_{status}": count for status, count in summary["books_by_status"].items()}
    if result.error is None:
        _log.info("books ingested", extra=facts)
    else:
        _log.error("the ingestion stopped early", extra={**facts, "error": result.error.message})


async def _ingest(
    services: Services,
    request: IngestRequest,
    report: Callable[[Progress], None],
    result: IngestReport,
    telemetry: Telemetry,
) -> None:
    for slug in request.removed:
        await _remove(services, slug, result)
    embedder = build_embedder(services.settings)
    try:
        plan = await plan_books(services, request, embedder.name)
        result.model = embedder.name
        result.books += plan.unchanged
        model = plan.model
        if plan.work:
            from era_ingest.pipelines.working import work_on  # where nothing changed nobody waits for it

            model = await work_on(services, request, plan, embedder, report, result, telemetry)
        if result.error is None and Stage.VECTOR_TABLES in request.stages and model is not None:
            await _activate(services, model)
    finally:
        await embedder.aclose()
    await _look_around(services, result)


@patient
async def _look_around(services: Services, result: IngestReport) -> None:
    """Count what each book has in quarantine, and find the domains that are out of date: from now or before.

    A run that was killed after it loaded its books did not come to tell which domains they changed.
    """
    present = [book for book in result.books if book.status is not BookStatus.REMOVED]
    async with services.database.connection() as conn:
        counts = await quarantine.counts_by_book(conn, [book.book for book in present])
        result.changed_domains |= {state.domain for state in await stale_domains(conn)}
    for book in present:
        book.quarantined = counts.get(book.book, 0)


@patient
async def _activate(services: Services, model: models.Model) -> None:
    """Move search to a model that holds every book by now."""
    async with services.database.connection() as conn:
        await models.activate_when_complete(conn, model)


@patient
async def _remove_rows(services: Services, slug: str) -> LoadCounts:
    async with services.database.connection() as conn:
        return await books.remove_book(conn, slug)


async def _remove(services: Services, slug: str, result: IngestReport) -> None:
    """Take a book out of the tables and the chunk files."""
    started = time.monotonic()
    removed = await _remove_rows(services, slug)
    await asyncio.to_thread(services.chunk_files.delete, slug)
    result.changed_domains |= removed.changed_domains
    result.books.append(
        BookReport(
            slug,
            slug,
            BookStatus.REMOVED,
            rows_deleted=removed.deleted,
            seconds=time.monotonic() - started,
        )
    )


def _add_pending(request: IngestRequest, result: IngestReport) -> None:
    """Report the books that the run did not come to."""
    seen = {book.slug for book in result.books}
    result.books += [
        BookReport(source.slug, source.name, BookStatus.PENDING)
        for source in request.sources
        if source.slug not in seen
    ]
