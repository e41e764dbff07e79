"""The quarantine: what was refused, where and why, for a person to read and mend.

Three kinds: a ``document`` that could not be read at all, an ``item`` of a document whose neighbours load,
and a ``text`` that the embedder refuses. Ids come from what was refused, so that saying it again changes
nothing. Every row belongs to a book and goes when the book does. What is special about texts stands in
``refused_texts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from psycopg.rows import class_row

from era_ingest.core.names import show_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from era_ingest.core.model import Defect

NAMESPACE = UUID("6a1a3bb8-31c3-5c7e-8f0b-5c3f3a7de001")
LISTING_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One row, as people see it."""

    id: UUID
    kind: str
    book: str | None
    file: str | None
    pointer: str | None
    reason: str
    detail: str
    content_hash: bytes | None
    model: str | None
    text: str | None
    run_id: str
    first_seen: datetime
    last_seen: datetime


def clean(text: str) -> str:
    """Return text that PostgreSQL takes: undecodable bytes and lone surrogates shown, NUL replaced."""
    return show_name(text).replace("\0", "\N{SYMBOL FOR NULL}")


async def replace_defects(
    conn: AsyncConnection[Any], book: str, defects: Sequence[Defect], *, run_id: str = ""
) -> int:
    """Make the documents and items in quarantine for a book exactly these; return how many rows were written.

    With the same defects as before nothing is written.

    Args:
        conn: A connection in the transaction that loads (or refuses) the book.
        book: The book's name.
        defects: What is wrong with it now; empty: nothing.
        run_id: The run that says so.
    """
    wanted = {_defect_id(book, defect): defect for defect in defects}
    cursor = await conn.execute("select id from era.quarantine where book = %s and kind <> 'text'", (book,))
    present = {row[0] for row in await cursor.fetchall()}
    if present == wanted.keys():
        return 0
    await conn.execute("delete from era.quarantine where id = any(%s)", (list(present - wanted.keys()),))
    rows = [
        (
            identifier,
            "item" if defect.pointer else "document",
            book,
            clean(defect.file),
            clean(defect.pointer),
            clean(defect.reason),
            clean(defect.detail),
            run_id,
        )
        for identifier, defect in wanted.items()
    ]
    async with conn.cursor() as cursor:
        await cursor.executemany(
            """
            insert into era.quarantine (id, kind, book, file, pointer, reason, detail, run_id)
            values (%s, %s, %s, %s, %s, %s, %s, %s)
            on conflict (id) do update set last_seen = now(), run_id = excluded.run_id
            """,
            rows,
        )
    return len(rows)


async def replace_landing_defects(
    conn: AsyncConnection[Any], root: str, defects: Sequence[Defect], *, run_id: str = ""
) -> int:
    """Make the defects of a landing folder that belong to no book exactly these; return the rows written.

    They stand under the folder's path where others have the book's name.
    """
    return await replace_defects(conn, clean(root), defects, run_id=run_id)


async def listing(
    conn: AsyncConnection[Any],
    *,
    book: str | None = None,
    kind: str | None = None,
    reason: str | None = None,
    ids: Sequence[str] = (),
    limit: int = LISTING_LIMIT,
    offset: int = 0,
) -> list[QuarantineRow]:
    """Return rows, latest first, at most ``limit``.

    Args:
        conn: A connection.
        book: Only this book's, by its name.
        kind: Only of this kind.
        reason: Only with this reason.
        ids: Only those whose id begins with one of these, hexadecimal in lower case; empty: all.
        limit: At most so many.
        offset: Leave out so many before.
    """
    async with conn.cursor(row_factory=class_row(QuarantineRow)) as cursor:
        await cursor.execute(
            """
            select id, kind, book, file, pointer, reason, detail, content_hash, model, text, run_id,
                   first_seen, last_seen
            from era.quarantine
            where (%(book)s::text is null or book = %(book)s) and (%(kind)s::text is null or kind = %(kind)s)
              and (%(reason)s::text is null or reason = %(reason)s)
              and (%(ids)s::text[] = '{}' or exists (
                  select from unnest(%(ids)s::text[]) as wanted (prefix) where starts_with(id::text, prefix)))
            order by last_seen desc, book, file, pointer, id
            limit %(limit)s offset %(offset)s
            """,
            {
                "book": book,
                "kind": kind,
                "reason": reason,
                "ids": list(ids),
                "limit": limit,
                "offset": offset,
            },
        )
        return await cursor.fetchall()


async def counts_by_reason(conn: AsyncConnection[Any], book: str | None = None) -> dict[tuple[str, str], int]:
    """Return how many rows there are, by kind and reason; of one book, or of all."""
    cursor = await conn.execute(
        """
        select kind, reason, count(*) from era.quarantine
        where %(book)s::text is null or book = %(book)s
        group by kind, reason order by kind, reason
        """,
        {"book": book},
    )
    return {(kind, reason): int(count) for kind, reason, count in await cursor.fetchall()}


async def counts_by_book(conn: AsyncConnection[Any], books: Collection[str]) -> dict[str, int]:
    """Return how many rows each of these books has; books without any are left out."""
    cursor = await conn.execute(
        "select book, count(*) from era.quarantine where book = any(%s) group by book", (list(books),)
    )
    return {book: int(count) for book, count in await cursor.fetchall()}


def _defect_id(book: str, defect: Defect) -> UUID:
    parts = (
        "defect",
        book,
        clean(defect.file),
        clean(defect.pointer),
        clean(defect.reason),
        clean(defect.detail),
    )
    return uuid5(NAMESPACE, "\0".join(parts))
