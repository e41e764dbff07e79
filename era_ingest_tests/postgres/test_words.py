"""Full text beside the vectors: what holds the words comes in, by any text that somebody may send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from era_ingest.core.ids import content_hash
from era_ingest.store.indexes import IndexAction, ensure_words_index
from era_ingest.store.search import Hit, search
from era_ingest.store.words import DOCUMENT, MAX_RANKED
from era_ingest_tests.postgres.store_kit import Store, chapter, rows, vectors

if TYPE_CHECKING:
    from typing import Any

STATEMENTS = 60


async def _search(store: Store, text: str, words: str, **filters: Any) -> list[Hit]:
    """Search by the vector of one text and the words of another."""
    async with store.database.connection() as conn:
        return await search(conn, vectors([content_hash(text)])[0], words=words, **filters)


@pytest.fixture
async def filled(store: Store) -> Store:
    """Sixty statements of each of two chapters, in two domains."""
    await store.load(
        rows("Book", [chapter(0, "war", statements=STATEMENTS), chapter(1, "peace", statements=STATEMENTS)])
    )
    return store


async def test_what_holds_the_words_comes_in_beside_what_is_near(filled: Store) -> None:
    """The nearest and the one with the words lead; scores stay cosines."""
    near, wanted = "Statement 1 of chapter 0", "Statement 57 of chapter 1"
    plain = await _search(filled, near, "", k=5)
    assert wanted not in {hit.text for hit in plain}
    assert {hit.fused for hit in plain} == {None}
    hybrid = await _search(filled, near, '"statement 57" "chapter 1"', k=5)
    assert {hit.text for hit in hybrid[:2]} == {near, wanted}
    cosine = float(vectors([content_hash(near)])[0] @ vectors([content_hash(wanted)])[0])
    assert {hit.text: hit.score for hit in hybrid}[wanted] == pytest.approx(cosine, abs=1e-6)
    fused = [hit.fused or 0.0 for hit in hybrid]
    assert fused == sorted(fused, reverse=True)


async def test_words_are_found_by_their_stems(filled: Store) -> None:
    """A question in the plural finds the singular."""
    hybrid = await _search(filled, "elsewhere", "statements 42 chapters 1", k=3)
    assert "Statement 42 of chapter 1" in {hit.text for hit in hybrid}


async def test_filters_hold_for_words_too(filled: Store) -> None:
    """Domain, category, book, score and number."""
    words = "statement 57"
    assert {hit.domains[0] for hit in await _search(filled, "x", words, domain="peace", k=50)} == {"peace"}
    assert {hit.category for hit in await _search(filled, "x", words, category="rule", k=50)} == {"rule"}
    assert await _search(filled, "x", words, book="Nowhere") == []
    scored = await _search(filled, "x", words, k=50, min_score=0.5)
    assert all(hit.score >= 0.5 for hit in scored)
    assert len(await _search(filled, "x", words, k=7)) == 7


@pytest.mark.parametrize(
    "words",
    [
        "'; drop table era.models; --",
        "a & b | !c <-> :* (((",
        '"unbalanced',
        "the of and",
        "-",
        "\\' \\\\ $$ %s %(words)s",
        "ab " * 2_000,
        "سلام עולם 你好 ñandú",
    ],
)
async def test_any_text_is_a_query(filled: Store, words: str) -> None:
    """Operators, quotes, stop words alone, other scripts: never an error, and the vector's side stays whole."""
    hits = await _search(filled, "Statement 1 of chapter 0", words, k=5)
    assert hits[0].text == "Statement 1 of chapter 0"
    assert len(hits) == 5


async def test_a_word_that_all_hold_ranks_a_bounded_number(store: Store) -> None:
    """However many rows hold it."""
    await store.load(rows("Book", [chapter(0, "war", statements=MAX_RANKED + 100)]))
    hits = await _search(store, "x", "statement", k=400)
    assert len(hits) == MAX_RANKED + 101  # the vector's side brings the others, and a passage


async def test_the_index_of_the_words_follows_the_size_and_is_used(filled: Store) -> None:
    """Built above the bound, kept, dropped below half of it; the planner takes it for our expression."""
    for least, action in ((1_000, IndexAction.NONE), (100, IndexAction.BUILT), (100, IndexAction.KEPT)):
        assert (await ensure_words_index(filled.database, filled.model, min_rows=least)).action is action
    async with filled.database.connection() as conn:
        await conn.execute("set local enable_seqscan = off")
        document = DOCUMENT.as_string(conn)
        cursor = await conn.execute(
            f"explain select id from era.vectors_{filled.model.id} "
            f"where {document} @@ websearch_to_tsquery('pg_catalog.english', 'statement')"
        )
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert f"vectors_{filled.model.id}_words" in plan
    dropped = await ensure_words_index(filled.database, filled.model, min_rows=10_000)
    assert dropped.action is IndexAction.DROPPED
