"""Chunk files: Parquet that gives back what was put in, the same bytes for the same chunks."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from upath import UPath

from era_ingest.core.names import book_slug
from era_ingest.errors import InvalidNameError, MalformedDocumentError, StoreUnavailableError
from era_ingest.store.atomic import prepare_bytes
from era_ingest.store.chunk_files import ChunkFiles, encode
from era_ingest.store.chunk_table import SCHEMA, build_table, chunks_of, hashes_of, record_of
from era_ingest_tests.postgres.store_kit import chapter, rows

if TYPE_CHECKING:
    from pathlib import Path

BOOK = rows("A book", [chapter(0, "war", "peace", passages=2), chapter(1)])
SLUG = BOOK.record.slug


@pytest.fixture(params=["folder", "file URL", "memory URL"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> ChunkFiles:
    """Chunk files in each kind of place."""
    places = {
        "folder": str(tmp_path / "chunks é"),
        "file URL": f"file://{tmp_path}/chunks",
        "memory URL": f"memory://{tmp_path.name}/chunks",
    }
    return ChunkFiles(places[request.param])


def test_chunks_come_back_as_they_were(files: ChunkFiles) -> None:
    """Table, chunks and the book's record survive."""
    assert not files.exists(SLUG)
    assert files.write(SLUG, BOOK.table)
    table = files.read(SLUG)
    assert table.equals(BOOK.table)
    assert table.schema.equals(SCHEMA)
    assert record_of(table) == BOOK.record
    assert build_table(chunks_of(table), titles={0: "Chapter 0", 1: "Chapter 1"}).equals(BOOK.table)


def test_equal_chunks_are_not_written_again(files: ChunkFiles) -> None:
    """A second write of the same leaves the file alone; another one replaces it."""
    files.write(SLUG, BOOK.table)
    assert not files.write(SLUG, BOOK.table)
    assert files.write(SLUG, BOOK.table.slice(1))
    assert files.read(SLUG).num_rows == BOOK.table.num_rows - 1


def test_files_are_listed_and_deleted(files: ChunkFiles) -> None:
    """Slugs of all files are known, and a deleted one is gone."""
    assert list(files.slugs()) == []
    for slug in ("b", "a"):
        files.write(slug, BOOK.table)
    assert list(files.slugs()) == ["a", "b"]
    assert files.delete("a")
    assert not files.delete("a")
    assert list(files.slugs()) == ["b"]


def test_missing_file_is_told_from_a_broken_one(tmp_path: Path) -> None:
    """No file means that chunks were never made; a file that is no Parquet says what to do."""
    files = ChunkFiles(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        files.read(SLUG)
    (tmp_path / f"{SLUG}.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreUnavailableError, match="Materialize the book's chunks again"):
        files.read(SLUG)


@pytest.mark.parametrize("slug", ["", "../a", "a/b", ".hidden", "A"])
def test_slug_that_is_none_is_refused(tmp_path: Path, slug: str) -> None:
    """A name cannot lead out of the folder."""
    with pytest.raises(InvalidNameError):
        ChunkFiles(str(tmp_path)).write(slug, BOOK.table)


def test_longest_slug_has_a_file(tmp_path: Path) -> None:
    """A name that was cut to the longest slug is a file name like any other."""
    slug = book_slug("A long name " * 20)
    assert ChunkFiles(str(tmp_path)).write(slug, BOOK.table)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old chunks whole and no temporary file."""
    files = ChunkFiles(str(tmp_path))
    files.write(SLUG, BOOK.table)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        files.write(SLUG, BOOK.table.slice(1))
    assert files.read(SLUG).equals(BOOK.table)
    assert [path.name for path in tmp_path.iterdir()] == [f"{SLUG}.parquet"]


def test_same_chunks_give_the_same_bytes() -> None:
    """Bytes do not depend on how the table was put together."""
    again = rows("A book", [chapter(0, "war", "peace", passages=2), chapter(1)])
    pieces = [BOOK.table.slice(0, 3), BOOK.table.slice(3)]
    assert encode(again.table) == encode(BOOK.table) == encode(pa.concat_tables(pieces))


def test_table_without_a_record_is_refused() -> None:
    """A file that an older version wrote is named as such."""
    with pytest.raises(MalformedDocumentError, match="materialize its chunks again"):
        record_of(BOOK.table.replace_schema_metadata({}))


def test_hashes_are_distinct_and_in_order() -> None:
    """Each text is asked for once, in the book's order."""
    doubled = rows("A book", [chapter(0), replace(chapter(0), title="Again")])
    assert len(hashes_of(doubled.table)) == 5
    assert hashes_of(doubled.table)[0] == doubled.table["content_hash"][0].as_py()


def test_url_is_shown_as_it_was_given() -> None:
    """The place of a book's chunks can be named to a person."""
    path = ChunkFiles("memory://bucket/chunks").path("a")
    assert UPath(path).name == "a.parquet"


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    """It goes with the first write; what a living writer has open stays."""
    left = tmp_path / ".era-left.tmp"
    left.write_bytes(b"half a file")
    living = prepare_bytes(tmp_path / "another.parquet", b"a whole file")
    ChunkFiles(str(tmp_path)).write(SLUG, BOOK.table)
    assert not left.exists()
    living.publish()
    assert (tmp_path / "another.parquet").read_bytes() == b"a whole file"
