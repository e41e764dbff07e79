"""The client's flow: lazy reading, back-pressure, statistics, a limit that moves."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from era_ingest.clients.backend import Reply
from era_ingest.clients.driver import EmbeddingClient, TextItem
from era_ingest.clients.stats import LatencySample, Samples
from era_ingest.core.limiter.fixed import FixedLimiter
from era_ingest.errors import (
    ConfigurationError,
)
from era_ingest_tests.clients.kit import QUICK, Notes, client, embed, embedder, items, stream, until
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from numpy.typing import NDArray

from era_ingest_tests.clients.driver_kit import Bench, Source


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1000])
async def test_every_text_gets_one_vector(count: int) -> None:
    """Whatever the number of texts, the last batch included."""
    notes, stats = await embed(Bench(), items(count))
    assert len(notes.vectors) == stats.texts == count
    assert stats.requests == -(-count // 4)


class Chameleon(Bench):
    """A backend each of whose replies has vectors of another size."""

    dimensions: int | None = None

    async def embed(self, texts: Sequence[str]) -> Reply:
        await super().embed(texts)
        return Reply(np.eye(len(texts), 5 + len(self.batches), dtype=np.float32))


async def test_a_server_of_which_no_two_replies_agree_is_no_model() -> None:
    """Nothing is stored, and a person is told."""
    notes = Notes()
    with pytest.raises(ConfigurationError, match="of 6, then of 7, then of 8"):
        await embed(Chameleon(), items(4), notes=notes)
    assert notes.vectors == {}


async def test_no_more_is_in_flight_than_the_limiter_allows() -> None:
    """Eight, with work for hundreds."""
    bench = Bench(latency_s=0.002)
    await embed(bench, items(400))
    assert bench.most_in_flight == 8


async def test_the_source_is_read_no_further_than_needed() -> None:
    """While nothing is answered: what is in flight, what is packed, and one batch in hand."""
    bench, source, notes = Bench(held=True), Source(10_000), Notes()
    run = asyncio.create_task(
        client(bench).embed_all(source.read(), commit=notes.commit, refuse=notes.refuse)
    )
    await until(lambda: bench.in_flight == 8)
    await asyncio.sleep(0.02)
    assert source.pulled <= (8 + 2 + 1) * 4 + 1
    bench.gate.set()
    await run
    assert source.pulled == 10_000


async def test_a_slow_writer_holds_back_the_reader_but_frees_the_requests() -> None:
    """Replies wait, no more than may be in flight (a crash embeds those twice); then all goes on."""
    bench, source, notes, ready = Bench(), Source(10_000), Notes(), asyncio.Event()

    async def commit(hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        await ready.wait()
        await notes.commit(hashes, vectors)

    slow = client(bench)
    run = asyncio.create_task(slow.embed_all(source.read(), commit=commit, refuse=notes.refuse))
    await until(lambda: len(bench.batches) == 8 and bench.in_flight == 0)
    await asyncio.sleep(0.05)
    assert len(bench.batches) == 8
    assert source.pulled <= (8 + 3) * 4 + 1
    assert slow.stats.texts == 0
    ready.set()
    stats = await run
    assert stats.texts == 10_000
    assert stats.commits < stats.requests


async def test_a_reply_that_is_not_durable_makes_no_room_for_who_stands_in_line() -> None:
    """Killed in a COPY, a run had sent five batches where four were allowed: the fifth stood at the turnstile."""
    bench, notes, ready = Bench(held=True), Notes(), asyncio.Event()

    async def commit(hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        await ready.wait()
        await notes.commit(hashes, vectors)

    run = asyncio.create_task(client(bench).embed_all(stream(items(400)), commit=commit, refuse=notes.refuse))
    await until(lambda: bench.in_flight == 8)
    bench.gate.set()
    await until(lambda: bench.in_flight == 0)
    await asyncio.sleep(0.05)
    assert len(bench.batches) == 8
    ready.set()
    await run
    assert len(notes.vectors) == 400


async def test_a_batch_that_is_not_full_goes_when_the_source_is_slow() -> None:
    """A source that waits for its own results must not wait for ever."""
    notes = Notes()

    async def source() -> AsyncIterator[TextItem]:
        for one in items(3):
            yield one
            await until(partial(notes.vectors.__contains__, one.content_hash))

    stats = await client(Bench()).embed_all(source(), commit=notes.commit, refuse=notes.refuse)
    assert (stats.texts, stats.requests) == (3, 3)


async def test_statistics_can_be_read_while_it_runs() -> None:
    """Counts, the picture of requests, and the controller's state."""
    async with EmbeddingServer(ServerOptions(latency_s=0.005)) as server:
        one, notes = embedder(server, batch_texts=10), Notes()
        busy = client(one)
        run = asyncio.create_task(
            busy.embed_all(stream(items(500)), commit=notes.commit, refuse=notes.refuse)
        )
        await until(lambda: busy.stats.texts > 100)
        assert busy.limiter_state.limit == 8
        stats = await run
        await one.aclose()
    assert (stats.texts, stats.requests, stats.retries) == (500, 50, 0)
    assert stats.tokens > 0
    samples = stats.samples.all()
    assert len(samples) == 50
    assert all(sample.latency_s >= 0.005 and 1 <= sample.in_flight <= 8 for sample in samples)


def test_samples_stay_bounded_and_even() -> None:
    """A million requests leave a bounded number of samples, spread over the whole."""
    samples = Samples(100)
    for number in range(10_000):
        samples.add(LatencySample(float(number), 0.1, 1, 1.0))
    times = [sample.at_s for sample in samples.all()]
    assert 50 <= len(times) <= 100
    assert len({b - a for a, b in pairwise(times)}) == 1
    assert times[-1] > 9800


async def test_an_idle_client_costs_no_cpu() -> None:
    """Nothing is polled while requests are on their way, at the start and later."""
    bench, notes = Bench(held=True), Notes()
    waits = 0

    async def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        await asyncio.sleep(seconds)

    limiter = FixedLimiter(8)
    busy = EmbeddingClient(bench, limiter, options=QUICK, sleep=sleep)
    run = asyncio.create_task(
        busy.embed_all(stream(items(100_000)), commit=notes.commit, refuse=notes.refuse)
    )
    for _ in range(2):
        await until(lambda: bench.in_flight == 8)
        await asyncio.sleep(0.02)
        before, waits = time.process_time(), 0
        await asyncio.sleep(0.2)
        assert time.process_time() - before < 0.05
        assert waits == 0
        bench.gate.set()
        await until(lambda: len(bench.batches) > 100)
        bench.gate.clear()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


class Rising(FixedLimiter):
    """Three requests at first, six once a moment has passed: by the clock alone, without any event."""

    def __init__(self, rises_at: float) -> None:
        super().__init__(3)
        self._rises_at = rises_at

    def gate(self, now: float, cost: float) -> float:
        if now >= self._rises_at:
            self._limit = 6
            return super().gate(now, cost)
        return super().gate(now, cost) and self._rises_at - now


async def test_a_limit_that_rises_by_the_clock_alone_is_used_at_once() -> None:
    """A server of 2.5 s was found out 2 s late: the pump waited for a reply before it looked again."""
    bench, notes = Bench(held=True), Notes()
    rising = EmbeddingClient(bench, Rising(time.monotonic() + 0.05), options=QUICK)
    run = asyncio.create_task(rising.embed_all(stream(items(200)), commit=notes.commit, refuse=notes.refuse))
    await until(lambda: bench.in_flight == 6)
    bench.gate.set()
    await run
    assert len(notes.vectors) == 200


async def test_one_client_may_embed_several_streams_after_each_other() -> None:
    """Counts go on."""
    twice, notes = EmbeddingClient(Bench(), FixedLimiter(2), options=QUICK), Notes()
    for start in ("a", "b"):
        await twice.embed_all(stream(items(10, prefix=start)), commit=notes.commit, refuse=notes.refuse)
    assert twice.stats.texts == 20
