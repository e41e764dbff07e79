"""How a run of the client ends: cancelled, stopped, by an error of the writer, the source or the backend."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.limiter.fixed import FixedLimiter
from era_ingest.errors import (
    AuthenticationError,
    RequestRejectedError,
    StoreUnavailableError,
)
from era_ingest_tests.clients.kit import Notes, client, embedder, item, items, stream, until
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from era_ingest.clients.backend import Reply
    from era_ingest.clients.driver import TextItem
    from era_ingest.errors import EraError
from era_ingest_tests.clients.driver_kit import Bench, Source


async def test_cancellation_commits_what_is_finished_and_cancels_the_rest() -> None:
    """Ctrl-C: requests in flight end, answered ones become durable, the source is closed, nothing hangs."""
    async with EmbeddingServer(ServerOptions(latency_s=0.01)) as server:
        one, source, notes = embedder(server, batch_texts=10), Source(100_000), Notes()
        limiter = FixedLimiter(8)
        run = asyncio.create_task(
            client(one, limiter=limiter).embed_all(source.read(), commit=notes.commit, refuse=notes.refuse)
        )
        await until(lambda: len(notes.vectors) > 300)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await one.aclose()
        answered = server.stats.texts_answered
    assert source.closed
    assert limiter.state(0).in_flight == 0
    assert answered - 8 * 10 <= len(notes.vectors) <= answered
    assert notes.refused == {}


async def test_cancellation_waits_for_a_commit_that_is_under_way() -> None:
    """A commit is never cut off in the middle; what waits behind it is committed too."""
    bench, notes, started, ready = Bench(), Notes(), asyncio.Event(), asyncio.Event()

    async def commit(hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        started.set()
        await ready.wait()
        await notes.commit(hashes, vectors)

    run = asyncio.create_task(client(bench).embed_all(stream(items(40)), commit=commit, refuse=notes.refuse))
    await started.wait()
    await until(lambda: len(bench.batches) == 8 and bench.in_flight == 0)
    run.cancel()
    await asyncio.sleep(0.01)
    assert not run.done()
    ready.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert len(notes.vectors) == 8 * 4


async def test_a_second_cancellation_ends_it_at_once() -> None:
    """Ctrl-C twice, with a writer that hangs."""
    started = asyncio.Event()

    async def commit(_: Sequence[bytes], __: NDArray[np.float32]) -> None:
        started.set()
        await asyncio.Event().wait()

    run = asyncio.create_task(
        client(Bench()).embed_all(stream(items(40)), commit=commit, refuse=Notes().refuse)
    )
    await started.wait()
    run.cancel()
    await asyncio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_an_error_of_the_writer_is_raised_as_it_is() -> None:
    """Not inside a group; requests in flight are cancelled."""
    bench = Bench()

    async def commit(_: Sequence[bytes], __: NDArray[np.float32]) -> None:
        bench.gate.clear()
        raise StoreUnavailableError("the disk is full")

    with pytest.raises(StoreUnavailableError, match="disk is full"):
        await client(bench).embed_all(stream(items(1000)), commit=commit, refuse=Notes().refuse)
    assert bench.in_flight == 0


async def test_an_error_of_the_source_is_raised_after_committing_what_is_finished() -> None:
    """A reader that breaks does not take answered texts along."""
    notes = Notes()

    async def source() -> AsyncIterator[TextItem]:
        for one in items(40):
            yield one
        await until(lambda: len(notes.vectors) == 40)
        raise LookupError("no more books")

    with pytest.raises(LookupError):
        await client(Bench()).embed_all(source(), commit=notes.commit, refuse=notes.refuse)
    assert len(notes.vectors) == 40


async def test_an_error_of_refuse_is_raised() -> None:
    """The quarantine's own failure stops the run."""

    class Refusing(Bench):
        async def embed(self, texts: Sequence[str]) -> Reply:
            if "bad" in texts:
                raise RequestRejectedError("no", status=400)
            return await super().embed(texts)

    async def refuse(_: TextItem, __: EraError) -> None:
        raise StoreUnavailableError("the disk is full")

    with pytest.raises(StoreUnavailableError):
        await client(Refusing()).embed_all(
            stream([*items(4), item("bad")]), commit=Notes().commit, refuse=refuse
        )


async def test_a_bug_in_a_backend_is_not_hidden() -> None:
    """What is no error of this project comes out as it is."""

    class Broken(Bench):
        async def embed(self, texts: Sequence[str]) -> Reply:
            raise ZeroDivisionError(len(texts))

    limiter = FixedLimiter(2)
    with pytest.raises(ZeroDivisionError):
        await client(Broken(), limiter=limiter).embed_all(
            stream(items(100)), commit=Notes().commit, refuse=Notes().refuse
        )
    assert limiter.state(0).in_flight == 0


async def test_a_stop_lets_requests_in_flight_finish() -> None:
    """A refused key in one request; the others' answers are kept."""

    class Locked(Bench):
        async def embed(self, texts: Sequence[str]) -> Reply:
            if "text number 4" in texts:
                raise AuthenticationError("no")
            return await super().embed(texts)

    bench, notes = Locked(held=True), Notes()
    run = asyncio.create_task(
        client(bench).embed_all(stream(items(1000)), commit=notes.commit, refuse=notes.refuse)
    )
    await until(lambda: bench.in_flight >= 1)
    await asyncio.sleep(0.02)
    sent = len(bench.batches)
    bench.gate.set()
    with pytest.raises(AuthenticationError):
        await run
    assert len(bench.batches) == sent
    assert len(notes.vectors) == sent * 4
