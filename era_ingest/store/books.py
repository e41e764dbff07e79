"""Loads a book's rows into a model's table: what is new goes in, what is gone goes out, the rest stays.

What a row says besides its id is condensed into a digest of 16 bytes that is stored with it. So finding out
what changed means sending ids and digests, not rows, and an unchanged book costs one query. New rows travel
without their vectors: those are in the embedding store already, and the database copies them from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from era_ingest.errors import PermanentError
from era_ingest.store.book_rows import (
    Touched,
    compare,
    delete_book_rows,
    delete_rows,
    fill_in,
    write_rows,
)
from era_ingest.store.chunk_table import BookRows
from era_ingest.store.domains import bump_domains
from era_ingest.store.models import all_models
from era_ingest.store.quarantine import replace_defects
from era_ingest.store.refused_texts import settle_texts
from era_ingest.store.row_digest import condense
from era_ingest.store.sources import record_source

if TYPE_CHECKING:
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
        defects_written: Quarantine rows written for the book's defects.
        changed_domains: Domains of all rows inserted, updated or deleted, before and after.
        doctrine_domains: Those of them whose doctrine changed: their minister files are out of date.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    defects_written: int = 0
    changed_domains: frozenset[str] = frozenset()
    doctrine_domains: frozenset[str] = frozenset()

    @property
    def written(self) -> int:
        """Rows inserted or updated."""
        return self.inserted + self.updated


async def load_book(
    conn: AsyncConnection[Any], model: Model, rows: BookRows, *, rewrite: bool = False
) -> LoadCounts:
    """Make a model's table hold exactly these rows of a book; note where they came from.

    Part of one transaction, which the caller ends: rows, provenance, defects and changed domains are seen
    together or not at all. The vectors of all texts must be in the embedding store, or their texts in
    quarantine. Two loads of one book run one after the other; loads of different books wait for each other
    at most in the last step, if they share domains. Load one book a transaction.

    Args:
        conn: A connection in a transaction, or about to begin one.
        model: The model whose vectors the rows get.
        rows: The book.
        rewrite: Write every row anew, also those that seem unchanged: mends rows that others damaged.

    Raises:
        PermanentError: A text has neither a vector nor a row in quarantine; roll back.
    """
    book = rows.record.name
    await _lock_book(conn, book)
    digests = condense(rows.table)
    touched = Touched()
    deleted = await delete_book_rows(conn, model, book, touched) if rewrite else 0
    difference = await compare(conn, model, book, digests)
    deleted += await delete_rows(conn, model, difference.delete, touched)
    updated = await write_rows(conn, model, rows.table, difference, digests=digests, touched=touched)
    if not difference.is_first:
        updated += await fill_in(conn, model, book, touched)
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
    touched = Touched()
    deleted = 0
    for model in await all_models(conn):
        seen = touched if model.active else Touched()
        count = await delete_book_rows(conn, model, book, seen)
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


async def _is_visible(conn: AsyncConnection[Any], model: Model) -> bool:
    """True if readers see the model's table; a switch to it waits until this transaction is over."""
    cursor = await conn.execute("select active from era.models where id = %s for share", (model.id,))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
