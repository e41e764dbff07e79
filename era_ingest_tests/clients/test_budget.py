"""A run with a bound of tokens: the server never sees more, what was done is kept, the next run goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from era_ingest.clients.driver import ClientOptions
from era_ingest.errors import BudgetExceededError
from era_ingest.settings import load_settings
from era_ingest_tests.clients.kit import QUICK, Notes, client, embedder, items, stream
from era_ingest_tests.server_faults import Fault, Rule
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

SERVER_TOKENS_A_CHAR = 1.2 / 4
"""What the test server counts: a fifth more than the client guesses at first."""


def _tokens_seen(server: EmbeddingServer) -> float:
    return sum(len(text) for texts in server.seen for text in texts) * SERVER_TOKENS_A_CHAR


async def _run(server: EmbeddingServer, bound: float, notes: Notes, count: int = 600) -> None:
    """Embed what the notes do not hold yet."""
    backend = embedder(server, batch_texts=8)
    todo = [one for one in items(count) if one.content_hash not in notes.vectors]
    try:
        await client(backend, options=replace(QUICK, max_tokens=bound)).embed_all(
            stream(todo), commit=notes.commit, refuse=notes.refuse
        )
    finally:
        await backend.aclose()


@pytest.mark.parametrize("bound", [100.0, 500.0, 1234.0])
@pytest.mark.parametrize("usage", [True, False])
async def test_the_server_never_sees_more_tokens_than_the_bound(bound: float, usage: bool) -> None:
    """And nearly as many: what is left is less than a request or two."""
    notes = Notes()
    async with EmbeddingServer(ServerOptions(latency_s=0.002, usage=usage)) as server:
        with pytest.raises(BudgetExceededError) as caught:
            await _run(server, bound, notes)
        seen = _tokens_seen(server)
        assert len(notes.vectors) == sum(len(texts) for texts in server.seen)
    allowed = bound if usage else bound * 1.2
    assert 0.7 * bound - 60 <= seen <= allowed * 1.001
    assert caught.value.bound_tokens == bound
    assert caught.value.spent_tokens <= bound
    assert f"{len(notes.vectors):,} texts were embedded and are kept" in str(caught.value)
    assert "ERA_EMBED_MAX_TOKENS" in str(caught.value)


async def test_the_next_runs_go_on_from_there_until_all_is_done() -> None:
    """Each text is sent once, over as many runs as the bound makes of it."""
    notes, runs = Notes(), 0
    async with EmbeddingServer(ServerOptions(latency_s=0.001)) as server:
        while len(notes.vectors) < 600:
            before = _tokens_seen(server)
            try:
                await _run(server, 1_000.0, notes)
            except BudgetExceededError:
                runs += 1
            assert _tokens_seen(server) - before <= 1_000
            assert runs <= 5
        sent = [text for texts in server.seen for text in texts]
    assert runs >= 2
    assert len(sent) == len(set(sent)) == 600


async def test_refused_and_repeated_requests_do_not_use_the_budget_up() -> None:
    """Only what was answered is spent: with errors of the server in between, the whole work still fits."""
    notes = Notes()
    async with EmbeddingServer(ServerOptions(latency_s=0.001, rules=(Rule(Fault.INTERNAL, 0.2),))) as server:
        await _run(server, 600 * 16 * SERVER_TOKENS_A_CHAR * 1.1, notes)
    assert len(notes.vectors) == 600


async def test_a_bound_below_one_request_makes_requests_small() -> None:
    """Batches shrink to what may be spent, instead of none being sent."""
    notes = Notes()
    async with EmbeddingServer() as server:
        with pytest.raises(BudgetExceededError):
            await _run(server, 12.0, notes)
        assert 0 < _tokens_seen(server) <= 12.0
    assert notes.vectors


async def test_a_bound_that_suffices_changes_nothing() -> None:
    """No error, no text left out."""
    notes = Notes()
    async with EmbeddingServer() as server:
        await _run(server, 1e6, notes, count=100)
    assert len(notes.vectors) == 100


def test_the_bound_comes_from_the_settings() -> None:
    """By tokens or by money, whichever is less."""
    settings = load_settings(embed_price=2.0, embed_max_cost=0.5)
    assert ClientOptions.of(settings).max_tokens == 250_000
