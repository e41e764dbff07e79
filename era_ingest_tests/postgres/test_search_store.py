"""Search: the nearest texts, exact without an index, nearly so with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from era_ingest.core.ids import content_hash
from era_ingest.errors import InvalidNameError, ResponseMismatchError
from era_ingest.store import embeddings, indexes, models, views
from era_ingest.store.books import load_book
from era_ingest.store.chunk_table import hashes_of
from era_ingest.store.indexes import IndexAction, ensure_domain_index, index_name, list_indexes
from era_ingest.store.search import Hit, recall, search
from era_ingest_tests.postgres.store_kit import Store, chapter, rows, vectors

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

STATEMENT = "Statement 1 of chapter 0"


def _query(text: str = STATEMENT, dimensions: int = 8) -> NDArray[np.float32]:
    """Return the vector of a text that was loaded."""
    vector: NDArray[np.float32] = vectors([content_hash(text)], dimensions)[0]
    return vector


async def _search(store: Store, vector: NDArray[np.float32], **filters: Any) -> list[Hit]:
    async with store.database.connection() as conn:
        return await search(conn, vector, **filters)


async def test_nearest_text_comes_first(store: Store) -> None:
    """A text finds itself with a score of one, and the others follow in order of the exact cosine."""
    book = rows("Book", [chapter(0, statements=40)])
    await store.load(book)
    hits = await _search(store, _query() * 3.0, k=41)
    hashes = hashes_of(book.table)
    cosines = dict(zip(hashes, (vectors(hashes) @ _query()).tolist(), strict=True))
    assert hits[0].text == STATEMENT
    assert [hit.content_hash for hit in hits] == sorted(hashes, key=lambda h: -cosines[h])
    assert [hit.score for hit in hits] == pytest.approx([cosines[hit.content_hash] for hit in hits], abs=1e-6)


async def test_filters_combine(store: Store) -> None:
    """Domain, category and book each leave out what they do not name."""
    await store.load(rows("First", [chapter(0, "war"), chapter(1, "peace")]))
    await store.load(rows("Second", [chapter(2, "war")]))
    hits = await _search(store, _query(), domain="war", category="rule", book="Second", k=50)
    assert [(hit.book, hit.category, hit.domains) for hit in hits] == [("Second", "rule", ["war"])]
    assert {hit.book for hit in await _search(store, _query(), domain="war", k=50)} == {"First", "Second"}
    assert "passage" not in {hit.category for hit in await _search(store, _query(), doctrine_only=True, k=50)}


async def test_text_of_several_places_is_one_hit(store: Store) -> None:
    """The same text in two books and chapters is found once, with all its places."""
    for name in ("Alpha", "Beta"):
        await store.load(rows(name, [chapter(0), chapter(0)]))
    hits = await _search(store, _query(), k=5)
    assert len({hit.content_hash for hit in hits}) == len(hits) == 5
    assert (hits[0].book, hits[0].chapter) == ("Alpha", 0)
    assert hits[0].also_in == (("Alpha", 1), ("Beta", 0), ("Beta", 1))


async def test_often_repeated_text_does_not_crowd_out_others(store: Store) -> None:
    """However often the nearest text is repeated, k distinct texts come back."""
    await store.load(rows("Book", [chapter(0) for _ in range(40)] + [chapter(1)]))
    assert len(await _search(store, _query(), k=8)) == 8


async def test_score_has_a_floor(store: Store) -> None:
    """Hits below the least score are left out."""
    await store.load(rows("Book", [chapter(0, statements=40)]))
    hits = await _search(store, _query(), k=50, min_score=0.3)
    assert 1 <= len(hits) < 41
    assert min(hit.score for hit in hits) >= 0.3


async def test_empty_installation_finds_nothing(store: Store) -> None:
    """Search before the first load is an empty list."""
    assert await _search(store, _query()) == []


@pytest.mark.parametrize(
    "vector",
    [np.zeros(8), np.full(8, np.nan), np.ones(9), np.ones((1, 8))],
    ids=["zero", "nan", "size", "shape"],
)
async def test_query_vector_that_means_nothing_is_refused(store: Store, vector: NDArray[np.float32]) -> None:
    """A zero, NaN or wrong-sized query is an error, not an empty answer."""
    with pytest.raises(ResponseMismatchError):
        await _search(store, vector)


async def test_domain_that_is_no_name_is_refused(store: Store) -> None:
    """Only domains in normal form are searched."""
    with pytest.raises(InvalidNameError):
        await _search(store, _query(), domain="No Domain")


async def test_small_domain_gets_no_index(store: Store) -> None:
    """Below the least number of rows the scan stays exact."""
    await store.load(rows("Book", [chapter(0, "war")]))
    report = await ensure_domain_index(store.database, store.model, "war")
    assert (report.action, report.rows) == (IndexAction.NONE, 5)


async def test_index_is_built_kept_and_dropped_by_size(store: Store) -> None:
    """An index comes above the bound, stays while the domain shrinks a little, and goes below half."""
    sizes = [
        (99, IndexAction.NONE),  # and a passage
        (100, IndexAction.BUILT),
        (100, IndexAction.KEPT),
        (60, IndexAction.KEPT),
        (20, IndexAction.DROPPED),
    ]
    for size, action in [*sizes, (20, IndexAction.NONE)]:
        await store.load(rows("Book", [chapter(0, "war", statements=size)]))
        assert (await ensure_domain_index(store.database, store.model, "war", min_rows=100)).action is action


async def test_leftover_of_a_crashed_build_is_replaced(store: Store) -> None:
    """An invalid index is dropped and built anew."""
    await store.load(rows("Book", [chapter(0, "war", statements=100)]))
    await ensure_domain_index(store.database, store.model, "war", min_rows=50)
    name = index_name(store.model, "war").value
    await store.fetch(
        "update pg_index set indisvalid = false where indexrelid = to_regclass(%s)", f"era.{name}"
    )
    assert (
        await ensure_domain_index(store.database, store.model, "war", min_rows=50)
    ).action is IndexAction.BUILT
    async with store.database.connection() as conn:
        assert await list_indexes(conn, store.model) == {name: True}


async def test_two_builders_do_not_clash(store: Store) -> None:
    """While one program builds an index, another leaves it to it."""
    await store.load(rows("Book", [chapter(0, "war", statements=100)]))
    name = index_name(store.model, "war").value
    async with store.database.connection() as other:
        await other.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (indexes._BUILD_LOCKS, name))
        report = await ensure_domain_index(store.database, store.model, "war", min_rows=50)
        assert report.action is IndexAction.BUSY


def test_long_domains_have_index_names_of_their_own() -> None:
    """Names that would be cut stay within 63 bytes and apart."""
    many = models.Model(12345, "m", "b", 8, active=False)
    names = {index_name(many, "d" * 42 + end).value for end in "ab"} | {index_name(many, None).value}
    assert len(names) == 3
    assert max(map(len, names)) <= 63


async def test_indexed_search_finds_nearly_all_and_fills_k(store: Store) -> None:
    """With an index, filters and all, recall is at least 0.98 and no answer is short of hits."""
    plans = [chapter(n, "war" if n % 4 else "peace", statements=100, passages=0) for n in range(30)]
    await store.load(rows("Book", plans))
    for domain in (None, "war"):
        await ensure_domain_index(store.database, store.model, domain, min_rows=1000)
    queries = vectors([content_hash(f"query {n}") for n in range(20)])
    async with store.database.connection() as conn:
        assert await recall(conn, queries, k=10) >= 0.98
        assert await recall(conn, queries, domain="war", k=10) >= 0.98
        assert await recall(conn, queries, domain="war", category="rule", k=10) >= 0.98
        assert len(await search(conn, queries[0], domain="war", category="claim", k=500)) == 500


async def test_views_use_the_index(store: Store) -> None:
    """A search by SQL through the views is answered by the index of the domain, and of all rows."""
    await store.load(rows("Book", [chapter(0, "war", statements=300), chapter(1, statements=300)]))
    await views.ensure_views(store.database, ["war"])
    for domain in (None, "war"):
        await ensure_domain_index(store.database, store.model, domain, min_rows=100)
    for view, domain in (("all", None), ("war", "war")):
        async with store.database.connection() as conn:
            await conn.execute("set local enable_seqscan = off")
            await conn.execute("set local enable_bitmapscan = off")
            cursor = await conn.execute(
                f"explain select id from doctrine_embeddings_{view} "
                "order by embedding <=> '[1,0,0,0,0,0,0,0]' limit 5"
            )
            plan = "\n".join(row[0] for row in await cursor.fetchall())
            assert f"using {index_name(store.model, domain)} " in plan


@pytest.mark.parametrize(
    ("dimensions", "action"), [(2100, IndexAction.BUILT), (4100, IndexAction.IMPOSSIBLE)]
)
async def test_large_vectors_are_indexed_in_half_or_searched_exactly(
    store: Store, dimensions: int, action: IndexAction
) -> None:
    """Above 2,000 dimensions the index holds half precision, above 4,000 there is none; search finds."""
    book = rows("Book", [chapter(0, "war", statements=60)])
    async with store.database.connection() as conn:
        model = await models.ensure_model(conn, name="large", backend="hashing", dimensions=dimensions)
        hashes = hashes_of(book.table)
        await embeddings.store_vectors(conn, model.id, hashes, vectors(hashes, dimensions))
        await load_book(conn, model, book)
    assert (await ensure_domain_index(store.database, model, "war", min_rows=50)).action is action
    async with store.database.connection() as conn:
        hits = await search(conn, _query(dimensions=dimensions), domain="war", k=3, model=model)
    assert hits[0].text == STATEMENT
    assert hits[0].score == pytest.approx(1.0, abs=1e-3)
