"""The view, the statistics and the ANN index of a domain, looked after once its rows are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.names import DomainName
from era_ingest.pipelines.retrying import patient, retry_transient
from era_ingest.store import views
from era_ingest.store.domains import category_counts, domain_states, mark_indexed
from era_ingest.store.indexes import (
    IndexReport,
    ensure_domain_index,
    ensure_words_index,
    index_name,
    list_indexes,
    settled,
)
from era_ingest.store.models import active_model

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from era_ingest.pipelines.services import Services
    from era_ingest.store.models import Model


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
    if not names:
        return []
    await retry_transient(lambda: views.ensure_views(services.database, names))
    survey = await _look_at(services, names)
    await _mark(services, {name: no for name, no in survey.changes.items() if name in survey.settled})
    reports = []
    for name in names:
        index = survey.settled.get(name)
        if index is None and survey.model is not None:
            index = await _ensure(services, survey.model, name)
            await _mark(services, {name: survey.changes[name]} if name in survey.changes else {})
        rows = survey.rows[name]
        reports.append(DomainIndexReport(name, rows, index, DomainName(name).view.value if rows else None))
    if survey.model is not None:
        await _ensure(services, survey.model, None)
        await _ensure_words(services, survey.model)
    await retry_transient(lambda: views.drop_empty_views(services.database, names))
    return reports


@dataclass(frozen=True, slots=True)
class _Survey:
    """How domains stand.

    Attributes:
        model: The model that readers see; None before the first.
        changes: Which change of each domain this is about.
        rows: Rows with a vector, by domain and category.
        settled: What becomes of the indexes to which nothing is to be done.
    """

    model: Model | None
    changes: dict[str, int]
    rows: dict[str, dict[str, int]]
    settled: dict[str, IndexReport]


@patient
async def _look_at(services: Services, names: Collection[str]) -> _Survey:
    """Look at all domains at once: most of them have too few rows for an index, or have one."""
    async with services.database.connection() as conn:
        states = await domain_states(conn, names)
        changes = {name: state.change_no for name, state in states.items()}
        model = await active_model(conn)
        rows = await category_counts(conn, names)
        if model is None:
            return _Survey(None, changes, rows, {})
        found = await list_indexes(conn, model)
    done = {}
    for name in names:
        index, total = index_name(model, name).value, sum(rows[name].values())
        min_rows = services.settings.index_min_rows
        if (action := settled(model, total, min_rows=min_rows, valid=found.get(index))) is not None:
            done[name] = IndexReport(index, total, action)
    return _Survey(model, changes, rows, done)


@patient
async def _mark(services: Services, looked_after: Mapping[str, int]) -> None:
    if looked_after:
        async with services.database.connection() as conn:
            await mark_indexed(conn, looked_after)


@patient
async def _ensure(services: Services, model: Model, domain: str | None) -> IndexReport:
    return await ensure_domain_index(
        services.database,
        model,
        domain,
        min_rows=services.settings.index_min_rows,
        memory_mb=services.settings.index_memory_mb,
    )


@patient
async def _ensure_words(services: Services, model: Model) -> None:
    await ensure_words_index(services.database, model)
