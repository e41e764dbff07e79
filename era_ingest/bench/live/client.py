"""The product's driver for so many seconds before a real server, with a tally as the simulation's."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from typing import TYPE_CHECKING

from era_ingest.bench.live.door import FREE
from era_ingest.bench.simulation.client import Failed, Served, Tally
from era_ingest.clients.driver import ClientOptions, EmbeddingClient, TextItem
from era_ingest.clients.http_backend import Endpoint
from era_ingest.clients.openai import OpenAIEmbedder
from era_ingest.errors import EraError, RateLimitedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from era_ingest.clients.backend import Embedder, Reply
    from era_ingest.core.limiter import Limiter

TRIPS = 60


class Witness:
    """Notes when each request of a backend succeeded or was refused. Implements ``Embedder``.

    Args:
        embedder: The backend.
        began: When the run began, seconds of ``time.monotonic``.
    """

    def __init__(self, embedder: Embedder, began: float) -> None:
        self.tally = Tally()
        self._embedder, self._began = embedder, began
        self.name, self.dimensions = embedder.name, embedder.dimensions
        self.max_batch_texts, self.max_batch_bytes = embedder.max_batch_texts, embedder.max_batch_bytes
        self.max_batch_tokens = embedder.max_batch_tokens

    @property
    def backend(self) -> str:
        """That of the backend."""
        return self._embedder.backend

    async def embed(self, texts: Sequence[str]) -> Reply:
        """Embed, and note how it went."""
        sent = time.monotonic()
        self.tally.sent += 1
        try:
            reply = await self._embedder.embed(texts)
        except RateLimitedError:
            self.tally.refused += 1
            raise
        except EraError:
            self.tally.failed.append(Failed(sent - self._began, time.monotonic() - self._began))
            raise
        now = time.monotonic()
        self.tally.served.append(Served(now - self._began, now - sent, 1.0))
        return reply

    async def aclose(self) -> None:
        """Release connections."""
        await self._embedder.aclose()


async def run_client(url: str, limiter: Limiter, duration_s: float) -> Tally:
    """Send one short text a request, as fast as the limiter allows, for so many seconds.

    Args:
        url: The server's root.
        limiter: The controller.
        duration_s: Length of the run, seconds; requests in flight at the end count as sent.
    """
    witness = Witness(_embedder(url), time.monotonic())
    client = EmbeddingClient(witness, limiter, options=ClientOptions(linger_s=0.0))
    try:
        async with asyncio.timeout(duration_s):
            await client.embed_all(_texts(), commit=_forget, refuse=_never)
    except TimeoutError:
        pass
    finally:
        await witness.aclose()
    return witness.tally


async def measure_trip(url: str) -> float:
    """Return how long a request takes that costs the server nothing, seconds: the median of some."""
    embedder = _embedder(url + FREE)
    times = []
    try:
        for number in range(TRIPS):
            began = time.monotonic()
            await embedder.embed([f"text {number}"])
            times.append(time.monotonic() - began)
    finally:
        await embedder.aclose()
    return statistics.median(times)


def _embedder(url: str) -> OpenAIEmbedder:
    return OpenAIEmbedder(Endpoint(url, "bench", batch_texts=1))


async def _texts() -> AsyncIterator[TextItem]:
    for number in itertools.count():
        yield TextItem(number.to_bytes(8, "big"), f"short text, case {number:08d}")


async def _forget(_hashes: Sequence[bytes], _vectors: NDArray[np.float32]) -> None:
    """Keep nothing: the client is measured, not the database."""


async def _never(item: TextItem, error: EraError) -> None:
    raise AssertionError(item.text) from error
