"""A book's chunks as an Arrow table: what is stored as Parquet and what ``store.books`` loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
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
BATCH_ROWS = 8_192

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


class ChunkTableBuilder:
    """Puts chunks into a table as they come; no more than ``BATCH_ROWS`` of them are held as objects."""

    def __init__(self) -> None:
        self._rows: list[tuple[Chunk, str | None]] = []
        self._batches: list[pa.RecordBatch] = []
        self._last_chapter = 0
        self._in_order = True
        self.passages = 0
        self.entries = 0

    def add(self, chunk: Chunk, *, title: str | None = None) -> None:
        """Add a chunk; ids are unique, and the chunks of a chapter follow one another.

        Args:
            chunk: The chunk.
            title: Its chapter's.
        """
        self._in_order = self._in_order and chunk.chapter >= self._last_chapter
        self._last_chapter = chunk.chapter
        if chunk.category is Category.PASSAGE:
            self.passages += 1
        else:
            self.entries += 1
        self._rows.append((chunk, title))
        if len(self._rows) == BATCH_ROWS:
            self._close_batch()

    def finish(self, record: BookRecord | None = None) -> pa.Table:
        """Return the table, ordered by chapter.

        Args:
            record: The book's record; it travels in the table's metadata, see ``record_of``.
        """
        self._close_batch()
        table = pa.Table.from_batches(self._batches, schema=SCHEMA)
        if not self._in_order:
            table = table.sort_by([("chapter", "ascending")])  # stable
        if record is None:
            return table
        return table.replace_schema_metadata(
            {**(SCHEMA.metadata or {}), RECORD_KEY: record.to_json().encode()}
        )

    def _close_batch(self) -> None:
        rows, self._rows = self._rows, []
        if not rows and self._batches:
            return
        arrays: list[Any] = [
            fixed_binary_array([chunk.id.bytes for chunk, _ in rows], 16),
            string_array([chunk.book for chunk, _ in rows]),
            int32_array([chunk.chapter for chunk, _ in rows]),
            string_array([title for _, title in rows]),
            string_array([chunk.category.value for chunk, _ in rows]),
            string_list_array([chunk.domains for chunk, _ in rows]),
            string_array([chunk.text for chunk, _ in rows]),
            float64_array([chunk.weight for chunk, _ in rows]),
            fixed_binary_array([chunk.content_hash for chunk, _ in rows], 32),
            int32_array([chunk.start for chunk, _ in rows]),
            int32_array([chunk.end for chunk, _ in rows]),
        ]
        self._batches.append(pa.record_batch(arrays, schema=SCHEMA))


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
        record: See ``ChunkTableBuilder.finish``.
    """
    builder = ChunkTableBuilder()
    for chunk in chunks:
        builder.add(chunk, title=(titles or {}).get(chunk.chapter))
    return builder.finish(record)


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
    return list(dict.fromkeys(table.column("content_hash").to_pylist()))
