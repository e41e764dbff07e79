"""Loading books: only differences are written, all of a book or nothing of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.ids import content_hash
from era_ingest.core.model import Category, Defect
from era_ingest.errors import PermanentError, StoreUnavailableError
from era_ingest.store import refused_texts
from era_ingest.store.books import LoadCounts, load_book, remove_book
from era_ingest.store.refused_texts import RefusedText
from era_ingest.store.sources import file_path, states
from era_ingest_tests.postgres.store_kit import MTIME_S, ChapterPlan, Store, chapter, rows

if TYPE_CHECKING:
    from era_ingest.store.chunk_table import BookRows


async def test_loaded_rows_say_what_the_chunks_said(store: Store) -> None:
    """Every field of a chunk stands in its row, and its vector is that of its text."""
    book = rows("A book, with ’signs", [chapter(0, "war", "peace"), chapter(1)])
    await store.load(book)
    found = await store.fetch(
        """
        select id, book, chapter, chapter_title, category, domains, text, weight, content_hash,
               start_char, end_char
        from doctrine_embeddings_all order by id
        """
    )
    expected = [
        (row["id"].hex(), *[row[name] for name in book.table.schema.names[1:]])
        for row in book.table.to_pylist()
    ]
    assert [(identifier.hex, *rest) for identifier, *rest in found] == sorted(expected)
    assert await store.value(
        """
            select count(*) from doctrine_embeddings_all as v
            join era.embeddings as e using (content_hash) where v.embedding = e.embedding
            """
    ) == len(expected)


async def test_minister_entries_hold_doctrine_and_no_passages(store: Store) -> None:
    """The metadata view names each entry with its vector's id."""
    await store.load(rows("Book", [chapter(0, "war", passages=3)]))
    found = await store.fetch(
        "select category, id = embedding_id, chapter_title, domains from minister_entries"
    )
    assert sorted(found) == [
        (category, True, "Chapter 0", ["war"]) for category in ("claim", "principle", "rule", "warning")
    ]


async def test_unchanged_book_writes_no_row(store: Store) -> None:
    """Loading the same again leaves every row of every table as it is."""
    book = rows("Book", [chapter(n, "war", "peace") for n in range(3)], defects=[_DEFECT])
    await store.load(book)
    before = await store.row_versions()
    counts = await store.load(replace(book, run_id="run-2"))
    assert counts == LoadCounts(unchanged=15)
    assert await store.row_versions() == before


async def test_changed_chapter_costs_that_chapter(store: Store) -> None:
    """Only rows and domains of the changed chapter are touched."""
    chapters = [chapter(0, "war"), chapter(1, "peace"), chapter(2, "love")]
    await store.load(rows("Book", chapters))
    before = dict(await store.fetch("select id, xmin::text from era.vectors_1"))
    changed = replace(chapters[1], entries=(*chapters[1].entries[:3], (Category.WARNING, "A new warning")))
    counts = await store.load(rows("Book", [chapters[0], changed, chapters[2]]))
    assert (counts.inserted, counts.updated, counts.deleted, counts.unchanged) == (1, 0, 1, 14)
    assert counts.changed_domains == counts.doctrine_domains == {"peace"}
    after = dict(await store.fetch("select id, xmin::text from era.vectors_1"))
    assert len(before.items() & after.items()) == 14


async def test_changed_metadata_updates_rows_in_place(store: Store) -> None:
    """New domains, titles and weights update rows under their ids, and both old and new domains count."""
    old = chapter(0, "war")
    await store.load(rows("Book", [old]))
    new = replace(old, domains=("peace",), title="Renamed", weight=2.0)
    counts = await store.load(rows("Book", [new]))
    assert (counts.inserted, counts.updated, counts.deleted) == (0, 5, 0)
    assert counts.changed_domains == {"war", "peace"}
    assert await store.fetch("select distinct domains, chapter_title, weight from minister_entries") == [
        (["peace"], "Renamed", 2.0)
    ]
    assert (await store.load(rows("Book", [new]))).updated == 0


async def test_changed_passages_leave_minister_files_alone(store: Store) -> None:
    """A domain whose passages changed needs its index looked after, not its files."""
    old = chapter(0, "war", passages=2)
    await store.load(rows("Book", [old]))
    counts = await store.load(rows("Book", [replace(old, passages=old.passages[:1])]))
    assert counts.changed_domains == {"war"}
    assert not counts.doctrine_domains
    assert await store.fetch("select change_no, doctrine_no from era.domains") == [(2, 1)]


async def test_rewriting_mends_rows_that_others_damaged(store: Store) -> None:
    """A row that was changed behind our back is written anew when that is asked for."""
    book = rows("Book", [chapter(0, "war")])
    await store.load(book)
    await store.fetch("update era.vectors_1 set embedding = '[0,0,0,0,0,0,0,0]'")
    assert (await store.load(book)).written == 0
    assert (await store.load(book, rewrite=True)).inserted == 5
    assert await store.value("select min(vector_norm(embedding)) from doctrine_embeddings_all") > 0.99


async def test_provenance_says_where_a_book_came_from(store: Store) -> None:
    """Files, counts and run stand in the sources, and a touch does not move the time of modification."""
    book = rows("Book", [chapter(0)], defects=[_DEFECT])
    await store.load(book)
    touched = replace(book.record.files[0], mtime_ns=(MTIME_S + 60) * 10**9, inode=7)
    await store.load(replace(book, record=replace(book.record, files=(touched,)), run_id="run-2"))
    ((files, modified, entries, passages, defects, run),) = await store.fetch(
        "select files, modified_at, entries, passages, defects, run_id from era.doctrine_sources"
    )
    assert files[0]["inode"] == 7
    assert modified == datetime.fromtimestamp(MTIME_S, UTC)
    assert (entries, passages, defects, run) == (4, 1, 1, "run-2")


async def test_file_name_that_is_no_text_is_kept(store: Store) -> None:
    """A path with undecodable bytes is shown in the sources and found again."""
    book = rows("Book", [chapter(0)])
    path = "/landing/b\udcffd/02_doctrine.json"
    record = replace(book.record, files=(replace(book.record.files[0], path=path),), root="/l\udcff")
    await store.load(replace(book, record=record))
    async with store.database.connection() as conn:
        state = (await states(conn))[record.slug]
    assert state.root == "/l\\xff"
    assert file_path(state.files[0]) == path


async def test_text_without_a_vector_or_a_verdict_rolls_back(store: Store) -> None:
    """A book is never loaded with a hole in it that nobody accounts for."""
    book = rows("Book", [chapter(0)])
    await store.embed(book, without=[_hash(book, 0)])
    with pytest.raises(PermanentError, match="1 texts of the book 'Book'"):
        await _load(store, book)
    assert await store.value("select count(*) from era.vectors_1") == 0


async def test_refused_text_is_an_entry_without_a_vector(store: Store) -> None:
    """A refused text keeps its entry, has no row among the vectors, and its neighbours load."""
    book = rows("Book", [chapter(0)])
    await _refuse(store, book, 0)
    counts = await _load(store, book)
    assert counts.inserted == 5
    assert await store.value("select count(*) from doctrine_embeddings_all") == 4
    assert await store.value("select count(*) from minister_entries where embedding_id is null") == 1
    assert await store.fetch("select book, kind, text from era.quarantine") == [
        ("Book", "text", book.table["text"][0].as_py())
    ]


async def test_refused_text_that_is_embedded_later_gets_its_vector(store: Store) -> None:
    """When a text has a vector at last, its row is filled in, its domains change and its verdict goes."""
    book = rows("Book", [chapter(0, "war")])
    await _refuse(store, book, 0)
    await _load(store, book)
    counts = await store.load(book)
    assert counts.updated == 1
    assert counts.doctrine_domains == {"war"}
    assert await store.value("select count(*) from minister_entries where embedding_id is null") == 0
    assert await store.value("select count(*) from era.quarantine") == 0


async def test_text_refused_in_two_books_is_in_quarantine_for_both(store: Store) -> None:
    """Each book has its own row, and takes only that along when it goes."""
    plan = chapter(0)
    first, second = rows("First", [plan]), rows("Second", [plan])
    await _refuse(store, first, 0)
    for book in (first, second):
        await _load(store, book)
    assert await store.fetch("select book from era.quarantine order by book") == [("First",), ("Second",)]
    await _remove(store, "First")
    assert await store.fetch("select book from era.quarantine") == [("Second",)]


async def test_verdict_goes_with_its_text(store: Store) -> None:
    """A refused text that is no longer in the book leaves the quarantine."""
    plan = chapter(0)
    book = rows("Book", [plan])
    await _refuse(store, book, 0)
    await _load(store, book)
    await store.load(rows("Book", [replace(plan, entries=plan.entries[1:])]))
    assert await store.value("select count(*) from era.quarantine") == 0


async def test_removed_book_leaves_nothing_but_its_vectors(store: Store) -> None:
    """Rows, provenance and defects go; what was paid for stays."""
    book = rows("Book", [chapter(0, "war")], defects=[_DEFECT])
    await store.load(book)
    removed_at = datetime(2026, 1, 1, tzinfo=UTC)
    counts = await _remove(store, "Book", removed_at)
    assert counts.deleted == 5
    assert counts.changed_domains == {"war"}
    for table in ("vectors_1", "doctrine_sources", "book_models", "quarantine"):
        assert await store.value(f"select count(*) from era.{table}") == 0
    assert await store.value("select count(*) from era.embeddings") == 5
    assert await store.value("select updated_at from era.domains") == removed_at
    assert await _remove(store, "Book") == LoadCounts()


async def test_renamed_book_is_not_embedded_again(store: Store) -> None:
    """A book under a new name finds its vectors by its texts."""
    plan = [chapter(0)]
    await store.load(rows("Old name", plan))
    await _remove(store, "Old name")
    assert (await _load(store, rows("New name", plan))).inserted == 5


async def test_failed_load_leaves_the_old_book(store: Store) -> None:
    """A load that is rolled back at its last step leaves all tables as they were."""
    await store.load(rows("Book", [chapter(0, "war")]))
    before = await store.row_versions()
    changed = rows("Book", [chapter(1, "peace")], defects=[_DEFECT])
    await store.embed(changed)
    before["embeddings"] = (await store.row_versions())["embeddings"]
    async with store.database.connection() as conn:
        await load_book(conn, store.model, changed)
        await conn.rollback()
    assert await store.row_versions() == before


async def test_lost_connection_leaves_the_old_book(store: Store) -> None:
    """A session that dies before its commit changed nothing, and the load can be repeated."""
    await store.load(rows("Book", [chapter(0, "war")]))
    changed = rows("Book", [chapter(1, "peace")])
    await store.embed(changed)
    before = await store.row_versions()
    with pytest.raises(StoreUnavailableError):
        await _load_and_die(store, changed)
    assert await store.row_versions() == before
    assert (await _load(store, changed)).inserted == 5


async def _load_and_die(store: Store, book: BookRows) -> None:
    async with store.database.connection() as conn:
        await load_book(conn, store.model, book)
        await store.fetch("select pg_terminate_backend(%s)", conn.info.backend_pid)


async def test_writers_of_books_that_share_domains_do_not_deadlock(store: Store) -> None:
    """Many books with the same domains in different orders load at once, and every change is counted."""
    domains = [f"d{n}" for n in range(12)]
    books = [
        rows(
            f"Book {n}",
            [chapter(c, *(domains[(n * 5 + c * 7 + k) % 12] for k in range(4))) for c in range(3)],
        )
        for n in range(12)
    ]
    for book in books:
        await store.embed(book)
    counts = await asyncio.wait_for(asyncio.gather(*(_load(store, book) for book in books)), 60)
    touched = [domain for count in counts for domain in count.changed_domains]
    found = dict(await store.fetch("select domain, change_no from era.domains"))
    assert found == {domain: touched.count(domain) for domain in domains}


async def test_two_loads_of_one_book_run_one_after_the_other(store: Store) -> None:
    """The book is wholly as one of two concurrent loads wrote it."""
    versions = [rows("Book", [chapter(0, statements=n)]) for n in (2, 3, 4, 2, 3, 4)]
    for book in versions:
        await store.embed(book)
    await asyncio.wait_for(asyncio.gather(*(_load(store, book) for book in versions)), 60)
    entries = await store.value("select entries from era.doctrine_sources")
    assert await store.value("select count(*) from minister_entries") == entries


async def test_empty_book_is_loaded_as_such(store: Store) -> None:
    """A book without texts has its provenance and no rows."""
    book = rows("Empty", [ChapterPlan(("base",), ())])
    assert await _load(store, book) == LoadCounts()
    assert await store.value("select chapters from era.doctrine_sources") == 1


async def test_large_book_goes_through_the_staging_table_in_parts(store: Store) -> None:
    """More rows than one part holds all arrive, and a change in the midst of them is found."""
    plan = chapter(0, statements=5_000)
    assert (await store.load(rows("Large", [plan]))).inserted == 5_001
    changed = replace(plan, entries=(*plan.entries[:2_500], (Category.RULE, "New"), *plan.entries[2_501:]))
    counts = await store.load(rows("Large", [changed]))
    assert (counts.inserted, counts.deleted, counts.unchanged) == (1, 1, 5_000)


_DEFECT = Defect(
    "/landing/Book/02_doctrine.json", "/0/rules/1", "unknown_item_shape", "A number where a text was due."
)


def _hash(book: BookRows, position: int) -> bytes:
    return content_hash(book.table["text"][position].as_py())


async def _load(store: Store, book: BookRows) -> LoadCounts:
    async with store.database.connection() as conn:
        return await load_book(conn, store.model, book)


async def _remove(store: Store, name: str, at: datetime | None = None) -> LoadCounts:
    slug = rows(name, []).record.slug
    async with store.database.connection() as conn:
        return await remove_book(conn, slug, removed_at=at)


async def _refuse(store: Store, book: BookRows, position: int) -> None:
    """Refuse one text of a book; embed the others."""
    refused = _hash(book, position)
    text = book.table["text"][position].as_py()
    await store.embed(book, without=[refused])
    async with store.database.connection() as conn:
        await refused_texts.refuse_texts(
            conn, store.model, [RefusedText(refused, text, "rejected", "The server said no.")]
        )
