"""The sensor's memory of the landing folder: what it saw, since when, and what was dealt with.

A book is identified by the fingerprint of its files (path, size, times, inode), and one that is gone by the
empty fingerprint, so that new, changed and removed books follow one rule: when a fingerprint has stood for
``settle_s`` seconds and is not the one that was dealt with, a run is due. Nothing of a book is read,
and only differences are written.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from era_ingest.store.landing import is_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from era_ingest.core.source import BookSource
    from era_ingest.store.landing import LandingScan

GONE = ""
"""The fingerprint of a book that is not there."""

_BATCH = 10_000
_LOCK = 0x65726107


@dataclass(frozen=True, slots=True)
class LandingDelta:
    """For which books a run is due.

    Attributes:
        new: Books that were never dealt with.
        changed: Books whose files differ from those that were dealt with.
        removed: Slugs of books that are gone.
        waiting: Slugs of books that changed less than ``settle_s`` ago.
        known: Number of books that were dealt with, those that are gone included.
    """

    new: tuple[BookSource, ...] = ()
    changed: tuple[BookSource, ...] = ()
    removed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    known: int = field(default=0, compare=False)

    @property
    def arrived(self) -> tuple[BookSource, ...]:
        """New and changed books."""
        return self.new + self.changed

    def __bool__(self) -> bool:
        """True if a run is due."""
        return bool(self.new or self.changed or self.removed)

    def without(self, slugs: Collection[str]) -> LandingDelta:
        """Return it without new and changed books that somebody else looks after."""
        return replace(
            self,
            new=tuple(source for source in self.new if source.slug not in slugs),
            changed=tuple(source for source in self.changed if source.slug not in slugs),
        )


class _Known(NamedTuple):
    """A row of the catalogue."""

    fingerprint: str
    taken: str | None
    settled: bool


async def refresh(
    conn: AsyncConnection[Any],
    scan: LandingScan,
    now: datetime,
    settle_s: float,
    *,
    gone: Callable[[str, str], bool] = is_gone,
) -> LandingDelta:
    """Compare a scan with the catalogue, write what differs, and return for which books a run is due.

    Args:
        conn: A connection; the caller commits.
        scan: What lies in the landing folder.
        now: The present, with a time zone; of the same clock at every call.
        settle_s: How long a book must have stayed as it is, seconds; 0: not at all.
        gone: Says of a path and its root whether the book was taken away, rather than out of sight.
    """
    await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
    known = await _load(conn, now - timedelta(seconds=settle_s))
    dealt_with = sum(row.taken is not None for row in known.values())
    settled_at_once = settle_s <= 0
    new: list[BookSource] = []
    changed: list[BookSource] = []
    waiting: list[str] = []
    seen: list[tuple[BookSource, str]] = []
    for source in scan.sources:
        fingerprint = source.fingerprint
        row = known.pop(source.slug, None)
        if row is None or row.fingerprint != fingerprint:
            seen.append((source, fingerprint))
        if row is not None and row.taken == fingerprint:
            continue  # as it was dealt with, if it was out of sight meanwhile
        if settled_at_once or (row is not None and row.settled and row.fingerprint == fingerprint):
            (changed if row is not None and row.taken else new).append(source)
        else:
            waiting.append(source.slug)
    await _store(conn, seen, now)
    removed, vanishing = await _missing(conn, known, now, gone, settled_at_once=settled_at_once)
    return LandingDelta(
        tuple(new), tuple(changed), tuple(removed), tuple(waiting + vanishing), known=dealt_with
    )


async def mark_done(
    conn: AsyncConnection[Any], sources: Collection[BookSource], removed: Collection[str], now: datetime
) -> None:
    """Note that books were dealt with as they were found: loaded, unchanged, refused or removed.

    No run is due for them until their files change. What is noted already is not written again.

    Args:
        conn: A connection; the caller commits.
        sources: Books as they were read; they need not be in the catalogue.
        removed: Slugs of books that were removed.
        now: The present.
    """
    await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
    await _store(conn, [(source, source.fingerprint) for source in sources], now)
    await conn.execute(
        """
        update era.landing_files set taken_fingerprint = fingerprint, taken_at = %s
        where slug = any(%s) and taken_fingerprint is distinct from fingerprint
        """,
        (now, [source.slug for source in sources]),
    )
    await forget(conn, removed)


async def forget(conn: AsyncConnection[Any], slugs: Collection[str]) -> int:
    """Drop books that are gone from the catalogue, after their removal; return how many were dropped.

    One that came back while its removal was under way is new again.
    """
    cursor = await conn.execute(
        "delete from era.landing_files where slug = any(%s) and fingerprint = ''", (list(slugs),)
    )
    await conn.execute(
        "update era.landing_files set taken_fingerprint = null, taken_at = null where slug = any(%s)",
        (list(slugs),),
    )
    return cursor.rowcount


async def _load(conn: AsyncConnection[Any], settled_since: datetime) -> dict[str, _Known]:
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            "select slug, fingerprint, taken_fingerprint, since <= %s from era.landing_files",
            (settled_since,),
        )
        return {slug: _Known(*rest) for slug, *rest in await cursor.fetchall()}


async def _store(conn: AsyncConnection[Any], seen: Sequence[tuple[BookSource, str]], now: datetime) -> None:
    """Note new fingerprints; rows that have theirs already are left alone."""
    for start in range(0, len(seen), _BATCH):
        part = seen[start : start + _BATCH]
        await conn.execute(
            """
            insert into era.landing_files as f (slug, name, root, path, fingerprint, since)
            select slug, name, root, path, fingerprint, %s
            from unnest(%b::text[], %b::text[], %b::bytea[], %b::bytea[], %b::text[])
                 as s (slug, name, root, path, fingerprint)
            on conflict (slug) do update set
                name = excluded.name, root = excluded.root, path = excluded.path,
                fingerprint = excluded.fingerprint, since = excluded.since
            where f.fingerprint <> excluded.fingerprint
            """,
            (
                now,
                [source.slug for source, _ in part],
                [source.name for source, _ in part],
                [os.fsencode(source.root) for source, _ in part],
                [os.fsencode(source.path) for source, _ in part],
                [fingerprint for _, fingerprint in part],
            ),
        )


async def _missing(
    conn: AsyncConnection[Any],
    unseen: dict[str, _Known],
    now: datetime,
    gone: Callable[[str, str], bool],
    *,
    settled_at_once: bool,
) -> tuple[list[str], list[str]]:
    """Return the removed and the vanishing among the books that the scan did not see."""
    due = [slug for slug, row in unseen.items() if row.taken != GONE]
    if not due:
        return [], []
    cursor = await conn.execute(
        "select slug, path, root from era.landing_files where slug = any(%s) order by slug", (due,)
    )
    places = [(slug, os.fsdecode(path), os.fsdecode(root)) for slug, path, root in await cursor.fetchall()]
    absent = await asyncio.to_thread(_absent, places, gone)
    fresh = [slug for slug in absent if unseen[slug].fingerprint != GONE]
    await conn.execute(
        "update era.landing_files set fingerprint = '', since = %s where slug = any(%s)",
        (now, fresh),
    )
    settled = [
        slug for slug in absent if settled_at_once or (slug not in set(fresh) and unseen[slug].settled)
    ]
    await forget(conn, [slug for slug in settled if unseen[slug].taken is None])
    removed = [slug for slug in settled if unseen[slug].taken is not None]
    return removed, sorted(set(absent) - set(settled))


def _absent(places: Iterable[tuple[str, str, str]], gone: Callable[[str, str], bool]) -> list[str]:
    return [slug for slug, path, root in places if gone(path, root)]
