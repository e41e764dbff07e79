"""How large the corpus is, from counts that are kept anyway: cheap enough to be asked again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from era_ingest.store import domains
from era_ingest.store.quarantine import counts_by_reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection


@dataclass(frozen=True, slots=True)
class CorpusSize:
    """How large the corpus is.

    Attributes:
        books: Books loaded.
        chapters: Their chapters.
        entries: Their doctrine entries; each is a row.
        passages: Their passages; likewise.
        waiting: Books of the landing folder that the sensor saw, and no run has dealt with.
        waiting_since: Since when the first of them lies there, seconds since 1970; None: there are none.
        domains: Domains.
        stale_domains: Those whose minister files or index are behind the tables.
        quarantine: Rows in the quarantine by kind and reason.
    """

    books: int
    chapters: int
    entries: int
    passages: int
    waiting: int
    waiting_since: float | None
    domains: int
    stale_domains: int
    quarantine: Mapping[tuple[str, str], int]


async def corpus_size(conn: AsyncConnection[Any]) -> CorpusSize:
    """Return how large the corpus is; reads a row a book and a domain, none a text."""
    sums = await (await conn.execute(_LOADED)).fetchone()
    found = await (await conn.execute(_WAITING)).fetchone()
    assert sums is not None
    assert found is not None
    states = await domains.domain_states(conn)
    books, chapters, entries, passages = map(int, sums)
    waiting, waiting_since = found
    return CorpusSize(
        books=books,
        chapters=chapters,
        entries=entries,
        passages=passages,
        waiting=int(waiting),
        waiting_since=waiting_since,
        domains=len(states),
        stale_domains=sum(state.files_stale or state.index_stale for state in states.values()),
        quarantine=await counts_by_reason(conn),
    )


_LOADED = """
    select count(*), coalesce(sum(chapters), 0), coalesce(sum(entries), 0), coalesce(sum(passages), 0)
    from era.doctrine_sources
"""
_WAITING = """
    select count(*), extract(epoch from min(since))::float8 from era.landing_files
    where taken_fingerprint is distinct from fingerprint
"""
