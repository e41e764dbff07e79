"""What arrived in the landing folder, as sensors, the catalogue asset and ``everything`` runs see it.

The catalogue in the database remembers what was seen, since when, and which files a run has dealt with. A run says
so when it is over, not when it is asked for: what a failed or lost run did not come to is due again by itself.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from era_ingest.core.names import show_name
from era_ingest.core.removals import explain_held_back, is_held_back
from era_ingest.pipelines.formats import known_formats
from era_ingest.pipelines.report import BookStatus
from era_ingest.pipelines.retrying import patient
from era_ingest.store import catalogue, landing, quarantine

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from era_ingest.core.model import Defect
    from era_ingest.core.source import BookSource
    from era_ingest.pipelines.report import BookReport
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings
    from era_ingest.store.catalogue import LandingDelta

DEALT_WITH = frozenset({BookStatus.LOADED, BookStatus.UNCHANGED, BookStatus.REFUSED})


@dataclass(frozen=True, slots=True)
class Landing:
    """What lies in the landing folder, and what is due.

    Its ``repr`` leaves out the books: ``asyncio.run`` forms that of its result, twice, and throws it away (the handler
    of SIGINT holds the task), which took a third of a tick over 100,000 books.

    Attributes:
        sources: All books that lie there.
        delta: Those for which a run is due.
        defects: What looks like a book and cannot be taken; it stands in the quarantine.
        held_back: What was not believed to be removed and why, for a person; ``""``: nothing.
    """

    sources: tuple[BookSource, ...] = field(repr=False)
    delta: LandingDelta = field(repr=False)
    defects: tuple[Defect, ...] = field(repr=False)
    held_back: str = ""

    @property
    def settled(self) -> tuple[BookSource, ...]:
        """All books but those that are still being written."""
        waiting = set(self.delta.waiting)
        return tuple(source for source in self.sources if source.slug not in waiting)


async def look(services: Services, *, settle_s: float, run_id: str = "") -> Landing:
    """Look into the landing folder; note what changed in the catalogue and what is refused in the quarantine.

    Two system calls a file, nothing is read.

    Args:
        services: Open services.
        settle_s: How long a book must have stayed as it is to be due, seconds.
        run_id: The run that looks.

    Raises:
        ConfigurationError: The folder is missing or may not be read.
        StoreUnavailableError: The disk or the database does not answer.
    """
    root = root_of(services.settings)
    with _collector_paused():
        scan = await asyncio.to_thread(landing.scan, root, known_formats())
        async with services.database.connection() as conn:
            await quarantine.replace_landing_defects(conn, str(root), scan.defects, run_id=run_id)
            delta = await catalogue.refresh(conn, scan, datetime.now(UTC), settle_s)
    present = len(scan.sources) + len(scan.defects)
    max_share = services.settings.max_removed_share
    if not is_held_back(removed=len(delta.removed), known=delta.known, present=present, max_share=max_share):
        return Landing(scan.sources, delta, scan.defects)
    message = explain_held_back(show_name(str(root)), removed=len(delta.removed), known=delta.known)
    return Landing(scan.sources, replace(delta, removed=()), scan.defects, message)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Make many small objects without the garbage collector looking through all of Dagster's again and again.

    It took two fifths of a tick over 60,000 books (measured); nothing made here has cycles.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@patient
async def settle(
    services: Services, sources: Mapping[str, BookSource], books: Collection[BookReport]
) -> None:
    """Note in the catalogue which books of the landing folder a run has dealt with, and which it took out.

    Args:
        services: Open services.
        sources: The run's books as it saw them, by slug.
        books: What became of them.
    """
    root = show_name(str(root_of(services.settings)))
    dealt = [
        sources[book.slug]
        for book in books
        if book.status in DEALT_WITH and book.slug in sources and sources[book.slug].root == root
    ]
    removed = [book.slug for book in books if book.status is BookStatus.REMOVED]
    if not (dealt or removed):
        return
    async with services.database.connection() as conn:
        await catalogue.mark_done(conn, dealt, removed, datetime.now(UTC))


def root_of(settings: Settings) -> Path:
    """Return the landing folder, absolute, links not followed."""
    return Path(settings.landing_dir).absolute()
