"""Models: tables of their own, one active, switched in one step."""

from __future__ import annotations

import asyncio

import pytest

from era_ingest.errors import ConfigurationError
from era_ingest.store import models, views
from era_ingest_tests.postgres.store_kit import Store, chapter, rows


async def _add(store: Store, dimensions: int = 16) -> models.Model:
    async with store.database.connection() as conn:
        return await models.ensure_model(
            conn, name=f"other/{dimensions}", backend="hashing", dimensions=dimensions
        )


async def _activate(store: Store, model: models.Model) -> bool:
    async with store.database.connection() as conn:
        return await models.activate_when_complete(conn, model)


async def test_first_model_is_active_and_a_second_is_not(store: Store) -> None:
    """A later model waits until it holds every book."""
    assert store.model.active
    assert not (await _add(store)).active


async def test_known_model_is_found_again(store: Store) -> None:
    """A model that is asked for twice is one."""
    assert await _add(store) == await _add(store)


async def test_programs_that_meet_a_model_together_make_it_once(store: Store) -> None:
    """Several programs that bring the same new model get one table."""
    found = await asyncio.gather(*(_add(store) for _ in range(4)))
    assert len({model.id for model in found}) == 1


async def test_another_size_of_a_known_model_is_refused(store: Store) -> None:
    """A model never changes the size of its vectors."""
    with pytest.raises(ConfigurationError, match="ERA_EMBED_DIMENSIONS=8"):
        async with store.database.connection() as conn:
            await models.ensure_model(conn, name="hashing/8", backend="hashing", dimensions=9)


async def test_model_becomes_active_once_it_holds_every_book(store: Store) -> None:
    """The switch waits for the last book, and readers then see vectors of the other size."""
    first, second = rows("First", [chapter(0, "war")]), rows("Second", [chapter(0, "peace")])
    for book in (first, second):
        await store.load(book)
    await views.ensure_views(store.database, ["war", "peace"])
    other = await _add(store)
    await store.load(first, model=other)
    assert not await _activate(store, other)
    assert await store.value("select distinct vector_dims(embedding) from doctrine_embeddings_all") == 8
    await store.load(second, model=other)
    assert await _activate(store, other)
    assert await store.fetch(
        "select model, vector_dims(embedding), count(*) from doctrine_embeddings_war group by 1, 2"
    ) == [("other/16", 16, 5)]
    assert await store.fetch("select name from era.models where active") == [("other/16",)]


async def test_model_that_holds_an_older_version_is_not_complete(store: Store) -> None:
    """A book that changed since makes a model incomplete."""
    other = await _add(store)
    await store.load(rows("Book", [chapter(0)]), model=other)
    await store.load(rows("Book", [chapter(0), chapter(1)]))
    assert not await _activate(store, other)


async def test_switch_marks_every_domain_as_changed(store: Store) -> None:
    """Minister files are built anew after a switch, since embedding ids may differ."""
    book = rows("Book", [chapter(0, "war", "peace")])
    await store.load(book)
    other = await _add(store)
    await store.load(book, model=other)
    before = dict(await store.fetch("select domain, doctrine_no from era.domains"))
    await _activate(store, other)
    after = dict(await store.fetch("select domain, doctrine_no from era.domains"))
    assert after == {domain: number + 1 for domain, number in before.items()}


async def test_load_of_an_inactive_model_changes_nothing_that_readers_see(store: Store) -> None:
    """Until the switch neither the views nor the domains move."""
    await store.load(rows("Book", [chapter(0, "war")]))
    seen = (
        await store.fetch("select * from era.domains"),
        await store.fetch("select id from minister_entries"),
    )
    await store.load(rows("Book", [chapter(0, "war"), chapter(1, "war")]), model=await _add(store))
    assert seen == (
        await store.fetch("select * from era.domains"),
        await store.fetch("select id from minister_entries"),
    )


async def test_switch_waits_for_a_reader_and_goes_on(store: Store) -> None:
    """A reader in the middle of a query keeps the view that it began with, and the switch follows it."""
    book = rows("Book", [chapter(0, "war")])
    await store.load(book)
    other = await _add(store)
    await store.load(book, model=other)
    async with store.database.connection() as reader:
        await reader.execute("select 1 from doctrine_embeddings_all limit 1")
        switch = asyncio.create_task(_activate(store, other))
        await _until_waiting(store)
    assert await asyncio.wait_for(switch, 30)


async def _until_waiting(store: Store) -> None:
    """Wait until some session of this database waits for a lock."""
    waiting = """
        select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'
    """
    async with asyncio.timeout(20):
        while not await store.value(waiting):  # noqa: ASYNC110 - another process: there is no event to wait for
            await asyncio.sleep(0.01)
