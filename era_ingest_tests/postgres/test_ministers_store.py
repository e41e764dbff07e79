"""Minister files from the database: whole, current, and only written where they differ."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest.core.minister import DOMAIN_FILES
from era_ingest.errors import StoreUnavailableError
from era_ingest.store import ministers
from era_ingest.store.atomic import GrowingFile, PendingFile
from era_ingest.store.books import remove_book
from era_ingest.store.domains import domain_states
from era_ingest.store.minister_files import DomainWriter, FileChanges
from era_ingest_tests.postgres.store_kit import MTIME_S, Store, chapter, rows

if TYPE_CHECKING:
    from pathlib import Path


async def _publish(store: Store, root: Path, *domains: str) -> list[ministers.PublishedDomain]:
    published = []
    for domain in domains:
        async with store.database.connection() as conn:
            published.append(await ministers.publish_domain(conn, root, domain))
    return published


def _inodes(root: Path) -> dict[Path, int]:
    """Return every path below a folder, sorted, with its inode: a file that was replaced has another."""
    return {path: path.stat().st_ino for path in sorted(root.rglob("*"))}


def _read(root: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / name).read_bytes())
    return value


async def test_every_entry_stands_in_the_files_of_its_domains(store: Store, tmp_path: Path) -> None:
    """Files name each entry of the domain once, by category, with its source and its vector."""
    await store.load(rows("Book", [chapter(3, "war", "peace"), chapter(1, "peace")]))
    await _publish(store, tmp_path, "war", "peace")
    rules = _read(tmp_path, "peace/rules.json")
    assert [entry["text"] for entry in rules["entries"]] == [
        "Statement 1 of chapter 3",
        "Statement 1 of chapter 1",
    ]
    assert rules["meta"] == {
        "total_entries": 2,
        "last_updated": "2023-11-14T22:13:20Z",
        "aggregated_from": [{"book": "Book", "chapter": 0}, {"book": "Book", "chapter": 1}],
    }
    ids = {str(row[0]) for row in await store.fetch("select id from doctrine_embeddings_all")}
    assert {entry["embedding_id"] for entry in rules["entries"]} <= ids
    assert len(_read(tmp_path, "war/doctrine.json")["warnings"]) == 1


async def test_rebuild_without_a_change_writes_nothing(store: Store, tmp_path: Path) -> None:
    """Building again leaves every file as it is, the database too."""
    await store.load(rows("Book", [chapter(0, "war")]))
    await _publish(store, tmp_path, "war")
    before = _inodes(tmp_path)
    states = await store.fetch("select xmin::text, * from era.domains")
    (again,) = await _publish(store, tmp_path, "war")
    assert again.changes.written == ()
    assert _inodes(tmp_path) == before
    assert await store.fetch("select xmin::text, * from era.domains") == states


async def test_change_reaches_only_the_files_that_it_concerns(store: Store, tmp_path: Path) -> None:
    """A book that changes one domain later leaves the bytes of the others, times included."""
    old = [chapter(0, "war"), chapter(1, "peace")]
    await store.load(rows("Book", old))
    await _publish(store, tmp_path, "war", "peace")
    before = {name: (tmp_path / name).read_bytes() for name in ("peace/rules.json", "peace/doctrine.json")}
    changed = replace(old[0], entries=old[0].entries[:-1])
    await store.load(rows("Book", [changed, old[1]], mtime_s=MTIME_S + 3600))
    war, peace = await _publish(store, tmp_path, "war", "peace")
    assert peace.changes.written == ()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert "war/warnings.json" in war.changes.written
    assert _read(tmp_path, "war/rules.json")["meta"]["last_updated"] == "2023-11-14T23:13:20Z"


async def test_domain_without_entries_loses_its_files_and_keeps_those_of_others(
    store: Store, tmp_path: Path
) -> None:
    """Our files go with the last entry; somebody else's file and folder stay."""
    book = rows("Book", [chapter(0, "war", "peace")])
    await store.load(book)
    await _publish(store, tmp_path, "war", "peace")
    (tmp_path / "war" / "notes.txt").write_text("mine")
    async with store.database.connection() as conn:
        await remove_book(conn, book.record.slug, removed_at=datetime(2026, 1, 1, tzinfo=UTC))
    war, _ = await _publish(store, tmp_path, "war", "peace")
    assert war.changes.removed == tuple(f"war/{name}" for name in DOMAIN_FILES)
    assert [path.relative_to(tmp_path).as_posix() for path in _inodes(tmp_path)] == ["war", "war/notes.txt"]


async def test_combined_index_counts_the_published_domains(store: Store, tmp_path: Path) -> None:
    """The index beside the folders lists domains, counts and the model."""
    await store.load(rows("Book", [chapter(0, "war", "peace"), chapter(1, "peace")]))
    await _publish(store, tmp_path, "war", "peace")
    async with store.database.connection() as conn:
        assert (await ministers.publish_combined(conn, tmp_path)).written == ("combined_vector.index",)
    async with store.database.connection() as conn:
        assert (await ministers.publish_combined(conn, tmp_path)).written == ()
    index = _read(tmp_path, "combined_vector.index")
    assert index["domains_included"] == ["peace", "war"]
    assert index["domain_statistics"]["peace"]["total_entries"] == 8
    assert index["metadata"]["model"] == "hashing/8"
    assert index["metadata"]["last_updated"] == "2023-11-14T22:13:20Z"


async def test_change_during_a_build_is_not_lost(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that commits while the files are written leaves the domain stale."""
    await store.load(rows("Book", [chapter(0, "war")]))
    publish = DomainWriter.publish
    loop = asyncio.get_running_loop()

    def publish_late(writer: DomainWriter) -> FileChanges:
        loading = asyncio.run_coroutine_threadsafe(store.load(rows("Other", [chapter(1, "war")])), loop)
        loading.result(30)
        return publish(writer)

    monkeypatch.setattr(DomainWriter, "publish", publish_late)
    await _publish(store, tmp_path, "war")
    monkeypatch.undo()
    async with store.database.connection() as conn:
        assert (await domain_states(conn))["war"].files_stale


async def test_builders_of_one_domain_take_turns(store: Store, tmp_path: Path) -> None:
    """Many builders at once leave whole, current files."""
    await store.load(rows("Book", [chapter(0, "war")]))
    await asyncio.gather(*(_publish(store, tmp_path, "war") for _ in range(6)))
    assert len(_read(tmp_path, "war/doctrine.json")["rules"]) == 1
    assert not [path for path in _inodes(tmp_path) if path.name.startswith(".era-")]


async def test_full_disk_leaves_the_old_domain(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full before the last file is written, no file of the domain has changed."""
    await store.load(rows("Book", [chapter(0, "war")]))
    await _publish(store, tmp_path, "war")
    before = {path.name: path.read_bytes() for path in (tmp_path / "war").iterdir()}
    await store.load(rows("Other", [chapter(1, "war")]))
    finished: list[GrowingFile] = []
    finish = GrowingFile.finish

    def fill_up(growing: GrowingFile) -> PendingFile:
        finished.append(growing)
        if len(finished) == 2:
            raise OSError(28, "No space left on device")
        return finish(growing)

    monkeypatch.setattr(GrowingFile, "finish", fill_up)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        await _publish(store, tmp_path, "war")
    assert {path.name: path.read_bytes() for path in (tmp_path / "war").iterdir()} == before
    async with store.database.connection() as conn:
        assert (await domain_states(conn))["war"].files_stale
