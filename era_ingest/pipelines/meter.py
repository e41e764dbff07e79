"""The meter of a run: turns what flow and client count into progress and, at the end, into the report."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from era_ingest.pipelines.report import Progress, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.clients.driver import EmbeddingClient
    from era_ingest.pipelines.flow import IngestFlow
    from era_ingest.pipelines.report import IngestReport

_TICK_S = 0.2
_RATE_WINDOW_S = 20.0


class Meter:
    """Reads how far a run is.

    Args:
        flow: Counts texts.
        client: Counts requests.
        result: Counts books.
        total: Books of the request, those to be removed among them.
        total_bytes: Size of the files that are to be read.
        price: Of a million tokens; 0: not known.
        clock: Monotonic, seconds.
    """

    def __init__(
        self,
        flow: IngestFlow,
        client: EmbeddingClient,
        result: IngestReport,
        *,
        total: int,
        total_bytes: int,
        price: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flow = flow
        self._client = client
        self._result = result
        self._total = total
        self._total_bytes = total_bytes
        self._price = price
        self._clock = clock
        self._started = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._started, 0)])

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    async def tick(self, report: Callable[[Progress], None]) -> None:
        """Report five times a second, until cancelled."""
        before = self._clock()
        while True:
            await asyncio.sleep(_TICK_S)
            now = self._clock()
            self._note_holder(now - before)
            before = now
            report(self.picture())

    def _note_holder(self, seconds: float) -> None:
        """Book a span of time on the part of the controller that holds requests back."""
        if self._client.stats.requests:
            held = self._result.held_seconds
            holder = self._client.limiter_state.held_by or "nothing"
            held[holder] = held.get(holder, 0.0) + seconds

    def picture(self) -> Progress:
        """Return how far the run is now."""
        now = self._clock()
        done = self._flow.texts_settled
        rate = self._rate(now, done)
        expected = self._expected()
        left = (expected - done) / rate if rate and expected else None
        stats = self._client.stats
        return Progress(
            books_done=len(self._result.books),
            books_total=self._total,
            texts_done=done,
            texts_known=self._flow.texts_known,
            texts_expected=expected,
            reading_done=self._flow.reading_done,
            requests=stats.requests,
            rate_limited=stats.rate_limited,
            tokens=stats.tokens,
            cost=self._cost,
            texts_per_s=rate,
            seconds_left=left,
            limiter=self._client.limiter_state,
            elapsed_s=now - self._started,
            books=self._result.books,
        )

    def summarise(self, result: IngestReport) -> None:
        """Write the client's counts into the report."""
        stats = self._client.stats
        result.requests = stats.requests
        result.rate_limited = stats.rate_limited
        result.retries = stats.retries
        result.tokens = stats.tokens
        result.cost = self._cost
        result.limit = self._client.limiter_state.limit if stats.requests else None
        result.stage_seconds["embed"] = stats.latency.sum_s
        result.samples = [
            Sample(sample.at_s, sample.latency_s, sample.in_flight, sample.limit)
            for sample in stats.samples.all()
        ]

    @property
    def _cost(self) -> float | None:
        return round(self._client.stats.tokens / 1e6 * self._price, 6) if self._price else None

    def _expected(self) -> int:
        """Return how many texts there will be in all: the books to come are like those that were read, by bytes."""
        known, read = self._flow.texts_known, self._flow.bytes_read
        if self._flow.reading_done or not read:
            return known
        return max(known, round(known * self._total_bytes / read))

    def _rate(self, now: float, done: int) -> float:
        """Return texts a second over the last twenty seconds."""
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _RATE_WINDOW_S:  # noqa: PLR2004 - both ends
            self._marks.popleft()
        since, before = self._marks[0]
        return (done - before) / (now - since) if now > since else 0.0
