"""An embedding server that fails in thirty ways: each is sat out, split, put aside, or stops the run and says why.

Whole ingestions into a real database. Never a wrong row, never a lost text, no secret anywhere; and once the server is
well again, one more run completes what was begun.
"""

from __future__ import annotations

import json
import logging
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from era_ingest.clients.hashing import HashingEmbedder
from era_ingest.core.reasons import REASONS
from era_ingest.errors import (
    AuthenticationError,
    ConfigurationError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    TransientError,
)
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest.settings import load_settings
from era_ingest_tests.clients.kit import embed, embedder, item, items
from era_ingest_tests.faults.scale import seeded, short_and_long
from era_ingest_tests.server_faults import Fault, Rule
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from era_ingest.pipelines.report import IngestReport
    from era_ingest.pipelines.services import Services

SECRET = "sk-top-secret-0123456789"
DIMENSIONS = 32
BATCH = 8
RATES = (0.01, 0.3, 1.0)
SLOW = {Fault.HANG, Fault.DRIP}
REFUSES_INPUT = {Fault.BAD_TEXT, Fault.ECHO, Fault.TOO_MANY_TEXTS, Fault.TOO_LARGE, Fault.BACKEND}
STOPS = {
    Fault.NO_QUOTA: QuotaExhaustedError,
    Fault.BAD_KEY: AuthenticationError,
    Fault.ECHO_KEY: AuthenticationError,
    Fault.FORBIDDEN: AuthenticationError,
    Fault.NO_MODEL: ModelNotFoundError,
    Fault.SLOW_DOWN: RateLimitedError,
    Fault.SLOW_DOWN_SECONDS: RateLimitedError,
    Fault.SLOW_DOWN_MS: RateLimitedError,
    Fault.SLOW_DOWN_DATE: RateLimitedError,
}
"""What ends a run whose every request fails so; the others end it as unavailable, or blame the configuration."""


class Trial:
    """One installation in front of a server that fails.

    Args:
        services: Open services whose embedder is the server.
        landing: Its landing folder.
        server: The server.
    """

    def __init__(self, services: Services, landing: Path, server: EmbeddingServer) -> None:
        self.services = services
        self.landing = landing
        self.server = server

    def write(self, name: str, texts: int) -> list[str]:
        """Write a book of so many statements, all of them new; return them."""
        statements = [
            f"Statement {number} of {name} says that {number * 7} is enough." for number in range(texts)
        ]
        (self.landing / f"{name}.json").write_text(json.dumps([{"rules": statements}]), encoding="utf-8")
        return statements

    async def ingest(self, *, retry_refused: bool = False) -> IngestReport:
        """Do what ``era ingest`` does."""
        arrivals = await resolve_paths(self.services, [self.landing])
        return await ingest_books(self.services, IngestRequest(arrivals.sources, retry_refused=retry_refused))

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query returns."""
        async with self.services.database.connection() as conn:
            return await (await conn.execute(query.encode(), values)).fetchall()

    async def vectors(self) -> dict[str, list[float] | None]:
        """Return the vector of each row by its text."""
        found = await self.rows("select text, embedding::real[] from era.doctrine_embeddings_all")
        return dict(found)


@pytest.fixture
async def trial(tmp_path: Path, database_url: str) -> AsyncIterator[Trial]:
    """An installation in front of a test server, on a fresh database."""
    landing = tmp_path / "landing"
    landing.mkdir()
    async with EmbeddingServer(ServerOptions(dimensions=DIMENSIONS)) as server:
        settings = load_settings(
            home=tmp_path / "home",
            database_url=database_url,
            landing_dir=landing,
            ministers_dir=tmp_path / "ministers",
            embedder="openai",
            embed_url=server.url,
            embed_model="m",
            embed_api_key=SECRET,
            embed_batch_texts=BATCH,
            embed_timeout_s=0.2,
            embed_retry_budget_s=0.5,
        )
        async with open_services(settings) as services:
            yield Trial(services, landing, server)


def _check_vectors(vectors: dict[str, list[float] | None]) -> None:
    """Every vector is that of its text, and of length 1."""
    present = {text: vector for text, vector in vectors.items() if vector is not None}
    if not present:
        return
    expected = HashingEmbedder(DIMENSIONS).compute(list(present))
    assert np.allclose(np.array(list(present.values())), expected, atol=1e-5)


async def _check_told(trial: Trial, report: IngestReport, vectors: dict[str, list[float] | None]) -> None:
    """A row without a vector stands in the quarantine, with a reason that is explained."""
    told = await trial.rows("select text, reason, detail from era.quarantine where kind = 'text'")
    without = {text for text, vector in vectors.items() if vector is None}
    assert without <= {text for text, _, _ in told}
    assert all(reason in REASONS and detail for _, reason, detail in told)
    if report.error is not None:
        assert trial.server.url.removeprefix("http://") in report.error.message
        assert len(report.error.message) < 1_000


async def _check_no_secret(trial: Trial, report: IngestReport, log: str) -> None:
    """The key stands in no error, no row, and not in the log."""
    told = [log, repr(report), str(report.error), repr(getattr(report.error, "__dict__", ""))]
    told += [str(row) for row in await trial.rows("select * from era.quarantine")]
    for text in told:
        assert SECRET not in text


@pytest.mark.parametrize("texts", short_and_long(64, 2_000))
@pytest.mark.parametrize("fault", Fault)
async def test_a_failing_server_costs_no_text_and_no_truth(
    fault: Fault, texts: int, trial: Trial, caplog: pytest.LogCaptureFixture
) -> None:
    """At one request in a hundred, three in ten, and all of them."""
    caplog.set_level(logging.DEBUG)
    with seeded() as rng:
        trial.server._rng = random.Random(rng.random())
        trial.write("book of better days", 1)
        assert (await trial.ingest()).error is None
        for rate in RATES:
            trial.write(f"book-{rate}", texts if fault not in SLOW else 40)
            trial.server.options = ServerOptions(
                dimensions=DIMENSIONS, rules=(Rule(fault, rate, retry_after_s=0.02),)
            )
            before = await trial.vectors()
            report = await trial.ingest()
            vectors = await trial.vectors()
            _check_vectors(vectors)
            await _check_told(trial, report, vectors)
            await _check_no_secret(trial, report, caplog.text)
            if rate == 1.0 and fault is not Fault.OUT_OF_ORDER:
                assert report.error is not None
                assert isinstance(report.error, STOPS.get(fault, (TransientError, ConfigurationError)))
                assert vectors == before
            elif report.error is None and fault not in REFUSES_INPUT:
                assert None not in vectors.values()
        trial.server.options = ServerOptions(dimensions=DIMENSIONS)
        report = await trial.ingest(retry_refused=True)
        assert report.error is None
        vectors = await trial.vectors()
        assert len(vectors) == sum(book.entries for book in report.books)
        assert None not in vectors.values()
        _check_vectors(vectors)
        assert await trial.rows("select count(*) from era.quarantine") == [(0,)]


async def test_a_server_that_is_not_there_stops_the_run_and_says_so(trial: Trial) -> None:
    """Refused connections: nothing is put aside; the next run loads everything."""
    trial.write("book", 40)
    await trial.server.down()
    report = await trial.ingest()
    assert isinstance(report.error, TransientError)
    assert "cannot be reached" in report.error.message
    assert await trial.rows("select count(*) from era.quarantine") == [(0,)]
    await trial.server.up()
    assert (await trial.ingest()).error is None
    assert len(await trial.vectors()) == 40


@pytest.mark.parametrize("count", short_and_long(15, 300))
async def test_a_poison_text_costs_two_requests_a_halving(count: int) -> None:
    """Wherever it stands in a batch of any size: it alone is put aside, for at most 2 log2 n requests more."""
    with seeded() as rng:
        for _ in range(count):
            size = rng.randint(2, 256)
            fault = rng.choice([Fault.BAD_TEXT, Fault.ECHO, Fault.TOO_MANY_TEXTS, Fault.TOO_LARGE])
            texts = items(size)
            texts[rng.randrange(size)] = item("some poison text")
            async with EmbeddingServer(ServerOptions(rules=(Rule(fault, text="poison"),))) as server:
                notes, _ = await embed(embedder(server, batch_texts=size), texts)
            assert list(notes.refused) == ["some poison text"]
            assert notes.missing(texts) == []
            assert server.stats.requests - 1 <= 2 * math.ceil(math.log2(size))
