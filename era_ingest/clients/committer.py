"""The way from replies to durable vectors: one commit at a time, over all replies that wait for it.

A slow store makes larger commits, not more of them. Texts that cannot be embedded are reported in the same
line, so that ``commit`` and ``refuse`` never run at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    from era_ingest.clients.feed import TextItem
    from era_ingest.clients.stats import EmbeddingStats
    from era_ingest.errors import EraError

    Commit = Callable[[Sequence[bytes], NDArray[np.float32]], Awaitable[None]]
    Refuse = Callable[[TextItem, EraError], Awaitable[None]]

MAX_COMMIT_TEXTS = 4096
"""Texts of one commit, about; a single larger reply goes alone."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A good reply: hashes of n texts, float32 of shape (n, d), and the tokens they cost."""

    hashes: tuple[bytes, ...]
    vectors: NDArray[np.float32]
    tokens: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A text that cannot be embedded, and why."""

    item: TextItem
    error: EraError


class Committer:
    """Commits what is finished, in order; calls ``on_progress`` after each commit.

    Args:
        commit: Makes vectors durable.
        refuse: Puts a text aside.
        stats: Counts what is durable.
    """

    def __init__(self, commit: Commit, refuse: Refuse, stats: EmbeddingStats) -> None:
        self._commit = commit
        self._refuse = refuse
        self._stats = stats
        self.on_progress: Callable[[], None] = lambda: None
        self._queue: deque[Finished | Refused] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self.waiting = 0

    def put(self, outcome: Finished | Refused) -> None:
        """Take an outcome; ``waiting`` counts it until it is durable."""
        self._queue.append(outcome)
        self.waiting += 1
        self._news.set()

    def close(self) -> None:
        """Let ``run`` end once everything is durable."""
        self._closed = True
        self._news.set()

    async def run(self) -> None:
        """Commit until closed; what ``commit`` or ``refuse`` raise ends it."""
        while self._queue or not self._closed:
            if not self._queue:
                self._news.clear()
                await self._news.wait()
                continue
            if isinstance(self._queue[0], Refused):
                await self._put_aside(self._queue[0])
            else:
                await self._store(self._take_finished())
            self.on_progress()

    async def _put_aside(self, refused: Refused) -> None:
        await self._refuse(refused.item, refused.error)
        self._queue.popleft()
        self.waiting -= 1
        self._stats.refused += 1

    async def _store(self, group: list[Finished]) -> None:
        hashes = [content_hash for part in group for content_hash in part.hashes]
        vectors = group[0].vectors if len(group) == 1 else np.concatenate([part.vectors for part in group])
        await self._commit(hashes, vectors)
        self.waiting -= len(group)
        self._stats.commits += 1
        self._stats.texts += len(hashes)
        self._stats.tokens += round(sum(part.tokens for part in group))

    def _take_finished(self) -> list[Finished]:
        """Take the replies at the queue's head, up to ``MAX_COMMIT_TEXTS``."""
        group: list[Finished] = []
        texts = 0
        while self._queue:
            head = self._queue[0]
            if isinstance(head, Refused) or (group and texts + len(head.hashes) > MAX_COMMIT_TEXTS):
                break
            self._queue.popleft()
            group.append(head)
            texts += len(head.hashes)
        return group
