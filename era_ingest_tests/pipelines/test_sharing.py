"""Runs that share a key's limit through the database: quiet while alone, there when refused, gone at the end."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from era_ingest.clients.driver import EmbeddingClient
from era_ingest.clients.http_backend import Endpoint
from era_ingest.clients.sharing import sharing
from era_ingest.core.limiter import AdaptiveLimiter, FailureKind, FixedLimiter
from era_ingest.core.limiter.sharer import Sharer
from era_ingest.errors import StoreUnavailableError
from era_ingest.pipelines.sharing import shared, sharing_limiter
from era_ingest.store import boards, schema
from era_ingest_tests.clients.kit import QUICK, Notes, embedder, items, stream, until
from era_ingest_tests.server_limits import Quota
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from era_ingest.core.limiter.board import Grant, Report
    from era_ingest.store.database import Database

REFUSING = ServerOptions(quota=Quota(per_minute=600, burst=5))
"""Ten a second: a client on a busy machine runs into it too."""


@pytest.fixture
async def boarded(database: Database) -> Database:
    """A database with the project's tables."""
    await schema.migrate(database)
    return database


def adaptive(seed: int = 1) -> AdaptiveLimiter:
    """Return a controller."""
    return AdaptiveLimiter(uniform=Random(seed).random)


async def rows(database: Database) -> int:
    """Return how many boards there are."""
    async with database.connection() as conn:
        row = await (await conn.execute("select count(*) from era.pace_boards")).fetchone()
    assert row is not None
    return int(row[0])


async def embed(server: EmbeddingServer, database: Database, count: int, prefix: str) -> Notes:
    """Embed texts, one a request, as one run of several."""
    backend, notes = embedder(server, batch_texts=1), Notes()
    try:
        async with sharing_limiter(adaptive(), backend, database, rng=Random(2)) as limiter:
            client = EmbeddingClient(backend, limiter, options=QUICK)
            await client.embed_all(
                stream(items(count, prefix=prefix)), commit=notes.commit, refuse=notes.refuse
            )
    finally:
        await backend.aclose()
    return notes


async def test_a_run_that_is_never_refused_writes_nothing(boarded: Database) -> None:
    """It has looked once whether others are there."""
    async with EmbeddingServer() as server:
        notes = await embed(server, boarded, 100, "x")
    assert len(notes.vectors) == 100
    assert await rows(boarded) == 0


async def test_runs_that_are_refused_meet_and_leave(boarded: Database) -> None:
    """Both finish; the board is empty afterwards, and names nobody."""
    async with EmbeddingServer(REFUSING) as server:
        met = 0

        async def watch() -> None:
            nonlocal met
            while True:
                key = embedder(server).endpoint.limit_key
                met = max(met, len(await boards.visit(boarded, key, lambda _, board: board.members)))
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        both = await asyncio.gather(*(embed(server, boarded, 20, name) for name in "ab"))
        watching.cancel()
        key = embedder(server).endpoint.limit_key
    assert [len(notes.vectors) for notes in both] == [20, 20]
    assert met == 2
    assert (await boards.visit(boarded, key, lambda _, board: board.members)) == {}


async def test_a_newcomer_asks_before_it_sends(boarded: Database) -> None:
    """Where runs share already, it takes its share and does not run into the limit first."""
    async with shared(Sharer(adaptive(), uniform=Random(1).random), "k", boarded) as first:
        ticket = first.on_send(0.0, 1.0)
        first.inner.refusals.rate.adopt(0.0, 20.0)
        first.on_failure(0.0, ticket, FailureKind.RATE_LIMITED)
        await until(lambda: first.has_joined and not first.is_asking)
        async with shared(Sharer(adaptive(), uniform=Random(1).random), "k", boarded) as second:
            await until(lambda: second.is_sharing)
            await until(lambda: first.is_sharing)


async def test_a_board_that_is_away_stops_nobody() -> None:
    """The run goes on with what it learns by itself."""
    asked = 0

    async def visit(_: Report) -> Grant:
        nonlocal asked
        asked += 1
        raise StoreUnavailableError("away")

    async with EmbeddingServer(REFUSING) as server:
        backend, notes = embedder(server, batch_texts=1), Notes()
        one = Sharer(adaptive(), uniform=Random(2).random)
        async with sharing(one, visit):
            client = EmbeddingClient(backend, one, options=QUICK)
            await client.embed_all(stream(items(20)), commit=notes.commit, refuse=notes.refuse)
        await backend.aclose()
    assert len(notes.vectors) == 20
    assert asked >= 1
    assert not one.is_sharing


async def test_only_the_adaptive_controller_shares(boarded: Database) -> None:
    """A fixed number stays what it is."""
    async with EmbeddingServer() as server:
        fixed = FixedLimiter(2)
        async with sharing_limiter(fixed, embedder(server), boarded, rng=Random(1)) as limiter:
            assert limiter is fixed


def test_the_key_of_a_board_is_no_secret() -> None:
    """One for each endpoint, model and account, which tells none of them."""
    secret = SecretStr("sk-0123456789")
    keys = [
        Endpoint("http://h", "m", secret),
        Endpoint("http://h", "m"),
        Endpoint("http://h", "n", secret),
        Endpoint("http://i", "m", secret),
    ]
    assert len({one.limit_key for one in keys}) == 4
    assert not any("sk-" in one.limit_key or "://" in one.limit_key for one in keys)
    assert Endpoint("http://h", "m", secret, batch_texts=5).limit_key == keys[0].limit_key
