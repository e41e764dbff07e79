"""A backend and a source that a test can hold back, and count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from era_ingest.clients.backend import Reply
from era_ingest_tests.clients.kit import items

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from era_ingest.clients.driver import TextItem


class Bench:
    """A backend in this process whose replies a test can hold back."""

    name = "bench/2"
    backend = "bench"
    dimensions: int | None = 2
    max_batch_texts = 4
    max_batch_tokens = float("inf")
    max_batch_bytes = float("inf")

    def __init__(self, *, held: bool = False, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.batches: list[list[str]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    async def embed(self, texts: Sequence[str]) -> Reply:
        self.batches.append(list(texts))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            await asyncio.sleep(self.latency_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        return Reply(np.tile(np.array([[1.0, 0.0]], np.float32), (len(texts), 1)))

    async def aclose(self) -> None:
        """Nothing to close."""


class Source:
    """Texts that are counted as they are pulled."""

    def __init__(self, count: int) -> None:
        self.pulled = 0
        self.closed = False
        self._count = count

    async def read(self) -> AsyncIterator[TextItem]:
        """Yield the texts."""
        try:
            for one in items(self._count):
                self.pulled += 1
                yield one
        finally:
            self.closed = True
