"""The audit: it is silent where all is well, and names each thing that was damaged."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.audit import Severity
from era_ingest.core.ids import content_hash
from era_ingest.core.model import Defect
from era_ingest.store import ministers, refused_texts, views
from era_ingest.store.audit import audit
from era_ingest.store.books import load_book
from era_ingest.store.refused_texts import RefusedText
from era_ingest_tests.postgres.store_kit import Store, chapter, rows

if TYPE_CHECKING:
    from pathlib import Path

    from era_ingest.core.audit import Finding
    from era_ingest.store.chunk_table import BookRows


def _from_file(book: BookRows, path: Path) -> BookRows:
    """Let a book come from a real file."""
    path.write_bytes(b"the book")
    digest = sha256(b"the book").hexdigest()
    file = replace(book.record.files[0], path=str(path), sha256=digest)
    return replace(book, record=replace(book.record, files=(file,)))


@pytest.fixture
async def loaded(store: Store, tmp_path: Path) -> Store:
    """A store with two books, their views and minister files."""
    first = rows("First", [chapter(0, "war"), chapter(1, "peace")])
    await store.load(_from_file(first, tmp_path / "first.json"))
    await store.load(_from_file(rows("Second", [chapter(2, "war")]), tmp_path / "second.json"))
    await views.ensure_views(store.database, ["war", "peace"])
    async with store.database.connection() as conn:
        for domain in ("war", "peace"):
            await ministers.publish_domain(conn, tmp_path / "ministers", domain)
        await ministers.publish_combined(conn, tmp_path / "ministers")
    return store


async def _audit(store: Store, tmp_path: Path, **options: object) -> list[Finding]:
    async with store.database.connection() as conn:
        found = await audit(conn, ministers_dir=tmp_path / "ministers", read_sources=True, **options)  # type: ignore[arg-type]
    return list(found)


async def _codes(store: Store, tmp_path: Path) -> set[tuple[str, str]]:
    return {(finding.code, finding.subject) for finding in await _audit(store, tmp_path)}


async def test_sound_installation_has_no_finding(loaded: Store, tmp_path: Path) -> None:
    """Right after loading nothing is found."""
    assert await _audit(loaded, tmp_path) == []


async def test_empty_installation_has_no_finding(store: Store, tmp_path: Path) -> None:
    """Before the first load nothing is found."""
    assert await _audit(store, tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (
            "delete from era.vectors_1 where book = 'First' and category = 'passage'",
            {("lost_rows", "First")},
        ),
        (
            """
            insert into era.vectors_1 select gen_random_uuid(), digest, weight, chapter, start_char, end_char,
                content_hash, category, book, domains, chapter_title, text, embedding
            from era.vectors_1 where book = 'First' and category = 'passage' limit 1
            """,
            {("doubled_rows", "First")},
        ),
        (
            "update era.vectors_1 set embedding = '[0,0,0,0,0,0,0,0]' where book = 'First'",
            {("zero_vector", "First"), ("foreign_vector", "First")},
        ),
        (
            "update era.vectors_1 set embedding = '[2,0,0,0,0,0,0,0]' where book = 'First'",
            {("bad_vector", "First"), ("foreign_vector", "First")},
        ),
        (
            "update era.vectors_1 set embedding = '[1,0,0,0,0,0,0,0]' where book = 'First'",
            {("foreign_vector", "First")},
        ),
        (
            "update era.vectors_1 set embedding = null where book = 'First' and category = 'passage'",
            {("missing_vector", "First")},
        ),
        (
            "update era.vectors_1 set text = 'other' where book = 'First' and category = 'passage'",
            {("wrong_hash", "First")},
        ),
        (
            "delete from era.doctrine_sources where book = 'Second'",
            {("orphaned_row", "Second")},
        ),
        (
            "update era.book_models set content_fingerprint = 'x' where book = 'First'",
            {("not_loaded", "First")},
        ),
        ("drop view era.doctrine_embeddings_war", {("lost_view", "war")}),
        (
            "create view era.doctrine_embeddings_love as select * from era.doctrine_embeddings_all",
            {("empty_view", "love")},
        ),
        ("create table era.vectors_99 (id int)", {("orphaned_table", "vectors_99")}),
        (
            "insert into era.models (name, backend, dimensions) values ('lost', 'x', 8)",
            {("lost_table", "vectors_2")},
        ),
        (
            "insert into era.embeddings select 7, content_hash, embedding from era.embeddings limit 1",
            {("orphaned_vectors", "7")},
        ),
    ],
)
async def test_damage_in_the_database_is_named(
    loaded: Store, tmp_path: Path, damage: str, found: set[tuple[str, str]]
) -> None:
    """Each kind of damage is found, with its book or object, and nothing else is."""
    await loaded.fetch(damage)
    assert found <= await _codes(loaded, tmp_path)
    assert {finding.subject for finding in await _audit(loaded, tmp_path)} <= {
        subject for _, subject in found
    }


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda root: (root / "war/rules.json").write_text("{}"), ("differing_file", "war/rules.json")),
        (lambda root: (root / "war/rules.json").unlink(), ("lost_file", "war/rules.json")),
        (lambda root: (root / "combined_vector.index").unlink(), ("lost_file", "combined_vector.index")),
        (
            lambda root: (root / "combined_vector.index").write_text(""),
            ("differing_file", "combined_vector.index"),
        ),
        (
            lambda root: ((root / "love").mkdir(), (root / "love/rules.json").write_text("{}")),
            ("orphaned_file", "love/rules.json"),
        ),
        (lambda root: (root.parent / "first.json").write_bytes(b"other"), ("stale", "First")),
        (lambda root: (root.parent / "first.json").unlink(), ("source_gone", "First")),
    ],
)
async def test_damage_to_files_is_named(
    loaded: Store, tmp_path: Path, damage: object, found: tuple[str, str]
) -> None:
    """A minister file or source that is not what it should be is found, and nothing else is."""
    damage(tmp_path / "ministers")  # type: ignore[operator]
    assert await _codes(loaded, tmp_path) == {found}


async def test_quarantine_is_a_warning(store: Store) -> None:
    """What was refused is named as a warning, a refused text is not counted as a missing vector."""
    book = rows("Book", [chapter(0, statements=1)], defects=[Defect("f", "/0", "not_a_number", "d")])
    refused = content_hash(book.table["text"][0].as_py())
    await store.embed(book, without=[refused])
    async with store.database.connection() as conn:
        await refused_texts.refuse_texts(conn, store.model, [RefusedText(refused, "t", "rejected", "d")])
        await load_book(conn, store.model, book)
    async with store.database.connection() as conn:
        findings = await audit(conn, books=["Book"])
    assert [(finding.code, finding.severity) for finding in findings] == [("quarantine", Severity.WARNING)]
    assert "2 refused (not_a_number, rejected)" in findings[0].detail


async def test_audit_of_one_book_looks_at_no_other(loaded: Store, tmp_path: Path) -> None:
    """After a load only its books and domains are checked."""
    await loaded.fetch("delete from era.vectors_1 where book = 'First' and category = 'passage'")
    (tmp_path / "ministers/peace/rules.json").write_text("{}")
    assert await _audit(loaded, tmp_path, books=["Second"], domains=["war"]) == []
