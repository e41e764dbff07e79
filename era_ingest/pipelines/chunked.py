"""A book as it flows: its record, and its chunks as one Arrow table (the form that Parquet keeps)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from era_ingest.core.record import BookRecord
from era_ingest.errors import MalformedDocumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from era_ingest.core.model import Book, Chunk

RECORD_KEY = b"era_ingest.record"
"""Key of the record in the table's schema metadata."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("book", pa.string(), nullable=False),
        pa.field("chapter", pa.int32(), nullable=False),
        pa.field("chapter_title", pa.string()),
        pa.field("category", pa.string(), nullable=False),
        pa.field("domains", pa.list_(pa.string()), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("content_hash", pa.binary(32), nullable=False),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
    ]
)
"""Columns of the chunks' Parquet files. ``start`` and ``end`` are offsets of a passage, in characters, into its
chapter's cleaned text; null for doctrine."""


@dataclass(frozen=True)
class ChunkedBook:
    """A book between reading and loading.

    Attributes:
        record: Provenance and counts.
        table: Its chunks, of ``SCHEMA``.
    """

    record: BookRecord
    table: pa.Table

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return int(self.table.num_rows)

    @cached_property
    def _hashes(self) -> list[bytes]:
        hashes: list[bytes] = self.table.column("content_hash").to_pylist()
        return hashes

    def hashes(self) -> list[bytes]:
        """Content hashes of the chunks, in order, with repeats."""
        return self._hashes

    def texts_of(self, hashes: Sequence[bytes]) -> list[str]:
        """Return the texts of some of the hashes, in their order."""
        if not hashes:
            return []
        wanted = pa.array(hashes, type=pa.binary(32))
        positions = pc.index_in(wanted, value_set=self.table.column("content_hash").combine_chunks())
        texts: list[str] = self.table.column("text").take(positions).to_pylist()
        return texts

    def with_record(self) -> pa.Table:
        """Return the table with the record in its schema's metadata, as it is written to Parquet."""
        return self.table.replace_schema_metadata({RECORD_KEY: self.record.to_json().encode()})

    @classmethod
    def from_table(cls, table: pa.Table, *, file: str) -> ChunkedBook:
        """Return the book that ``with_record`` wrote.

        Raises:
            MalformedDocumentError: The table was written by something else.
        """
        try:
            record = BookRecord.from_json((table.schema.metadata or {})[RECORD_KEY])
            return cls(record, table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None))
        except (KeyError, ValueError, TypeError) as error:
            raise MalformedDocumentError(
                f"{file} does not hold chunks of era_ingest ({error}): materialize `chunks` again.",
                file=file,
                reason="not_chunks",
            ) from error


def build_table(chunks: Sequence[Chunk], titles: dict[int, str | None]) -> pa.Table:
    """Return chunks as a table of ``SCHEMA``.

    Args:
        chunks: In the order they are to be stored.
        titles: Chapter titles by chapter index.
    """
    columns = {
        "id": [str(chunk.id) for chunk in chunks],
        "book": [chunk.book for chunk in chunks],
        "chapter": [chunk.chapter for chunk in chunks],
        "chapter_title": [titles.get(chunk.chapter) for chunk in chunks],
        "category": [chunk.category.value for chunk in chunks],
        "domains": [list(chunk.domains) for chunk in chunks],
        "text": [chunk.text for chunk in chunks],
        "weight": [chunk.weight for chunk in chunks],
        "content_hash": [chunk.content_hash for chunk in chunks],
        "start": [chunk.start for chunk in chunks],
        "end": [chunk.end for chunk in chunks],
    }
    return pa.table(columns, schema=SCHEMA)


def chapter_titles(book: Book) -> dict[int, str | None]:
    """Return the titles of a book's chapters by index."""
    return {chapter.index: chapter.title for chapter in book.chapters}


def domains_of(table: pa.Table) -> Collection[str]:
    """Return the distinct domains of a table's chunks, sorted."""
    flat = pc.list_flatten(table.column("domains"))
    return sorted(pc.unique(flat).to_pylist())
