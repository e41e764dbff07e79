"""The staging table of one session: new rows on their way into a model's table, without their vectors."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from psycopg import AsyncConnection

_BATCH_ROWS = 4_096
_TEXT_OID = 25
_TYPES = (
    "bool",
    "bytea",  # id and digest: a uuid on the wire is its 16 bytes
    "bytea",
    "float8",
    "int4",
    "int4",
    "int4",
    "bytea",
    "text",
    "text",
    "bytea",  # domains, encoded here: the same few arrays over and over
    "text",
    "text",
)
_READ = (
    "id",
    "weight",
    "chapter",
    "start_char",
    "end_char",
    "content_hash",
    "category",
    "book",
    "domains",
    "chapter_title",
    "text",
)


async def fill_staging(
    conn: AsyncConnection[Any],
    table: pa.Table,
    digests: dict[bytes, bytes],
    *,
    inserts: Sequence[int],
    updates: Sequence[int],
) -> set[tuple[str, tuple[str, ...]]]:
    """Copy rows into ``pg_temp.era_staging``, emptied before; return their (category, domains) pairs.

    Args:
        conn: A connection in a transaction; the table is empty again when it ends.
        table: Rows of one book.
        digests: Digests by id.
        inserts: Positions of the rows that are new.
        updates: Positions of the rows that are there with other metadata; marked ``known``.
    """
    await conn.execute(
        """
        create temporary table if not exists era_staging (
            known boolean, id uuid, digest uuid, weight double precision, chapter integer,
            start_char integer, end_char integer, content_hash bytea, category text, book text,
            domains text[], chapter_title text, text text
        ) on commit delete rows
        """
    )
    await conn.execute("delete from pg_temp.era_staging")
    pairs: set[tuple[str, tuple[str, ...]]] = set()
    encoded: dict[tuple[str, ...], bytes] = {}
    async with (
        conn.cursor() as cursor,
        cursor.copy("copy pg_temp.era_staging from stdin (format binary)") as copy,
    ):
        copy.set_types(_TYPES)
        for known, positions in ((False, inserts), (True, updates)):
            for row in _rows(table, positions):
                identifier, weight, chapter, start, end, content_hash, category, book, listed, title, text = (
                    row
                )
                domains = tuple(listed)
                pairs.add((category, domains))
                if domains not in encoded:
                    encoded[domains] = encode_text_array(domains)
                await copy.write_row(
                    (
                        known,
                        identifier,
                        digests[identifier],
                        weight,
                        chapter,
                        start,
                        end,
                        content_hash,
                        category,
                        book,
                        encoded[domains],
                        title,
                        text,
                    )
                )
    return pairs


def _rows(table: pa.Table, positions: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows at the positions, some thousands at a time."""
    if not len(positions):
        return
    chosen = table.select(list(_READ))
    whole = len(positions) == table.num_rows
    for start in range(0, len(positions), _BATCH_ROWS):
        part = (
            chosen.slice(start, _BATCH_ROWS)
            if whole
            else chosen.take(list(positions[start : start + _BATCH_ROWS]))
        )
        yield from zip(*(column.to_pylist() for column in part.columns), strict=True)


def encode_text_array(items: Sequence[str]) -> bytes:
    """Return a ``text[]`` as PostgreSQL sends and takes it in binary (array_send, big-endian)."""
    if not items:
        return struct.pack(">iii", 0, 0, _TEXT_OID)
    parts = [struct.pack(">iiiii", 1, 0, _TEXT_OID, len(items), 1)]
    for item in items:
        raw = item.encode()
        parts.append(struct.pack(">i", len(raw)) + raw)
    return b"".join(parts)
