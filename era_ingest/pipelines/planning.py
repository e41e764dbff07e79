"""What an ingestion has to do: which books are as they were, and which are to be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from era_ingest.core.record import processing_fingerprint
from era_ingest.pipelines.report import BookReport, BookStatus
from era_ingest.pipelines.retrying import patient
from era_ingest.store import models, sources

if TYPE_CHECKING:
    from era_ingest.core.source import BookSource
    from era_ingest.pipelines.report import IngestRequest
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings
    from era_ingest.store.models import Model
    from era_ingest.store.sources import SourceState


@dataclass(slots=True)
class Plan:
    """What is to be done.

    Attributes:
        model: The model that the settings name, if the database knows it yet.
        work: Books to read.
        unchanged: Reports of the others.
        states: What is loaded of the request's books, by slug.
    """

    model: Model | None
    work: tuple[BookSource, ...] = ()
    unchanged: list[BookReport] = field(default_factory=list)
    states: dict[str, SourceState] = field(default_factory=dict)


def processing_of(settings: Settings) -> str:
    """Return the fingerprint of the settings that shape chunks."""
    sizes = (settings.passage_min_chars, settings.passage_max_chars, settings.passage_overlap_chars)
    return processing_fingerprint(
        passage_sizes=sizes if settings.passages else None, aliases=settings.domain_aliases
    )


@patient
async def plan_books(services: Services, request: IngestRequest, model_name: str) -> Plan:
    """Compare the request with what is loaded; no file is read.

    A book is unchanged if its files have the path, size, time and inode that they had when it was loaded,
    under the same settings, with the same model.
    """
    slugs = [source.slug for source in request.sources]
    async with services.database.connection() as conn:
        model = await models.find_model(conn, model_name)
        states = await sources.states(conn, slugs)
    plan = Plan(model, states=states)
    processing = processing_of(services.settings)
    work = []
    for source in request.sources:
        state = states.get(source.slug)
        same = (
            not request.force
            and not request.retry_refused
            and state is not None
            and state.processing == processing
            and _is_loaded(state, model)
            and _same_files(state, source)
        )
        if same and state is not None:
            plan.unchanged.append(unchanged_report(state))
        else:
            work.append(source)
    plan.work = tuple(work)
    return plan


def unchanged_report(state: SourceState, seconds: float = 0.0) -> BookReport:
    """Report a book that is loaded as it should be."""
    return BookReport(
        state.slug,
        state.book,
        BookStatus.UNCHANGED,
        chapters=state.chapters,
        entries=state.entries,
        passages=state.passages,
        texts_reused=state.texts_embedded + state.texts_reused,
        seconds=seconds,
    )


def _is_loaded(state: SourceState, model: Model | None) -> bool:
    return model is not None and state.is_loaded(model.id, state.content_fingerprint)


def _same_files(state: SourceState, source: BookSource) -> bool:
    loaded = {
        (sources.file_path(raw), raw["role"], raw["size"], raw["mtime_ns"], raw["inode"])
        for raw in state.files
    }
    present = {(file.path, file.role, file.size, file.mtime_ns, file.inode) for file in source.files}
    return loaded == present
