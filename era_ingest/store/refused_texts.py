"""Texts that the embedder refuses, in the quarantine: each for a model, under the books that it stands in.

A text refused in two books has two rows, and goes with each; a row without a book is a verdict whose book is not
loaded yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from psycopg import sql

from era_ingest.store.binary import BytesArray
from era_ingest.store.quarantine import NAMESPACE, clean

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import AsyncConnection

    from era_ingest.store.models import Model

EXCERPT_CHARS = 500


@dataclass(frozen=True, slots=True)
class RefusedText:
    """A text that the embedder refuses.

    Attributes:
        content_hash: SHA-256 of the text.
        text: The text; an excerpt of it is kept.
        reason: A short stable code.
        detail: What the server said, for a person.
        book: The book it stands in, or None; loading a book that holds it names the book.
    """

    content_hash: bytes
    text: str
    reason: str
    detail: str
    book: str | None = None


async def refuse_texts(
    conn: AsyncConnection[Any], model: Model, refused: Collection[RefusedText], *, run_id: str = ""
) -> int:
    """Put texts in quarantine for a model; return how many rows are new."""
    rows = [
        (
            _text_id(model.name, text.content_hash, text.book),
            text.book,
            clean(text.reason),
            clean(text.detail),
            text.content_hash,
            model.name,
            clean(text.text[:EXCERPT_CHARS]),
            run_id,
        )
        for text in refused
    ]
    rows.sort()  # one order for all writers: they wait for each other, never both ways
    new = 0
    async with conn.cursor() as cursor:
        for row in rows:
            await cursor.execute(
                """
                insert into era.quarantine (id, kind, book, reason, detail, content_hash, model, text, run_id)
                values (%s, 'text', %s, %s, %s, %s, %s, %s, %s)
                on conflict (id) do update set
                    last_seen = now(), reason = excluded.reason, detail = excluded.detail,
                    run_id = excluded.run_id
                returning (xmax = 0)
                """,
                row,
            )
            inserted = await cursor.fetchone()
            new += bool(inserted and inserted[0])
    return new


async def refused_hashes(conn: AsyncConnection[Any], model_id: int, hashes: Collection[bytes]) -> set[bytes]:
    """Return those of the hashes that a model is known to refuse."""
    if not hashes:
        return set()
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            select distinct content_hash from era.quarantine
            where kind = 'text' and model = (select name from era.models where id = %s)
              and content_hash = any(%b)
            """,
            (model_id, BytesArray(hashes)),
        )
        return {row[0] for row in await cursor.fetchall()}


async def settle_texts(conn: AsyncConnection[Any], model: Model, book: str) -> int:
    """Bring a book's refused texts in line with its rows; return how many rows have no vector and no verdict.

    Rows of the table without a vector are refused texts: each gets a quarantine row under this book, copied
    from whatever row states the verdict. Quarantine rows of the book whose text is gone or embedded by now
    go. The last step of loading a book, before its domains.
    """
    names = {"table": model.table}
    arguments = {"book": book, "model": model.name}
    cursor = await conn.execute(
        sql.SQL(
            """
            select exists (select from {table} where book = %(book)s and embedding is null),
                   exists (select from era.quarantine
                           where kind = 'text' and model = %(model)s and book = %(book)s)
            """
        ).format(**names),
        arguments,
    )
    row = await cursor.fetchone()
    assert row is not None
    if not any(row):
        return 0
    await conn.execute(
        sql.SQL(
            """
            delete from era.quarantine as q
            where q.kind = 'text' and q.model = %(model)s and q.book = %(book)s and not exists (
                select from {table} as v
                where v.embedding is null and v.content_hash = q.content_hash and v.book = %(book)s)
            """
        ).format(**names),
        arguments,
    )
    return await _adopt_verdicts(conn, model, book)


async def _adopt_verdicts(conn: AsyncConnection[Any], model: Model, book: str) -> int:
    """Give each refused text of a book a row of its own; return how many texts nobody has judged."""
    cursor = await conn.execute(
        sql.SQL(
            """
            select distinct on (v.content_hash) v.content_hash, q.book, q.reason, q.detail, q.text, q.run_id
            from {table} as v
            left join era.quarantine as q
              on q.kind = 'text' and q.model = %(model)s and q.content_hash = v.content_hash
            where v.book = %(book)s and v.embedding is null
            order by v.content_hash, (q.book = %(book)s) desc nulls last
            """
        ).format(table=model.table),
        {"book": book, "model": model.name},
    )
    unjudged = 0
    judged = []
    for content_hash, owner, reason, detail, text, run_id in await cursor.fetchall():
        judged.append(content_hash)
        if reason is None:
            unjudged += 1
        elif owner != book:
            await refuse_texts(
                conn, model, [RefusedText(content_hash, text, reason, detail, book)], run_id=run_id
            )
    await conn.execute(
        """
        delete from era.quarantine
        where kind = 'text' and model = %s and book is null and content_hash = any(%s)
        """,
        (model.name, judged),
    )
    return unjudged


async def forgive_texts(conn: AsyncConnection[Any], model_id: int, hashes: Collection[bytes]) -> int:
    """Take refused texts out of quarantine so that they are asked for again; return how many rows went."""
    cursor = await conn.execute(
        """
        delete from era.quarantine
        where kind = 'text' and model = (select name from era.models where id = %s) and content_hash = any(%s)
        """,
        (model_id, list(hashes)),
    )
    return cursor.rowcount


def _text_id(model: str, content_hash: bytes, book: str | None) -> UUID:
    """Return the id of a refused text's row."""
    return uuid5(NAMESPACE, "\0".join(("text", model, content_hash.hex(), book or "")))
