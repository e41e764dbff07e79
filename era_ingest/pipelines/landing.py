"""What has arrived, and what is gone: from paths to books to load and books to remove."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from era_ingest.core.names import show_name
from era_ingest.core.removals import explain_held_back, is_held_back
from era_ingest.errors import ConfigurationError
from era_ingest.pipelines.formats import known_formats
from era_ingest.pipelines.retrying import patient
from era_ingest.store import landing, quarantine, sources

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from era_ingest.core.model import Defect
    from era_ingest.core.source import BookSource
    from era_ingest.pipelines.services import Services
    from era_ingest.store.landing import LandingScan
    from era_ingest.store.sources import SourceState


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What an ingestion of some paths is to work on.

    Attributes:
        sources: Books that are there, by slug.
        removed: Slugs of loaded books whose files are gone from a landing folder among the paths.
        defects: What looks like a book and cannot be one; it stands in the quarantine.
        held_back: What was not believed to be removed and why, for a person; one text a folder.
    """

    sources: tuple[BookSource, ...]
    removed: tuple[str, ...] = ()
    defects: tuple[Defect, ...] = ()
    held_back: tuple[str, ...] = ()


async def resolve_paths(
    services: Services, paths: Sequence[Path], *, run_id: str = "", allow_removals: bool = False
) -> Arrivals:
    """Look at paths that somebody named: landing folders, books' folders, files.

    Defects are put into the quarantine, under the path they were found in.

    Args:
        services: Open services.
        paths: What was named.
        run_id: The run that looks.
        allow_removals: Take every book that is not there for removed; see `core.removals`.

    Raises:
        ConfigurationError: A path does not exist, cannot be read, or is a file that no reader takes.
    """
    scan = await asyncio.to_thread(landing.scan_all, paths, known_formats())
    roots = [str(path.absolute()) for path in paths if _is_landing(path)]
    present = {source.slug for source in scan.sources}
    loaded = await _compare(services, scan, roots, run_id)
    removed: list[str] = []
    held_back: list[str] = []
    for root in roots:
        shown = show_name(root)
        known = {slug: state for slug, state in loaded.items() if state.root == shown}
        gone = [
            slug
            for slug, state in known.items()
            if slug not in present and landing.is_gone(path_of(state), root)
        ]
        max_share = 1.0 if allow_removals else services.settings.max_removed_share
        if is_held_back(
            removed=len(gone), known=len(known), present=_books_in(scan, shown), max_share=max_share
        ):
            held_back.append(explain_held_back(shown, removed=len(gone), known=len(known)))
        else:
            removed += gone
    return Arrivals(scan.sources, tuple(removed), scan.defects, tuple(held_back))


@patient
async def _compare(
    services: Services, scan: LandingScan, roots: Sequence[str], run_id: str
) -> dict[str, SourceState]:
    """Return what is loaded; quarantine what of the folders is no book."""
    async with services.database.connection() as conn:
        for root in roots:
            inside = [defect for defect in scan.defects if defect.file.startswith(show_name(root))]
            await quarantine.replace_landing_defects(conn, root, inside, run_id=run_id)
        return await sources.states(conn)


@patient
async def sources_for(services: Services, slugs: Collection[str]) -> dict[str, BookSource]:
    """Return where books are now: in the landing folder, or where they were loaded from.

    Books that are in neither place are left out.
    """
    wanted = set(slugs)
    found: dict[str, BookSource] = {}
    folder = services.settings.landing_dir
    if folder.is_dir():
        scan = await asyncio.to_thread(landing.scan, folder, known_formats())
        found = {source.slug: source for source in scan.sources if source.slug in wanted}
    async with services.database.connection() as conn:
        loaded = await sources.states(conn, sorted(wanted - found.keys()))
    for slug, state in loaded.items():
        try:
            source = await asyncio.to_thread(landing.source_of, Path(path_of(state)), known_formats())
        except ConfigurationError:
            continue
        if source.slug == slug:
            found[slug] = source
    return found


def _books_in(scan: LandingScan, root: str) -> int:
    """Return how much of a scan lies in a folder and looks like a book."""
    sources_there = sum(show_name(source.root) == root for source in scan.sources)
    return sources_there + sum(defect.file.startswith(f"{root}/") for defect in scan.defects)


def _is_landing(path: Path) -> bool:
    return path.is_dir() and not (path / landing.DOCTRINE_FILE).exists()


def path_of(state: SourceState) -> str:
    """Return the path of the folder or file that a book was loaded from."""
    first = sources.file_path(state.files[0])
    return str(Path(first).parent) if state.format == "doctrine" else first
