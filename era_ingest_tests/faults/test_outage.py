"""Ten minutes without the embedding server, in virtual time: sat out with a probe a second at most, then full speed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from era_ingest.clients.backend import Reply
from era_ingest.clients.driver import ClientOptions, EmbeddingClient
from era_ingest.core.limiter import NO_HINTS
from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.level import Bounds
from era_ingest.errors import EraError, UpstreamTimeoutError, UpstreamUnavailableError
from era_ingest_tests.clients.kit import item
from era_ingest_tests.faults.scale import seeded, short_and_long
from era_ingest_tests.faults.virtual_time import run_virtually

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence

    from numpy.typing import NDArray

    from era_ingest.clients.feed import TextItem

LATENCY_S = 0.2
WORKERS = 16
BATCH = 8
DOWN_AT_S, OUTAGE_S, AFTER_S = 60.0, 600.0, 60.0
PATIENT = ClientOptions(retry_budget_s=900.0)
"""The default of ERA_EMBED_RETRY_BUDGET_S."""


class Server:
    """Sixteen workers of 0.2 s a request, away for ten minutes. Implements ``Embedder``."""

    name, backend = "virtual/4", "virtual"
    max_batch_texts, max_batch_bytes, max_batch_tokens = BATCH, float("inf"), float("inf")

    def __init__(self, kind: str) -> None:
        self.dimensions: int | None = 4
        self.kind = kind
        self.sent: list[float] = []
        self.answered: list[float] = []
        self._workers = asyncio.Semaphore(WORKERS)

    async def embed(self, texts: Sequence[str]) -> Reply:
        """Answer after 0.2 s, or fail."""
        loop = asyncio.get_running_loop()
        self.sent.append(loop.time())
        if self._is_down(loop.time()):
            raise await self._fail()
        async with self._workers:
            await asyncio.sleep(LATENCY_S)
        if self._is_down(loop.time()):
            raise await self._fail()
        self.answered.append(loop.time())
        return Reply(np.full((len(texts), 4), 0.5, dtype=np.float32), None, NO_HINTS)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _is_down(self, now: float) -> bool:
        return DOWN_AT_S <= now < DOWN_AT_S + OUTAGE_S

    async def _fail(self) -> EraError:
        if self.kind == "hangs":
            await asyncio.sleep(30.0)
            return UpstreamTimeoutError("no answer")
        await asyncio.sleep(0.002)
        return UpstreamUnavailableError("away", status=503 if self.kind == "503" else None)

    def rate(self, begin: float, end: float) -> float:
        """Return the answers a second of a stretch of time."""
        return sum(begin <= at < end for at in self.answered) / (end - begin)


async def _embed_for(server: Server, rng: random.Random) -> tuple[int, dict[bytes, None], list[str]]:
    loop = asyncio.get_running_loop()
    sent, stored, refused = 0, dict[bytes, None](), list[str]()

    async def texts() -> AsyncIterator[TextItem]:
        nonlocal sent
        while loop.time() < DOWN_AT_S + OUTAGE_S + AFTER_S:
            sent += 1
            yield item(f"text {sent}")

    async def commit(hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        assert len(hashes) == len(vectors)
        assert not stored.keys() & set(hashes)
        stored.update(dict.fromkeys(hashes))

    async def refuse(refused_item: TextItem, error: EraError) -> None:
        refused.append(f"{refused_item.text}: {error}")

    client = EmbeddingClient(
        server,
        AdaptiveLimiter(uniform=rng.random, bounds=Bounds(most=512)),
        options=PATIENT,
        clock=loop.time,
        sleep=asyncio.sleep,
        rng=rng,
    )
    await client.embed_all(texts(), commit=commit, refuse=refuse)
    return sent, stored, refused


@pytest.mark.parametrize("count", short_and_long(1, 5))
@pytest.mark.parametrize("kind", ["refuses", "503", "hangs"])
def test_ten_minutes_without_the_server_cost_no_text_and_no_storm(kind: str, count: int) -> None:
    """Nothing that could wait fails; one probe a second at most; the old rate within ten seconds of its return."""
    with seeded() as rng:
        for _ in range(count):

            async def main() -> tuple[Server, int, dict[bytes, None], list[str]]:
                server = Server(kind)
                return server, *await _embed_for(server, rng)

            server, sent, stored, refused = run_virtually(main())
            assert refused == []
            assert len(stored) == sent
            in_flight = 512 if kind == "hangs" else WORKERS * 8
            probes = [at for at in server.sent if DOWN_AT_S + 1 <= at < DOWN_AT_S + OUTAGE_S]
            assert len(probes) <= OUTAGE_S + in_flight
            settled = [at for at in probes if at >= DOWN_AT_S + 60]
            assert len(settled) <= OUTAGE_S - 60
            back = DOWN_AT_S + OUTAGE_S
            before = server.rate(DOWN_AT_S - 20, DOWN_AT_S)
            assert before >= 0.9 * WORKERS / LATENCY_S
            assert server.rate(back + 10, back + 20) >= 0.9 * before
