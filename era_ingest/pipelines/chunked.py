"""A book as it flows from reading to loading: its record, and its chunks as one Arrow table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from era_ingest.store.chunk_table import hashes_of, record_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from era_ingest.core.record import BookRecord


@dataclass(frozen=True)
class ChunkedBook:
    """A book between reading and loading.

    Attributes:
        record: Provenance and counts.
        table: Its chunks, of ``store.chunk_table.SCHEMA``.
    """

    record: BookRecord
    table: pa.Table

    @classmethod
    def from_table(cls, table: pa.Table) -> ChunkedBook:
        """Return the book whose chunks and record a Parquet file holds.

        Raises:
            MalformedDocumentError: The table carries no record.
        """
        return cls(record_of(table), table)

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return int(self.table.num_rows)

    @cached_property
    def hashes(self) -> list[bytes]:
        """Distinct content hashes of the chunks, in order."""
        return hashes_of(self.table)

    def texts_of(self, hashes: Sequence[bytes]) -> list[str]:
        """Return the texts of some of the hashes, in their order."""
        if not hashes:
            return []
        columns = (self.table.column(name).to_pylist() for name in ("content_hash", "text"))
        texts = dict(zip(*columns, strict=True))
        return [texts[content_hash] for content_hash in hashes]
