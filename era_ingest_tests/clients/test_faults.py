"""The client against servers that fail: no text is lost or doubled, and only bad ones are put aside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from era_ingest.clients.driver import ClientOptions, EmbeddingClient
from era_ingest.clients.server_check import SENTENCE
from era_ingest.core.limiter import FailureKind
from era_ingest.core.limiter.fixed import FixedLimiter
from era_ingest.core.retry import Backoff
from era_ingest.errors import (
    AuthenticationError,
    ConfigurationError,
    EraError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    TransientError,
    UpstreamUnavailableError,
)
from era_ingest_tests.clients.kit import (
    KEY,
    QUICK,
    Notes,
    client,
    embed,
    embedder,
    item,
    items,
    stream,
    until,
)
from era_ingest_tests.server_faults import Fault, Rule
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

PASSING = [
    Fault.SLOW_DOWN,
    Fault.SLOW_DOWN_SECONDS,
    Fault.SLOW_DOWN_DATE,
    Fault.SLOW_DOWN_MS,
    Fault.TIMEOUT,
    Fault.TOO_MANY_TEXTS,
    Fault.BAD_TEXT,
    Fault.ECHO,
    Fault.BACKEND,
    Fault.INTERNAL,
    Fault.GATEWAY,
    Fault.BUSY,
    Fault.GATEWAY_TIMEOUT,
    Fault.RESET,
    Fault.HANG,
    Fault.DRIP,
    Fault.TRUNCATED,
    Fault.NOT_JSON,
    Fault.WRONG_COUNT,
    Fault.WRONG_SIZE,
    Fault.NAN,
    Fault.ZERO,
    Fault.HUGE_ERROR,
    Fault.TOO_LARGE,
]
KEEPS_SILENT = {Fault.HANG, Fault.DRIP}
SAYS_BAD_INPUT = {Fault.BAD_TEXT, Fault.ECHO, Fault.TOO_MANY_TEXTS, Fault.TOO_LARGE}
STOPPING: dict[Fault, type[EraError]] = {
    Fault.NO_QUOTA: QuotaExhaustedError,
    Fault.BAD_KEY: AuthenticationError,
    Fault.ECHO_KEY: AuthenticationError,
    Fault.FORBIDDEN: AuthenticationError,
    Fault.NO_MODEL: ModelNotFoundError,
    Fault.BAD_TEXT: ConfigurationError,
    Fault.TOO_MANY_TEXTS: ConfigurationError,
    Fault.ECHO: ConfigurationError,
    Fault.BACKEND: ConfigurationError,
    Fault.NOT_JSON: ConfigurationError,
    Fault.WRONG_COUNT: ConfigurationError,
    Fault.NAN: ConfigurationError,
    Fault.ZERO: ConfigurationError,
    Fault.INTERNAL: UpstreamUnavailableError,
    Fault.BUSY: TransientError,
    Fault.RESET: UpstreamUnavailableError,
    Fault.SLOW_DOWN: RateLimitedError,
}


@pytest.mark.parametrize("backend", ["openai", "ollama"])
@pytest.mark.parametrize("rate", [0.01, 0.3])
@pytest.mark.parametrize("fault", PASSING)
async def test_faults_by_chance_lose_no_text(fault: Fault, rate: float, backend: str) -> None:
    """At one request in a hundred, and at three in ten, every text gets its vector.

    None is put aside, except where the server itself says of three requests in ten that their input is bad.
    """
    timeout_s = 1.0 if fault in KEEPS_SILENT else 5.0  # time for a good reply on a busy machine
    count = 96 if fault in KEEPS_SILENT else 400
    rule = Rule(fault, rate, retry_after_s=0.01)
    async with EmbeddingServer(ServerOptions(rules=(rule,))) as server:
        one = embedder(server, backend, batch_texts=8, timeout_s=timeout_s)
        one.dimensions = 64
        texts = items(count)
        notes, stats = await embed(one, texts)
    assert notes.missing(texts) == []
    if fault not in SAYS_BAD_INPUT or rate < 0.1:
        assert notes.refused == {}
    assert stats.texts + stats.refused == count
    assert stats.requests >= server.stats.requests >= count / 8
    if fault not in KEEPS_SILENT:  # a request may be given up before a busy server has read it
        assert stats.requests == server.stats.requests
    if rate > 0.1:
        assert stats.requests > count / 8


@pytest.mark.parametrize("backend", ["openai", "ollama"])
@pytest.mark.parametrize("fault", STOPPING)
async def test_a_server_that_always_fails_stops_the_run_and_blames_no_text(
    fault: Fault, backend: str
) -> None:
    """A person is told why, after few requests; no text is put aside."""
    if backend == "ollama" and fault is Fault.NO_QUOTA:
        pytest.skip("Ollama has no quota")
    options = ClientOptions(0.3, linger_s=0.002, backoff=Backoff(0.02, 0.05))
    async with EmbeddingServer(ServerOptions(rules=(Rule(fault),))) as server:
        notes = Notes()
        with pytest.raises(STOPPING[fault]) as caught:
            await embed(embedder(server, backend), items(1000), options=options, notes=notes)
    assert KEY not in caught.value.message
    assert notes.refused == {}
    assert notes.vectors == {}
    if isinstance(caught.value, ConfigurationError):
        assert server.stats.requests <= 70


@pytest.mark.parametrize("fault", [Fault.BAD_TEXT, Fault.ECHO, Fault.TOO_MANY_TEXTS, Fault.TOO_LARGE])
@pytest.mark.parametrize("place", [0, 1, 17, 62, 63])
async def test_one_poison_text_in_64_costs_13_requests_and_saves_63(fault: Fault, place: int) -> None:
    """It is put aside with the server's reason; its neighbours are embedded."""
    texts = items(64)
    texts[place] = item("some poison text")
    async with EmbeddingServer(ServerOptions(rules=(Rule(fault, text="poison"),))) as server:
        notes, stats = await embed(embedder(server), texts)
    assert server.stats.requests == 13
    assert list(notes.refused) == ["some poison text"]
    assert f"answered {fault.value[:3]}" in notes.refused["some poison text"].message
    assert notes.missing(texts) == []
    assert (stats.texts, stats.refused) == (63, 1)


@pytest.mark.parametrize(
    "fault", [Fault.INTERNAL, Fault.BACKEND, Fault.RESET, Fault.NAN, Fault.ZERO, Fault.WRONG_COUNT]
)
async def test_a_text_that_breaks_the_server_is_found_too(fault: Fault) -> None:
    """One that is never refused in so many words, but never answered either."""
    texts = items(40)
    texts[11] = item("some poison text")
    async with EmbeddingServer(ServerOptions(rules=(Rule(fault, text="poison"),))) as server:
        notes, _ = await embed(embedder(server, batch_texts=16), texts)
    assert list(notes.refused) == ["some poison text"]
    assert notes.missing(texts) == []
    assert server.stats.requests < 60


async def test_several_poison_texts_are_each_found() -> None:
    """Also when they are neighbours, or a whole batch."""
    texts = [*items(20), *[item(f"poison {number}") for number in range(9)], *items(20, prefix="more")]
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.BAD_TEXT, text="poison"),))) as server:
        notes, _ = await embed(embedder(server, batch_texts=8), texts)
    assert sorted(notes.refused) == [f"poison {number}" for number in range(9)]
    assert notes.missing(texts) == []


async def test_a_lone_poison_text_is_told_from_a_bad_server() -> None:
    """Nothing else was ever answered: a plain sentence decides."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.BAD_TEXT, text="poison"),))) as server:
        notes, _ = await embed(embedder(server), [item("poison")])
    assert list(notes.refused) == ["poison"]
    assert server.stats.requests == 2


@pytest.mark.parametrize("backend", ["openai", "ollama"])
async def test_the_servers_limit_of_texts_is_learnt(backend: str) -> None:
    """A server that takes 32 at most is asked for 64 only by the first requests."""
    async with EmbeddingServer(ServerOptions(max_texts=32)) as server:
        texts = items(64 * 30)
        notes, _ = await embed(embedder(server, backend), texts)
    assert notes.missing(texts) == []
    assert notes.refused == {}
    assert server.stats.requests <= 60 + 3 * 12


async def test_the_servers_limit_of_tokens_is_learnt() -> None:
    """And one that counts tokens."""
    async with EmbeddingServer(ServerOptions(max_tokens=1000)) as server:
        texts = [item(f"{number} " + "long text " * 20) for number in range(600)]
        notes, _ = await embed(embedder(server), texts)
    assert notes.missing(texts) == []
    assert notes.refused == {}
    assert server.stats.requests < 200


async def test_an_outage_costs_nobody_a_text() -> None:
    """Refused connections for a while: all goes on afterwards, and nothing is put aside."""
    async with EmbeddingServer(ServerOptions(latency_s=0.002)) as server:
        notes = Notes()
        texts = items(2000)
        one = embedder(server, batch_texts=16)
        patient = ClientOptions(30.0, linger_s=0.002, backoff=Backoff(0.02, 0.05))
        run = asyncio.create_task(
            client(one, options=patient).embed_all(stream(texts), commit=notes.commit, refuse=notes.refuse)
        )
        await until(lambda: len(notes.vectors) >= 300)
        await server.down()
        await asyncio.sleep(0.4)
        await server.up()
        stats = await run
        await one.aclose()
    assert notes.missing(texts) == []
    assert notes.refused == {}
    assert stats.failures.get(FailureKind.CONNECTION, 0) > 0


async def test_a_wrong_url_does_not_take_the_whole_budget() -> None:
    """While nothing was ever reached, patience is shorter."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    async with EmbeddingServer() as server:
        one = embedder(server)
    notes = Notes()
    patient = EmbeddingClient(one, FixedLimiter(2), clock=lambda: now, sleep=sleep)
    with pytest.raises(UpstreamUnavailableError, match=r"cannot be reached.*Given up after 60 s"):
        await patient.embed_all(stream(items(3)), commit=notes.commit, refuse=notes.refuse)
    await one.aclose()
    assert 60 <= now < 150


@pytest.mark.parametrize("spoilt", [0, 1])
async def test_a_model_nobody_used_has_the_size_on_which_two_replies_agree(spoilt: int) -> None:
    """The first reply of all may be another model's: it decides nothing, and its texts are sent again."""
    rule = Rule(Fault.WRONG_SIZE, first=spoilt)
    async with EmbeddingServer(ServerOptions(rules=(rule,))) as server:
        one = embedder(server)
        one.dimensions = None
        texts = items(300)
        notes, _ = await embed(one, texts)
    assert one.dimensions == 64
    assert notes.missing(texts) == []
    assert {len(vector) for vector in notes.vectors.values()} == {64}
    assert server.stats.texts <= 300 + spoilt * 64 + spoilt + 1


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.INTERNAL])
async def test_replies_that_wait_for_a_models_size_count_as_in_flight(fault: Fault) -> None:
    """The question for it is refused twice: meanwhile no more is sent than may be in flight, and it goes first."""
    most_at_risk = 0

    class Watch(Notes):
        async def commit(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
            nonlocal most_at_risk
            most_at_risk = max(most_at_risk, server.stats.texts - len(self.vectors))
            await super().commit(hashes, vectors)

    rule = Rule(fault, text=SENTENCE, first=10)
    async with EmbeddingServer(ServerOptions(rules=(rule,), latency_s=0.01)) as server:
        one = embedder(server, batch_texts=10)
        one.dimensions = None
        texts = items(400)
        notes, _ = await embed(one, texts, notes=Watch())
    assert server.stats.faults > 0
    assert notes.missing(texts) == []
    questions = server.stats.faults + 1
    assert most_at_risk <= 8 * 10 + questions


async def test_what_was_finished_before_a_stop_is_committed() -> None:
    """The quota ends half way: requests in flight are finished, everything answered is durable."""
    async with EmbeddingServer(ServerOptions(latency_s=0.005)) as server:
        server.options = ServerOptions(latency_s=0.005, rules=(Rule(Fault.NO_QUOTA, text="number 555"),))
        notes = Notes()
        with pytest.raises(QuotaExhaustedError):
            await embed(embedder(server, batch_texts=10), items(5000), notes=notes)
    assert len(notes.vectors) == server.stats.texts_answered
    assert 400 < len(notes.vectors) < 1000
    assert notes.refused == {}


async def test_no_budget_means_no_second_try() -> None:
    """A budget of 0 stops at the first failure."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.INTERNAL),))) as server:
        with pytest.raises(UpstreamUnavailableError, match="ERA_EMBED_RETRY_BUDGET_S"):
            await embed(embedder(server), items(10), options=ClientOptions(0.0))
    assert server.stats.requests == 1


async def test_refusals_use_up_no_patience_with_a_text() -> None:
    """Nine in ten are refused for speed; every text arrives all the same."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.SLOW_DOWN, 0.9),))) as server:
        texts = items(100)
        notes, stats = await embed(embedder(server, batch_texts=10), texts, options=QUICK)
    assert notes.missing(texts) == []
    assert notes.refused == {}
    assert stats.rate_limited == stats.failures[FailureKind.RATE_LIMITED] == server.stats.faults
