"""The embedding store: every vector once, none that is wrong, whoever else writes."""

from __future__ import annotations

import asyncio

import numpy as np
import psycopg
import pytest

from era_ingest.core.ids import content_hash
from era_ingest.errors import PermanentError, ResponseMismatchError
from era_ingest.store import embeddings
from era_ingest_tests.postgres.store_kit import DIMENSIONS, Store, vectors

HASHES = [content_hash(f"text {n}") for n in range(40)]


async def _store(store: Store, hashes: list[bytes], array: np.ndarray | None = None) -> int:
    async with store.database.connection() as conn:
        return await embeddings.store_vectors(
            conn, store.model.id, hashes, vectors(hashes) if array is None else array, dimensions=DIMENSIONS
        )


async def test_vectors_come_back_as_they_were(store: Store) -> None:
    """What is stored is what was given, to the bit."""
    assert await _store(store, HASHES) == 40
    found = dict(await store.fetch("select content_hash, embedding from era.embeddings"))
    given = dict(zip(HASHES, vectors(HASHES), strict=True))
    assert found.keys() == given.keys()
    assert all(np.array_equal(found[h].to_numpy(), given[h]) for h in HASHES)


async def test_known_texts_are_told_apart_by_model(store: Store) -> None:
    """A vector of one model is none of another."""
    await _store(store, HASHES[:3])
    async with store.database.connection() as conn:
        assert await embeddings.known_hashes(conn, store.model.id, HASHES[1:5]) == {HASHES[1], HASHES[2]}
        assert await embeddings.known_hashes(conn, store.model.id + 1, HASHES) == set()
        assert await embeddings.known_hashes(conn, store.model.id, []) == set()


async def test_repeats_are_stored_once(store: Store) -> None:
    """A text that is there already, or twice in one call, makes no second row and no error."""
    assert await _store(store, HASHES[:2]) == 2
    assert await _store(store, [*HASHES[:3], HASHES[2]]) == 1
    assert await _store(store, HASHES[:3]) == 0
    assert await store.value("select count(*) from era.embeddings") == 3


async def test_writers_of_the_same_texts_do_not_hinder_each_other(store: Store) -> None:
    """Runs that embed the same texts at once, in any order, all succeed, and each text stands once."""
    orders = [HASHES, HASHES[::-1], HASHES[10:] + HASHES[:10], HASHES[::2] + HASHES[1::2]]
    new = await asyncio.gather(*(_store(store, order) for order in orders * 2))
    assert sum(new) == 40
    assert await store.value("select count(*) from era.embeddings") == 40


async def test_storing_within_a_transaction_leaves_the_commit_to_the_caller(store: Store) -> None:
    """Inside a transaction a repeat does not end it, and a rollback undoes everything."""
    await _store(store, HASHES[:1])
    async with store.database.connection() as conn:
        await conn.execute("select 1")
        assert await embeddings.store_vectors(conn, store.model.id, HASHES[:2], vectors(HASHES[:2])) == 1
        await conn.rollback()
    assert await store.value("select count(*) from era.embeddings") == 1


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("zero", lambda a: a.__setitem__(1, 0.0)),
        ("nan", lambda a: a.__setitem__((1, 3), np.nan)),
        ("infinite", lambda a: a.__setitem__((1, 3), np.inf)),
        ("long", lambda a: a.__setitem__(1, a[1] * 1.01)),
    ],
)
async def test_wrong_vectors_are_refused_with_their_neighbours(
    store: Store, name: str, spoil: object
) -> None:
    """A zero, NaN, infinite or unnormalised vector is named, and nothing of its request is stored."""
    array = vectors(HASHES[:3])
    spoil(array)  # type: ignore[operator]
    with pytest.raises(ResponseMismatchError, match="row 1"):
        await _store(store, HASHES[:3], array)
    assert await store.value("select count(*) from era.embeddings") == 0, name


@pytest.mark.parametrize("shape", [(2, DIMENSIONS), (3, DIMENSIONS + 1), (3,)])
async def test_wrong_shapes_are_refused(store: Store, shape: tuple[int, ...]) -> None:
    """Too few vectors, or vectors of another size, are refused."""
    with pytest.raises(ResponseMismatchError, match="shape"):
        await _store(store, HASHES[:3], np.ones(shape, dtype=np.float32))


async def test_hash_of_another_length_is_refused(store: Store) -> None:
    """Only SHA-256 digests are keys."""
    with pytest.raises(PermanentError, match="SHA-256"):
        await _store(store, [b"short"])


async def test_database_itself_refuses_wrong_vectors(store: Store) -> None:
    """A vector that comes past our checks meets the table's constraint."""
    with pytest.raises(psycopg.errors.CheckViolation):
        await store.fetch(
            "insert into era.embeddings (model_id, content_hash, embedding) values (%s, %s, '[0,0]')",
            store.model.id,
            HASHES[0],
        )


async def test_vectors_lie_inside_their_rows(store: Store) -> None:
    """Vectors of a usual size are not moved out of line, which would cost every scan."""
    async with store.database.connection() as conn:
        await conn.execute(
            "insert into era.models (name, backend, dimensions) values ('big', 'x', 1536) returning id"
        )
        await embeddings.store_vectors(conn, 2, HASHES, vectors(HASHES, 1536))
    size = await store.value(
        "select pg_relation_size(reltoastrelid) from pg_class where oid = 'era.embeddings'::regclass"
    )
    assert size == 0
