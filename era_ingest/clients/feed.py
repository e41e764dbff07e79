"""The way from texts to batches: pulled lazily, packed, and no further ahead than ``READY_BATCHES``."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.batching import Batch, BatchLimits, BatchPacker, Sized

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from era_ingest.core.tokens import TokenEstimator

READY_BATCHES = 2
"""Packed batches that wait, at most; then the source is not pulled any more."""
LINGER_S = 0.05
"""How long a batch that is not full waits for more texts while nothing else is ready, seconds."""


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text to embed.

    Attributes:
        content_hash: SHA-256 of the text's UTF-8 bytes.
        text: Cleaned text, not empty.
    """

    content_hash: bytes
    text: str


class BatchFeed:
    """Pulls texts and packs them; a batch that is not full goes when the source is slow, or at its end.

    Args:
        source: Texts, each once.
        limits: What a request may carry.
        estimator: Estimates tokens.
        sleep: Waits for seconds.
        linger_s: How long a batch that is not full waits for more, seconds.
    """

    def __init__(
        self,
        source: AsyncIterable[TextItem],
        limits: BatchLimits,
        estimator: TokenEstimator,
        *,
        sleep: Callable[[float], Awaitable[None]],
        linger_s: float = LINGER_S,
    ) -> None:
        self._source = source
        self._estimator = estimator
        self._sleep = sleep
        self._linger_s = linger_s
        self._packer: BatchPacker[TextItem] = BatchPacker(limits)
        self._ready: deque[Batch[TextItem]] = deque()
        self._exhausted = False
        self._stock = asyncio.Event()
        self._room = asyncio.Event()

    def restrict(self, limits: BatchLimits) -> None:
        """Pack by other limits from now on."""
        self._packer.limits = limits

    async def pull(self) -> None:
        """Pull the source to its end; to be run as a task. Closes the source, also when it is cancelled."""
        packer = self._packer
        try:
            async for item in self._source:
                text = item.text
                n_bytes = len(text) if text.isascii() else len(text.encode())
                full = packer.add(Sized(item, n_bytes, self._estimator.estimate(text)))
                if full:
                    self._ready.extend(full)
                    self._stock.set()
                    while len(self._ready) >= READY_BATCHES:
                        self._room.clear()
                        await self._room.wait()
                elif len(packer) == 1:
                    self._stock.set()
        finally:
            self._exhausted = True
            self._stock.set()
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()

    async def next_batch(self) -> Batch[TextItem] | None:
        """Return the next batch, or None at the end."""
        while not self._ready:
            if self._exhausted:
                return self._packer.flush()
            self._stock.clear()
            if not len(self._packer):
                await self._stock.wait()
            elif not await self._lingered():
                return self._packer.flush()
        batch = self._ready.popleft()
        self._room.set()
        return batch

    async def _lingered(self) -> bool:
        """Wait for news from the source for ``linger_s``; return False if there was none."""
        over = False

        def end(_: object) -> None:
            nonlocal over
            over = not self._stock.is_set()
            self._stock.set()

        timer = asyncio.ensure_future(self._sleep(self._linger_s))
        timer.add_done_callback(end)
        try:
            await self._stock.wait()
        finally:
            timer.remove_done_callback(end)
            timer.cancel()
        return not over
