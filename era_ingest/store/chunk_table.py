"""A book's chunks as an Arrow table: what is stored as Parquet and what ``store.books`` loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pyarrow as pa

from era_ingest.core.model import Category, Chunk
from era_ingest.core.record import BookRecord
from era_ingest.errors import MalformedDocumentError
from era_ingest.store.arrow import (
    fixed_binary_array,
    float64_array,
    int32_array,
    string_array,
    string_list_array,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RECORD_KEY = b"era.record"

_FIELDS: list[Any] = [
    pa.field("id", pa.binary(16), nullable=False),
    pa.field("book", pa.string(), nullable=False),
    pa.field("chapter", pa.int32(), nullable=False),
    pa.field("chapter_title", pa.string()),
    pa.field("category", pa.string(), nullable=False),
    pa.field("domains", pa.list_(pa.string()), nullable=False),
    pa.field("text", pa.string(), nullable=False),
    pa.field("weight", pa.float64(), nullable=False),
    pa.field("content_hash", pa.binary(32), nullable=False),
    pa.field("start_char", pa.int32()),
    pa.field("end_char", pa.int32()),
]
SCHEMA = pa.schema(_FIELDS, metadata={b"era.schema": b"1"})
"""Columns of a chunk: ids and hashes as raw bytes, offsets (characters) only with passages."""


@dataclass(frozen=True, slots=True)
class BookRows:
    """What is to be loaded of one book.

    Attributes:
        record: Its provenance, counts and defects.
        table: Its chunks, ``SCHEMA``, one row an id.
        run_id: The run that loads it.
        texts_embedded: Texts of it that this run sent to the embedder.
        texts_reused: Texts of it whose vectors were there.
    """

    record: BookRecord
    table: pa.Table
    run_id: str = ""
    texts_embedded: int = 0
    texts_reused: int = 0


def build_table(
    chunks: Iterable[Chunk],
    *,
    titles: Mapping[int, str | None] | None = None,
    record: BookRecord | None = None,
) -> pa.Table:
    """Return the chunks as a table.

    Args:
        chunks: Chunks of one book, unique by id, in document order.
        titles: Chapter titles by chapter index.
        record: The book's record; it travels in the table's metadata, see ``record_of``.
    """
    rows = list(chunks)
    titles = titles or {}
    arrays: list[Any] = [
        fixed_binary_array([chunk.id.bytes for chunk in rows], 16),
        string_array([chunk.book for chunk in rows]),
        int32_array([chunk.chapter for chunk in rows]),
        string_array([titles.get(chunk.chapter) for chunk in rows]),
        string_array([chunk.category.value for chunk in rows]),
        string_list_array([chunk.domains for chunk in rows]),
        string_array([chunk.text for chunk in rows]),
        float64_array([chunk.weight for chunk in rows]),
        fixed_binary_array([chunk.content_hash for chunk in rows], 32),
        int32_array([chunk.start for chunk in rows]),
        int32_array([chunk.end for chunk in rows]),
    ]
    schema = SCHEMA
    if record is not None:
        schema = schema.with_metadata({**(SCHEMA.metadata or {}), RECORD_KEY: record.to_json().encode()})
    return pa.table(arrays, schema=schema)


def record_of(table: pa.Table) -> BookRecord:
    """Return the record that travels with a table.

    Raises:
        MalformedDocumentError: The table carries none, or one of another version.
    """
    raw = (table.schema.metadata or {}).get(RECORD_KEY)
    try:
        return BookRecord.from_json(raw if raw is not None else b"")
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedDocumentError(
            "A chunk file carries no book record that this version reads: materialize its chunks again.",
            file="",
            reason="chunk_file",
        ) from error


def chunks_of(table: pa.Table) -> list[Chunk]:
    """Return the chunks of a table (titles are the chapters' and not among them)."""
    return [
        Chunk(
            id=UUID(bytes=row["id"]),
            book=row["book"],
            chapter=row["chapter"],
            category=Category(row["category"]),
            domains=tuple(row["domains"]),
            text=row["text"],
            weight=row["weight"],
            content_hash=row["content_hash"],
            start=row["start_char"],
            end=row["end_char"],
        )
        for row in table.select(SCHEMA.names).to_pylist()
    ]


def hashes_of(table: pa.Table) -> list[bytes]:
    """Return the distinct content hashes of a table, in its order."""
    return cast("list[bytes]", table.column("content_hash").unique().to_pylist())
