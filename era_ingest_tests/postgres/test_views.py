"""Views of domains: made and dropped beside readers and loaders."""

from __future__ import annotations

import asyncio

import pytest

from era_ingest.errors import InvalidNameError
from era_ingest.store import views
from era_ingest.store.books import load_book, remove_book
from era_ingest.store.domains import category_counts, count_rows, domain_states, mark_indexed, stale_domains
from era_ingest_tests.postgres.store_kit import Store, chapter, rows


async def test_view_holds_the_rows_of_its_domain(store: Store) -> None:
    """Each row is seen in the view of each of its domains, and in no other."""
    await store.load(rows("Book", [chapter(0, "war", "peace"), chapter(1, "peace", passages=2)]))
    assert await views.ensure_views(store.database, ["war", "peace", "love"]) == ["love", "peace", "war"]
    assert await store.value("select count(*) from doctrine_embeddings_war") == 5
    assert await store.value("select count(*) from doctrine_embeddings_peace") == 11
    assert await store.value("select count(*) from doctrine_embeddings_love") == 0


async def test_views_are_made_once(store: Store) -> None:
    """Programs that ask for the same views at once make each of them once."""
    names = [f"d{n}" for n in range(120)]
    made = await asyncio.gather(*(views.ensure_views(store.database, names) for _ in range(3)))
    assert sorted(name for part in made for name in part) == sorted(names)
    assert await views.ensure_views(store.database, names) == []


async def test_longest_domain_has_a_view(store: Store) -> None:
    """A domain of 43 bytes makes a name that PostgreSQL does not cut."""
    longest = "d" * 43
    await views.ensure_views(store.database, [longest])
    assert (
        await store.value(
            "select count(*) from pg_views where viewname = %s", f"doctrine_embeddings_{longest}"
        )
        == 1
    )


@pytest.mark.parametrize("name", ["all", "War", "a b", 'x"; drop table era.models; --', "", "d" * 44])
async def test_name_that_is_no_domain_is_refused(store: Store, name: str) -> None:
    """What is no domain in normal form never reaches SQL."""
    with pytest.raises(InvalidNameError):
        await views.ensure_views(store.database, [name])


async def test_views_are_made_while_readers_and_loaders_work(store: Store) -> None:
    """Neither an open reader of all rows nor a load that is not committed yet holds up a new view."""
    await store.load(rows("Book", [chapter(0, "war")]))
    other = rows("Other", [chapter(0, "peace")])
    await store.embed(other)
    async with store.database.connection() as reader, store.database.connection() as loader:
        await reader.execute("select * from doctrine_embeddings_all")
        await load_book(loader, store.model, other)
        assert await asyncio.wait_for(views.ensure_views(store.database, ["peace"]), 10) == ["peace"]


async def test_view_without_rows_is_dropped(store: Store) -> None:
    """A domain that lost its last row loses its view; others keep theirs."""
    book = rows("Book", [chapter(0, "war")])
    await store.load(book)
    await store.load(rows("Other", [chapter(0, "peace")]))
    await views.ensure_views(store.database, ["war", "peace"])
    async with store.database.connection() as conn:
        await remove_book(conn, book.record.slug)
    assert await views.drop_empty_views(store.database) == ["war"]
    async with store.database.connection() as conn:
        assert await views.existing_views(conn) == {"peace"}


async def test_changed_domains_are_stale_until_they_are_looked_after(store: Store) -> None:
    """A domain is due for its index after any change, and for its files after a change of doctrine."""
    await store.load(rows("Book", [chapter(0, "war", statements=0), chapter(1, "peace")]))
    async with store.database.connection() as conn:
        states = await domain_states(conn)
        assert {name: (state.files_stale, state.index_stale) for name, state in states.items()} == {
            "peace": (True, True),
            "war": (False, True),
        }
        await mark_indexed(conn, {"war": states["war"].change_no})
        assert [state.domain for state in await stale_domains(conn)] == ["peace"]
        assert await count_rows(conn, "peace") == 5
        assert await category_counts(conn, ["war", "love"]) == {"war": {"passage": 1}, "love": {}}
