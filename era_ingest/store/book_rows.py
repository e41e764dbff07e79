"""The rows of one book in a model's table: find out what differs, and write just that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import sql

from era_ingest.store.binary import BytesArray
from era_ingest.store.staging import fill_staging

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    import pyarrow as pa
    from psycopg import AsyncConnection

    from era_ingest.store.models import Model


@dataclass(slots=True)
class Touched:
    """Domains that a load touches.

    Attributes:
        every: Domains of all rows that change.
        doctrine: Domains of the entries among them: what minister files are built from.
    """

    every: set[str] = field(default_factory=set)
    doctrine: set[str] = field(default_factory=set)

    def add(self, domains: Iterable[str], category: str) -> None:
        """Note that a row of this category and these domains changes."""
        self.every.update(domains)
        if category != "passage":
            self.doctrine.update(domains)


@dataclass(slots=True)
class Difference:
    """What is to be done to make the table equal to the new rows.

    Attributes:
        insert: Positions of new rows, rising.
        update: Positions of rows that are there with other metadata, rising.
        delete: Ids of rows that are gone.
        is_first: True if the table holds no row of the book yet.
    """

    insert: Sequence[int]
    update: list[int]
    delete: list[UUID]
    is_first: bool = False


async def compare(
    conn: AsyncConnection[Any], model: Model, book: str, digests: dict[bytes, bytes]
) -> Difference:
    """Find out what changed; only differences come back."""
    cursor = await conn.execute(
        sql.SQL("select exists (select from {table} where book = %s)").format(table=model.table), (book,)
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return Difference(range(len(digests)), [], [], is_first=True)
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                select n.position, o.id
                from unnest(%b, %b) with ordinality as n (id, digest, position)
                full join (select id, uuid_send(id) as raw, uuid_send(digest) as digest
                           from {table} where book = %s) as o
                  on o.raw = n.id
                where n.digest is distinct from o.digest
                order by n.position
                """
            ).format(table=model.table),
            (BytesArray(digests), BytesArray(digests.values()), book),
        )
        found = await cursor.fetchall()
    return Difference(
        insert=[position - 1 for position, old in found if position is not None and old is None],
        update=[position - 1 for position, old in found if position is not None and old is not None],
        delete=[old for position, old in found if position is None],
    )


async def delete_rows(conn: AsyncConnection[Any], model: Model, ids: list[UUID], touched: Touched) -> int:
    """Delete rows by their ids; return how many."""
    if not ids:
        return 0
    return await _delete_where(conn, model, sql.SQL("id = any(%(ids)s)"), {"ids": ids}, touched)


async def delete_book_rows(conn: AsyncConnection[Any], model: Model, book: str, touched: Touched) -> int:
    """Delete all rows of a book; return how many."""
    return await _delete_where(conn, model, sql.SQL("book = %(book)s"), {"book": book}, touched)


async def _delete_where(
    conn: AsyncConnection[Any], model: Model, condition: sql.SQL, values: dict[str, Any], touched: Touched
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


async def write_rows(
    conn: AsyncConnection[Any],
    model: Model,
    table: pa.Table,
    difference: Difference,
    *,
    digests: dict[bytes, bytes],
    touched: Touched,
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


async def _update_from_staging(conn: AsyncConnection[Any], model: Model, touched: Touched) -> int:
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


async def fill_in(conn: AsyncConnection[Any], model: Model, book: str, touched: Touched) -> int:
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
