"""What a person browses: the corpus in figures, its books a page at a time, one book's chapters, one domain's books."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import class_row

from era_ingest.core.model import Category
from era_ingest.store.models import active_model

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from psycopg import AsyncConnection


@dataclass(frozen=True, slots=True)
class Totals:
    """The corpus in figures.

    Attributes:
        books: Loaded books.
        chapters: Their chapters.
        entries: Their doctrine entries.
        passages: Their passages.
        quarantined: What was refused, of whatever kind.
        loaded_at: When a book was loaded last; None: there is none.
    """

    books: int
    chapters: int
    entries: int
    passages: int
    quarantined: int
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True)
class BookLine:
    """One book of a list.

    Attributes:
        book: Its name.
        slug: Its partition key.
        title: A title that the document gives itself.
        chapters: Number of chapters.
        entries: Number of doctrine entries.
        passages: Number of passages.
        quarantined: What of it stands in the quarantine.
        loaded_at: When it was loaded last.
    """

    book: str
    slug: str
    title: str | None
    chapters: int
    entries: int
    passages: int
    quarantined: int
    loaded_at: datetime


class _Counted:
    """Has ``counts``: rows by category."""

    __slots__ = ()
    counts: Mapping[str, int]

    @property
    def passages(self) -> int:
        """Its passages."""
        return self.counts.get(Category.PASSAGE.value, 0)

    @property
    def entries(self) -> int:
        """Its doctrine entries."""
        return sum(self.counts.values()) - self.passages


@dataclass(frozen=True, slots=True)
class ChapterLine(_Counted):
    """One chapter that holds anything.

    Attributes:
        chapter: Its index.
        title: Its title, if it has one.
        counts: Rows by category.
        domains: Its domains, in order of their names.
    """

    chapter: int
    title: str | None
    counts: Mapping[str, int]
    domains: list[str]


@dataclass(frozen=True, slots=True)
class DomainBook:
    """What one book gives to a domain."""

    book: str
    slug: str
    chapters: int
    entries: int
    passages: int


@dataclass(frozen=True, slots=True)
class DomainLine(_Counted):
    """One domain in figures.

    Attributes:
        domain: Its name.
        counts: Rows by category.
    """

    domain: str
    counts: Mapping[str, int]


async def totals(conn: AsyncConnection[Any]) -> Totals:
    """Return the corpus in figures."""
    async with conn.cursor(row_factory=class_row(Totals)) as cursor:
        await cursor.execute(
            """
            select count(*) as books, coalesce(sum(chapters), 0)::bigint as chapters,
                   coalesce(sum(entries), 0)::bigint as entries, coalesce(sum(passages), 0)::bigint as passages,
                   (select count(*) from era.quarantine) as quarantined, max(loaded_at) as loaded_at
            from era.doctrine_sources
            """
        )
        found = await cursor.fetchone()
    assert found is not None
    return found


async def latest_books(conn: AsyncConnection[Any], *, limit: int) -> list[BookLine]:
    """Return the books that were loaded last, the latest first."""
    return await _books(conn, _LATEST, {"limit": limit})


async def list_books(
    conn: AsyncConnection[Any], *, containing: str, limit: int, offset: int
) -> tuple[list[BookLine], int]:
    """Return books by name, and how many there are in all.

    Args:
        conn: A connection.
        containing: Only books whose name or title holds this, in whatever case; empty: all.
        limit: How many, at most.
        offset: How many to leave out before.
    """
    values = {"part": containing.lower(), "limit": limit, "offset": offset}
    cursor = await conn.execute(_COUNT_BOOKS, values)
    (count,) = (await cursor.fetchone()) or (0,)
    return await _books(conn, _BY_NAME, values), int(count)


async def book_slugs(conn: AsyncConnection[Any], books: Collection[str]) -> dict[str, str]:
    """Return the slugs of loaded books by name; others are left out."""
    cursor = await conn.execute(
        "select book, slug from era.doctrine_sources where book = any(%s)", (list(books),)
    )
    return dict(await cursor.fetchall())


async def chapters_of(conn: AsyncConnection[Any], book: str) -> list[ChapterLine]:
    """Return the chapters of a book that hold anything under the active model, in order."""
    model = await active_model(conn)
    if model is None:
        return []
    async with conn.cursor(row_factory=class_row(ChapterLine)) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                with counted as (
                    select chapter, category, count(*) as n, max(chapter_title) as title from {table}
                    where book = %(book)s group by chapter, category
                ), subjects as (
                    select chapter, array_agg(distinct domain order by domain) as domains
                    from {table}, unnest(domains) as domain where book = %(book)s group by chapter
                )
                select chapter, max(title) as title, jsonb_object_agg(category, n) as counts, domains
                from counted join subjects using (chapter) group by chapter, domains order by chapter
                """
            ).format(table=model.table),
            {"book": book},
        )
        return await cursor.fetchall()


async def books_of_domain(conn: AsyncConnection[Any], domain: str, *, limit: int) -> list[DomainBook]:
    """Return the books that a domain is made of, those that give most first."""
    model = await active_model(conn)
    if model is None:
        return []
    async with conn.cursor(row_factory=class_row(DomainBook)) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                select v.book, s.slug, count(distinct v.chapter) as chapters,
                       count(*) filter (where v.category <> 'passage') as entries,
                       count(*) filter (where v.category = 'passage') as passages
                from {table} as v join era.doctrine_sources as s using (book)
                where v.domains @> array[%(domain)s::text]
                group by v.book, s.slug order by entries desc, passages desc, v.book collate "C" limit %(limit)s
                """
            ).format(table=model.table),
            {"domain": domain, "limit": limit},
        )
        return await cursor.fetchall()


async def corpus_version(conn: AsyncConnection[Any]) -> tuple[int, int]:
    """Return what changes whenever `count_domains` would: the active model, and how often domains changed in all."""
    cursor = await conn.execute(
        """
        select coalesce((select id from era.models where active), 0),
               coalesce((select sum(change_no) from era.domains), 0)::bigint
        """
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def count_domains(conn: AsyncConnection[Any]) -> list[DomainLine]:
    """Return every domain that has rows under the active model, the largest first; reads all of them."""
    model = await active_model(conn)
    if model is None:
        return []
    async with conn.cursor(row_factory=class_row(DomainLine)) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                select domain, jsonb_object_agg(category, n) as counts
                from (select domain, category, count(*) as n from {table}, unnest(domains) as domain
                      group by domain, category) as counted
                group by domain
                order by coalesce(sum(n) filter (where category <> 'passage'), 0) desc, sum(n) desc, domain
                """
            ).format(table=model.table)
        )
        return await cursor.fetchall()


async def _books(
    conn: AsyncConnection[Any], statement: sql.Composed, values: Mapping[str, object]
) -> list[BookLine]:
    async with conn.cursor(row_factory=class_row(BookLine)) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()


_WANTED = sql.SQL(
    "from era.doctrine_sources as s where strpos(lower(book), %(part)s) > 0 or strpos(lower(title), %(part)s) > 0 "
)
_LINES = sql.SQL(
    """select book, slug, title, chapters, entries, passages, loaded_at,
              (select count(*) from era.quarantine as q where q.book = s.book) as quarantined """
)
_LATEST = _LINES + sql.SQL(
    """from era.doctrine_sources as s order by loaded_at desc, book collate "C" limit %(limit)s"""
)
_BY_NAME = (
    _LINES + _WANTED + sql.SQL("""order by lower(book), book collate "C" limit %(limit)s offset %(offset)s""")
)
_COUNT_BOOKS = sql.SQL("select count(*) ") + _WANTED
