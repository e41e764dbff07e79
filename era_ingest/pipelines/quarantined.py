"""The quarantine as people ask for it: its rows, and from where their books are tried again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from era_ingest.core.names import show_name
from era_ingest.errors import ConfigurationError
from era_ingest.pipelines.landing import path_of
from era_ingest.pipelines.services import open_services
from era_ingest.store import quarantine, sources
from era_ingest.store.landing import CHAPTERS_FILE, DOCTRINE_FILE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from era_ingest.settings import Settings
    from era_ingest.store.quarantine import QuarantineRow
    from era_ingest.store.sources import SourceState

_LEAST_ID_CHARS = 4


async def read_quarantine(
    settings: Settings, *, book: str | None = None, ids: Collection[str] = (), limit: int
) -> list[QuarantineRow]:
    """Return quarantine rows, latest first.

    Args:
        settings: The process settings.
        book: Only this book's, by its name.
        ids: Only these, by id or the beginning of one.
        limit: At most so many.

    Raises:
        ConfigurationError: An id names no row, or several.
    """
    async with open_services(settings) as services, services.database.connection() as conn:
        rows = await quarantine.listing(conn, book=book, limit=limit, ids=[_checked(text) for text in ids])
    for wanted in ids:
        found = [row for row in rows if str(row.id).startswith(wanted.lower())]
        if len(found) != 1:
            what = "no row" if not found else f"{len(found):,} rows"
            raise ConfigurationError(f"{wanted!r} names {what} of the quarantine; see `era quarantine list`.")
    return rows


async def find_retry_paths(settings: Settings, rows: Iterable[QuarantineRow]) -> tuple[Path, ...]:
    """Return what is to be ingested so that quarantined rows are tried again: folders and files that exist."""
    async with open_services(settings) as services, services.database.connection() as conn:
        loaded = {state.book: state for state in (await sources.states(conn)).values()}
    found = dict.fromkeys(path for row in rows if (path := _path_of(row, loaded)) is not None)
    return tuple(path for path in found if path.exists())


def _path_of(row: QuarantineRow, loaded: Mapping[str, SourceState]) -> Path | None:
    """Return the folder or file of a row's book; a row without a book stands under its landing folder."""
    state = loaded.get(row.book or "")
    if state is not None:
        return Path(path_of(state))
    if row.file is None or row.book is None:
        return None
    if Path(row.book).is_absolute():
        return Path(row.book)
    file = Path(row.file)
    return file.parent if file.name in {DOCTRINE_FILE, CHAPTERS_FILE} else file


def describe_row(row: QuarantineRow) -> str:
    """Return the place of a row on one line: the file and the pointer into it, or the text's beginning."""
    if row.pointer:
        return f"{row.file}#{row.pointer}"
    return row.file or f"text: {show_name(row.text or '')[:60]}"


def _checked(text: str) -> str:
    """Return an id, or the beginning of one, in its own form."""
    wanted = text.lower()
    if len(wanted) < _LEAST_ID_CHARS or not set(wanted) <= set("0123456789abcdef-"):
        raise ConfigurationError(f"{text!r} is no id of a row of the quarantine; see `era quarantine list`.")
    return wanted
