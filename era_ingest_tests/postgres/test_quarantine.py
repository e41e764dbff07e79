"""The quarantine: what was refused is there once, with its place, and goes when it is mended."""

from __future__ import annotations

from era_ingest.core.ids import content_hash
from era_ingest.core.model import Defect
from era_ingest.store import quarantine, refused_texts, sources
from era_ingest.store.refused_texts import RefusedText
from era_ingest_tests.postgres.store_kit import Store, chapter, rows

WHOLE = Defect("/landing/a\udcff.json", "", "not_json", "It ends in the middle.")
ITEM = Defect("/landing/a.json", "/0/rules/1", "unknown_item_shape", "Found NUL: \0")


async def _replace(store: Store, *defects: Defect, book: str = "Book", run_id: str = "") -> int:
    async with store.database.connection() as conn:
        return await quarantine.replace_defects(conn, book, defects, run_id=run_id)


async def test_defects_are_shown_with_their_place(store: Store) -> None:
    """A document and an item are told apart, and what no text can hold is shown."""
    await _replace(store, WHOLE, ITEM, run_id="run-1")
    async with store.database.connection() as conn:
        found = {row.kind: row for row in await quarantine.listing(conn, book="Book")}
    assert (found["document"].file, found["document"].pointer) == ("/landing/a\\xff.json", "")
    assert (found["item"].detail, found["item"].run_id) == ("Found NUL: ␀", "run-1")


async def test_same_defects_are_written_once(store: Store) -> None:
    """Saying the same again writes nothing; a mended defect goes, a new one comes, the others stay."""
    assert await _replace(store, WHOLE, ITEM) == 2
    first_seen = await store.value("select first_seen from era.quarantine where kind = 'item'")
    assert await _replace(store, ITEM, WHOLE) == 0
    await _replace(store, ITEM)
    assert await store.fetch("select kind, first_seen from era.quarantine") == [("item", first_seen)]
    await _replace(store)
    assert await store.value("select count(*) from era.quarantine") == 0


async def test_books_and_folders_keep_their_defects_apart(store: Store) -> None:
    """The defects of one book, or of the landing folder, are replaced without those of another."""
    await _replace(store, ITEM)
    await _replace(store, ITEM, book="Other")
    async with store.database.connection() as conn:
        await quarantine.replace_landing_defects(conn, "/landing", [WHOLE])
    await _replace(store)
    async with store.database.connection() as conn:
        assert await quarantine.counts_by_book(conn, ["Book", "Other", "/landing"]) == {
            "/landing": 1,
            "Other": 1,
        }
        assert await quarantine.counts_by_reason(conn) == {
            ("document", "not_json"): 1,
            ("item", "unknown_item_shape"): 1,
        }


async def test_refused_texts_are_known_by_model_until_forgiven(store: Store) -> None:
    """A refused text is not asked for again, unless somebody wants it."""
    hashes = [content_hash(text) for text in ("one", "two", "three")]
    refused = [RefusedText(h, "x" * 5_000, "rejected", "The server said no.") for h in hashes[:2]]
    async with store.database.connection() as conn:
        assert await refused_texts.refuse_texts(conn, store.model, refused) == 2
        assert await refused_texts.refuse_texts(conn, store.model, refused) == 0
        assert await refused_texts.refused_hashes(conn, store.model.id, hashes) == set(hashes[:2])
        assert await refused_texts.refused_hashes(conn, store.model.id + 1, hashes) == set()
        assert max(len(row.text or "") for row in await quarantine.listing(conn, kind="text")) == 500
        assert await refused_texts.forgive_texts(conn, store.model.id, hashes[:1]) == 1
        assert await refused_texts.refused_hashes(conn, store.model.id, hashes) == {hashes[1]}


async def test_state_says_which_model_holds_which_content(store: Store) -> None:
    """A book is loaded for a model when both the sources and the model's table say so."""
    book = rows("Book", [chapter(0)])
    await store.load(book)
    async with store.database.connection() as conn:
        found = await sources.states(conn, [book.record.slug, "other"])
        assert await sources.states(conn) == found
    state = found[book.record.slug]
    assert state.is_loaded(store.model.id, book.record.content_fingerprint)
    assert not state.is_loaded(store.model.id + 1, book.record.content_fingerprint)
    assert not state.is_loaded(store.model.id, "other")
