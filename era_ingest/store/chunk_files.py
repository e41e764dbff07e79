"""Chunk files: one Parquet file a book, in a local folder or at an object-store URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from era_ingest.core.names import MAX_SLUG_BYTES
from era_ingest.errors import InvalidNameError, StoreUnavailableError
from era_ingest.store.atomic import remove_file, sweep_temporaries, write_bytes
from era_ingest.store.chunk_table import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".parquet"
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*")


class ChunkFiles:
    """The chunk files of one installation.

    Args:
        location: A folder (``~`` and ``file://`` are understood) or a URL that fsspec knows, such as
            ``s3://bucket/chunks``. It need not exist.
        storage_options: What fsspec is told besides the URL.
    """

    def __init__(self, location: str, **storage_options: Any) -> None:
        self._swept = False
        self._local: Path | None = None
        self._remote: Any = None
        if "://" in location and not location.startswith("file://"):
            from upath import UPath  # takes as long to import as an unchanged folder to look through

            self._remote = UPath(location, **storage_options)
        else:
            self._local = Path(location.removeprefix("file://")).expanduser()

    def path(self, slug: str) -> str:
        """Return the path or URL of a book's file."""
        return str(self._path(slug))

    def exists(self, slug: str) -> bool:
        """True if the book has a file."""
        return bool(self._path(slug).exists())

    def write(self, slug: str, table: pa.Table) -> bool:
        """Write a book's chunks; return False if the file held these bytes already and was left alone.

        The same table gives the same bytes. A reader sees the old file or the new one.

        Raises:
            StoreUnavailableError: The place is full, read-only or away; the old file is whole.
        """
        payload = encode(table)
        path = self._path(slug)
        try:
            if path.exists() and path.stat().st_size == len(payload) and path.read_bytes() == payload:
                return False
            if self._local is not None:
                self._local.mkdir(parents=True, exist_ok=True)
                write_bytes(Path(path), payload)
                self._sweep(self._local, Path(path))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(payload)  # object stores show an object when it is whole
        except OSError as error:
            raise StoreUnavailableError(
                f"The chunk file {path} cannot be written: {error}. Make room or mend the permissions."
            ) from error
        return True

    def read(self, slug: str) -> pa.Table:
        """Return a book's chunks, ``SCHEMA``, with the metadata they were written with.

        Raises:
            FileNotFoundError: The book has no file: its chunks were never materialized here.
            StoreUnavailableError: The file cannot be read, or is no Parquet.
        """
        path = self._path(slug)
        try:
            return decode(path.read_bytes())
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StoreUnavailableError(
                f"The chunk file {path} cannot be read: {error}. Materialize the book's chunks again."
            ) from error

    def delete(self, slug: str) -> bool:
        """Delete a book's file; return False if there was none."""
        path = self._path(slug)
        if self._local is not None:
            return remove_file(Path(path))
        if not path.exists():
            return False
        path.unlink()
        return True

    def slugs(self) -> Iterator[str]:
        """Yield the slugs of all files."""
        if self._local is not None:
            folder: Any = self._local
        else:
            folder = self._remote
        for name in sorted(item.name for item in folder.iterdir()) if folder.exists() else ():
            if name.endswith(SUFFIX) and not name.startswith("."):
                yield name.removesuffix(SUFFIX)

    def _sweep(self, folder: Path, written: Path) -> None:
        """Remove what killed writers left, once: the folder may hold 100,000 files."""
        if not self._swept:
            self._swept = True
            sweep_temporaries(folder, written.stat().st_mtime)

    def _path(self, slug: str) -> Any:
        if len(slug) > MAX_SLUG_BYTES or not _SLUG.fullmatch(slug):
            raise InvalidNameError(f"{slug!r} is no slug of a book.", name=slug, reason="slug")
        base = self._local if self._local is not None else self._remote
        return base / f"{slug}{SUFFIX}"


def encode(table: pa.Table) -> bytes:
    """Return a table as Parquet (zstd), the same bytes for the same table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_statistics=False)
    return bytes(sink.getvalue().to_pybytes())


def decode(payload: bytes) -> pa.Table:
    """Return the table of a Parquet file, its columns cast to ``SCHEMA`` where they were read otherwise.

    Raises:
        pyarrow.ArrowException: It is no Parquet, or not of chunks.
    """
    table = pq.read_table(pa.BufferReader(payload))
    return table.select(SCHEMA.names).cast(SCHEMA.with_metadata(table.schema.metadata))
