"""Loading as a run of the graph does it: find the books, load them, note what was dealt with, audit.

Knows nothing of Dagster, so that ``era ingest`` is at work before Dagster is even imported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from era_ingest.pipelines.arrivals import look, root_of, settle
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import sources_for
from era_ingest.pipelines.report import BookStatus, IngestReport, IngestRequest, Stage
from era_ingest.pipelines.retrying import patient
from era_ingest.pipelines.work import BookWork, Loaded
from era_ingest.store import sources as source_rows
from era_ingest.store.audit import audit
from era_ingest.store.audit_files import check_ministers
from era_ingest.store.domains import domain_states
from era_ingest.store.quarantine import counts_by_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from era_ingest.core.audit import Finding
    from era_ingest.core.source import BookSource
    from era_ingest.pipelines.report import BookReport, Progress
    from era_ingest.pipelines.services import Services

_LOOKED_AT = frozenset({BookStatus.LOADED, BookStatus.REFUSED})


async def load_books(services: Services, work: BookWork, report: Callable[[Progress], None]) -> Loaded:
    """Find the books of a run and load them.

    Raises:
        EraError: The landing folder or the database is away before the loading began; what stops the loading itself
            stands in the report.
    """
    found, removed = await find_books(services, work)
    loaded = await load_found(services, work, found, removed, report)
    return await audit_loaded(services, work, loaded)


async def load_found(
    services: Services,
    work: BookWork,
    found: Mapping[str, BookSource],
    removed: Sequence[str],
    report: Callable[[Progress], None],
) -> Loaded:
    """Load books, and note what was dealt with.

    Args:
        services: Open services.
        work: What the run is asked for.
        found: Its books by slug.
        removed: Books whose rows and files are to go.
        report: Told how far it is.
    """
    unknown = tuple(slug for slug in work.slugs if slug not in found)
    result = IngestReport()
    if work.stages and (found or removed):
        request = IngestRequest(
            sources=tuple(found.values()),
            removed=tuple(removed),
            stages=work.stages,
            run_id=work.run_id,
            force=work.force,
            retry_refused=work.retry_refused,
        )
        result = await ingest_books(services, request, report)
        if Stage.VECTOR_TABLES in work.stages:
            await settle(services, found, result.books)
    return Loaded(result, unknown=unknown)


async def audit_loaded(services: Services, work: BookWork, loaded: Loaded) -> Loaded:
    """Audit what was loaded, if that was asked for and the loading came to its end."""
    if not work.audit or loaded.report.error is not None:
        return loaded
    books = loaded.report.books if work.stages else None
    findings, quarantine = await _audit(services, books)
    return replace(loaded, findings=findings, quarantine=quarantine, audited=True)


async def find_books(services: Services, work: BookWork) -> tuple[dict[str, BookSource], tuple[str, ...]]:
    """Return the books of a run by slug, and the slugs of those to be removed."""
    if not work.everything:
        return await sources_for(services, work.slugs) if work.slugs else {}, work.removed
    found: dict[str, BookSource] = {}
    removed = work.removed
    if root_of(services.settings).is_dir():
        landing = await look(services, settle_s=services.settings.settle_s, run_id=work.run_id)
        found = {source.slug: source for source in landing.settled}
        removed = tuple(dict.fromkeys((*removed, *landing.delta.removed)))
    async with services.database.connection() as conn:
        loaded = await source_rows.states(conn)
    elsewhere = await sources_for(services, [slug for slug in loaded if slug not in found])
    return {**elsewhere, **found}, removed


@patient
async def _audit(
    services: Services, books: Collection[BookReport] | None
) -> tuple[tuple[Finding, ...], dict[str, int]]:
    """Audit what a run loaded (None: everything); return the findings, and what is in quarantine in all."""
    names = None if books is None else [book.book for book in books if book.status in _LOOKED_AT]
    async with services.database.connection() as conn:
        findings = await audit(conn, books=names)
        counts = await counts_by_reason(conn)
    return findings, {f"{kind}: {reason}": count for (kind, reason), count in sorted(counts.items())}


@patient
async def audit_ministers(services: Services, domains: Collection[str] | None) -> list[Finding]:
    """Compare the files of domains (None: of all) with the database.

    A domain that changed again meanwhile is left out: it will be built again.
    """
    async with services.database.connection() as conn:
        findings = await check_ministers(conn, services.settings.ministers_dir, domains)
        moved = {name for name, state in (await domain_states(conn)).items() if state.files_stale}
    return [finding for finding in findings if not (moved and _is_of(finding, moved))]


def _is_of(finding: Finding, moved: Collection[str]) -> bool:
    """Say whether a file differs because its domain changed again meanwhile; it will be built again."""
    return finding.subject.partition("/")[0] in moved or "/" not in finding.subject
