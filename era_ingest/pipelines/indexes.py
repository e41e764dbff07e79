"""The view, the statistics and the ANN index of a domain, looked after once its rows are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.names import DomainName
from era_ingest.pipelines.retrying import patient, retry_transient
from era_ingest.store import views
from era_ingest.store.domains import category_counts, domain_states, mark_indexed
from era_ingest.store.indexes import IndexReport, ensure_domain_index, ensure_words_index
from era_ingest.store.models import active_model

if TYPE_CHECKING:
    from collections.abc import Collection

    from era_ingest.pipelines.services import Services


@dataclass(frozen=True, slots=True)
class DomainIndexReport:
    """What was found and done for one domain.

    Attributes:
        domain: Its name.
        rows: Rows with a vector, by category.
        index: What became of its index; None where nothing was ever loaded.
        view: Name of its view; None where the domain has no rows any more, and so no view.
    """

    domain: str
    rows: dict[str, int]
    index: IndexReport | None
    view: str | None

    @property
    def total_rows(self) -> int:
        """Rows of all categories."""
        return sum(self.rows.values())


@patient
async def stale_indexes(services: Services) -> list[str]:
    """Return the domains whose view and index were not looked after since they changed, sorted."""
    async with services.database.connection() as conn:
        states = await domain_states(conn)
    return [name for name, state in states.items() if state.index_stale]


async def refresh_domain_indexes(
    services: Services, domains: Collection[str] | None = None
) -> list[DomainIndexReport]:
    """Look after domains, and after the indexes over all of them; None: those that are stale."""
    names = await stale_indexes(services) if domains is None else sorted(set(domains))
    await retry_transient(lambda: views.ensure_views(services.database, names))
    reports = [await refresh_domain_index(services, name) for name in names]
    if names:
        await _refresh_indexes_of_all(services)
        await retry_transient(lambda: views.drop_empty_views(services.database, names))
    return reports


@patient
async def refresh_domain_index(services: Services, domain: str) -> DomainIndexReport:
    """Create the view of a domain, build or drop its index as its size asks for, count its rows."""
    async with services.database.connection() as conn:
        state = (await domain_states(conn, [domain])).get(domain)
        model = await active_model(conn)
        rows = await category_counts(conn, domain)
    index = None
    if model is not None:
        index = await ensure_domain_index(
            services.database,
            model,
            domain,
            min_rows=services.settings.index_min_rows,
            memory_mb=services.settings.index_memory_mb,
        )
    if state is not None:
        async with services.database.connection() as conn:
            await mark_indexed(conn, domain, state.change_no)
    view = DomainName(domain).view.value if rows else None
    return DomainIndexReport(domain, rows, index, view)


@patient
async def _refresh_indexes_of_all(services: Services) -> None:
    async with services.database.connection() as conn:
        model = await active_model(conn)
    if model is not None:
        await ensure_domain_index(
            services.database,
            model,
            None,
            min_rows=services.settings.index_min_rows,
            memory_mb=services.settings.index_memory_mb,
        )
        await ensure_words_index(services.database, model)
