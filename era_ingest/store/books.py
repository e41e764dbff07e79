"""Loads a book's rows into a model's table: what is new goes in, what is gone goes out, the rest stays.

What a row says besides its id is condensed into a digest of 16 bytes that is stored with it. So finding out
what changed means sending ids and digests, not rows, and an unchanged book costs one query. New rows travel
without their vectors: those are in the embedding store already, and the database copies them from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psycopg import sql

from era_ingest.errors import PermanentError
from era_ingest.store.chunk_table import BookRows
from era_ingest.store.domains import bump_domains
from era_ingest.store.models import all_models
from era_ingest.store.quarantine import replace_defects, settle_texts
from era_ingest.store.row_digest import condense
from era_ingest.store.sources import record_source
from era_ingest.store.staging import fill_staging

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    import pyarrow as pa
    from psycopg import AsyncConnection

    from era_ingest.store.models import Model

__all__ = ["BookRows", "LoadCounts", "load_book", "remove_book"]

_BOOK_LOCKS = 0x65726102
"""First key of the advisory locks of books."""


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """What loading a book did to the model's table.

    Attributes:
        inserted: New rows.
        updated: Rows whose metadata changed, or whose text has a vector now.
        deleted: Rows that are gone.
        unchanged: Rows that stayed as they were.
        refused: Rows of the book without a vector; their texts are in quarantine.
        defects_written: Quarantine rows written for the book's defects.
        changed_domains: Domains of all rows inserted, updated or deleted, before and after.
        doctrine_domains: Those of them whose doctrine changed: their minister files are out of date.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    refused: int = 0
    defects_written: int = 0
    changed_domains: frozenset[str] = frozenset()
    doctrine_domains: frozenset[str] = frozenset()

    @property
    def written(self) -> int:
        """Rows inserted or updated."""
        return self.inserted + self.updated


@dataclass(slots=True)
class _Touched:
    """Domains that a load touches; doctrine among them decides on minister files."""

    every: set[str] = field(default_factory=set)
    doctrine: set[str] = field(default_factory=set)

    def add(self, domains: Iterable[str], category: str) -> None:
        self.every.update(domains)
        if category != "passage":
            self.doctrine.update(domains)


@dataclass(slots=True)
class _Difference:
    """Positions in the new table to insert and to update; ids to delete; the number of equal rows."""

    insert: Sequence[int]
    update: list[int]
    delete: list[UUID]


async def load_book(conn: AsyncConnection[Any], model: Model, rows: BookRows) -> LoadCounts:
    """Make a model's table hold exactly these rows of a book; note where they came from.

    Part of one transaction, which the caller ends: rows, provenance, defects and changed domains are seen
    together or not at all. The vectors of all texts must be in the embedding store, or their texts in
    quarantine. Two loads of one book run one after the other; loads of different books wait for each other
    at most in the last step, if they share domains. Load one book a transaction.

    Args:
        conn: A connection in a transaction, or about to begin one.
        model: The model whose vectors the rows get.
        rows: The book.

    Raises:
        PermanentError: A text has neither a vector nor a row in quarantine; roll back.
    """
    book = rows.record.name
    await _lock_book(conn, book)
    digests = condense(rows.table)
    difference = await _compare(conn, model, book, digests)
    touched = _Touched()
    deleted = await _delete(conn, model, difference.delete, touched)
    updated = await _write(conn, model, rows.table, difference, digests=digests, touched=touched)
    updated += await _fill_in(conn, model, book, touched)
    unjudged = await settle_texts(conn, model, book)
    if unjudged:
        raise PermanentError(
            f"{unjudged} texts of the book {book!r} have neither a vector of {model.name} nor a row in "
            "quarantine: materialize its embeddings first."
        )
    await record_source(conn, model, rows)
    defects = await replace_defects(conn, book, rows.record.defects, run_id=rows.run_id)
    if touched.every and await _is_visible(conn, model):
        await bump_domains(
            conn,
            changed=touched.every,
            doctrine_changed=touched.doctrine,
            modified_at=datetime.fromtimestamp(rows.record.modified_ns // 1_000_000_000, UTC),
        )
    return LoadCounts(
        inserted=len(difference.insert),
        updated=updated,
        deleted=deleted,
        unchanged=max(0, len(digests) - len(difference.insert) - updated),
        refused=await _count_refused(conn, model, book),
        defects_written=defects,
        changed_domains=frozenset(touched.every),
        doctrine_domains=frozenset(touched.doctrine),
    )


async def remove_book(
    conn: AsyncConnection[Any], slug: str, *, removed_at: datetime | None = None
) -> LoadCounts:
    """Take a book out of every model's table, the sources and the quarantine; its vectors stay in the store.

    Part of one transaction, which the caller ends. A book that is not there is no error.

    Args:
        conn: A connection.
        slug: The book's partition key.
        removed_at: When the removal was seen; minister files then give it as their last update.
    """
    cursor = await conn.execute("select book from era.doctrine_sources where slug = %s", (slug,))
    row = await cursor.fetchone()
    if row is None:
        return LoadCounts()
    book = str(row[0])
    await _lock_book(conn, book)
    touched = _Touched()
    deleted = 0
    for model in await all_models(conn):
        seen = touched if model.active else _Touched()
        count = await _delete_where(conn, model, sql.SQL("book = %(book)s"), {"book": book}, seen)
        deleted += count if model.active else 0
    await conn.execute("delete from era.quarantine where book = %s", (book,))
    await conn.execute("delete from era.doctrine_sources where book = %s", (book,))
    await bump_domains(conn, changed=touched.every, doctrine_changed=touched.doctrine, modified_at=removed_at)
    return LoadCounts(
        deleted=deleted,
        changed_domains=frozenset(touched.every),
        doctrine_domains=frozenset(touched.doctrine),
    )


async def _lock_book(conn: AsyncConnection[Any], book: str) -> None:
    await conn.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_BOOK_LOCKS, book))


async def _compare(
    conn: AsyncConnection[Any], model: Model, book: str, digests: dict[bytes, bytes]
) -> _Difference:
    """Find out what changed; only differences come back."""
    cursor = await conn.execute(
        sql.SQL("select exists (select from {table} where book = %s)").format(table=model.table), (book,)
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return _Difference(range(len(digests)), [], [])
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                select n.position, o.id
                from unnest(%b::bytea[], %b::bytea[]) with ordinality as n (id, digest, position)
                full join (select id, uuid_send(id) as raw, uuid_send(digest) as digest
                           from {table} where book = %s) as o
                  on o.raw = n.id
                where n.digest is distinct from o.digest
                order by n.position
                """
            ).format(table=model.table),
            (list(digests), list(digests.values()), book),
        )
        found = await cursor.fetchall()
    return _Difference(
        insert=[position - 1 for position, old in found if position is not None and old is None],
        update=[position - 1 for position, old in found if position is not None and old is not None],
        delete=[old for position, old in found if position is None],
    )


async def _delete(conn: AsyncConnection[Any], model: Model, ids: list[UUID], touched: _Touched) -> int:
    if not ids:
        return 0
    return await _delete_where(conn, model, sql.SQL("id = any(%(ids)s)"), {"ids": ids}, touched)


async def _delete_where(
    conn: AsyncConnection[Any], model: Model, condition: sql.SQL, values: dict[str, Any], touched: _Touched
) -> int:
    cursor = await conn.execute(
        sql.SQL(
            """
            with gone as (delete from {table} where {condition} returning category, domains)
            select category, domains, count(*) from gone group by category, domains
            """
        ).format(table=model.table, condition=condition),
        values,
    )
    deleted = 0
    for category, domains, count in await cursor.fetchall():
        touched.add(domains, category)
        deleted += int(count)
    return deleted


async def _write(
    conn: AsyncConnection[Any],
    model: Model,
    table: pa.Table,
    difference: _Difference,
    *,
    digests: dict[bytes, bytes],
    touched: _Touched,
) -> int:
    """Insert and update by way of the staging table; return how many rows were updated."""
    if not difference.insert and not difference.update:
        return 0
    for category, domains in await fill_staging(
        conn, table, digests, inserts=difference.insert, updates=difference.update
    ):
        touched.add(domains, category)
    updated = 0
    if difference.update:
        updated = await _update_from_staging(conn, model, touched)
    if difference.insert:
        # The scalar subquery is what keeps the planner at one index look-up a row: a join to a table without
        # statistics may well read the whole embedding store instead.
        await conn.execute(
            sql.SQL(
                """
                insert into {table} (id, digest, weight, chapter, start_char, end_char, content_hash,
                                     category, book, domains, chapter_title, text, embedding)
                select id, digest, weight, chapter, start_char, end_char, content_hash, category,
                       book, domains, chapter_title, text,
                       (select e.embedding from era.embeddings as e
                        where e.model_id = %s and e.content_hash = s.content_hash)
                from pg_temp.era_staging as s where not s.known
                """
            ).format(table=model.table),
            (model.id,),
        )
    return updated


async def _update_from_staging(conn: AsyncConnection[Any], model: Model, touched: _Touched) -> int:
    cursor = await conn.execute(
        sql.SQL(
            """
            select distinct v.category, v.domains from {table} as v
            join pg_temp.era_staging as s on s.id = v.id and s.known
            """
        ).format(table=model.table)
    )
    for category, domains in await cursor.fetchall():
        touched.add(domains, category)
    cursor = await conn.execute(
        sql.SQL(
            """
            update {table} as v
            set digest = s.digest, weight = s.weight, start_char = s.start_char, end_char = s.end_char,
                domains = s.domains, chapter_title = s.chapter_title
            from pg_temp.era_staging as s where s.id = v.id and s.known
            """
        ).format(table=model.table)
    )
    return cursor.rowcount


async def _fill_in(conn: AsyncConnection[Any], model: Model, book: str, touched: _Touched) -> int:
    """Give rows whose text was refused before their vector, where there is one by now."""
    cursor = await conn.execute(
        sql.SQL(
            """
            update {table} as v set embedding = e.embedding from era.embeddings as e
            where v.book = %s and v.embedding is null and e.model_id = %s and e.content_hash = v.content_hash
            returning v.category, v.domains
            """
        ).format(table=model.table),
        (book, model.id),
    )
    filled = await cursor.fetchall()
    for category, domains in filled:
        touched.add(domains, category)
    return len(filled)


async def _count_refused(conn: AsyncConnection[Any], model: Model, book: str) -> int:
    cursor = await conn.execute(
        sql.SQL("select count(*) from {table} where book = %s and embedding is null").format(
            table=model.table
        ),
        (book,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def _is_visible(conn: AsyncConnection[Any], model: Model) -> bool:
    """True if readers see the model's table; a switch to it waits until this transaction is over."""
    cursor = await conn.execute("select active from era.models where id = %s for share", (model.id,))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
