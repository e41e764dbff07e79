"""What the simple limiters have in common: a number of places, and requests in flight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, LimiterState, ServerHints

if TYPE_CHECKING:
    from collections.abc import Mapping


class CountingLimiter:
    """Lets a request go while fewer than ``limit`` are in flight, and obeys Retry-After.

    The limit is a number that the gate reads, never a semaphore that is replaced under its waiters.
    Subclasses move it in `_on_latency` and `_on_refusal`.

    Args:
        start: Limit at the start.
        least: Least limit, >= 1.
        most: Greatest limit.
        name: What ``state`` shows as the holder.
    """

    def __init__(self, *, start: float, least: float, most: float, name: str) -> None:
        self.limit = float(start)
        self._least, self._most, self._name = least, most, name
        self._sent_at: dict[int, float] = {}
        self._tickets = 0
        self._silent_until = -math.inf

    @property
    def in_flight(self) -> Mapping[int, float]:
        """When each request in flight was sent, by ticket."""
        return self._sent_at

    def gate(self, now: float, cost: float) -> float:
        """Return 0 if a request may go now, else seconds to wait; infinity until an event."""
        del cost
        if len(self._sent_at) >= max(1, int(self.limit)):
            return math.inf
        return max(0.0, self._silent_until - now)

    def on_send(self, now: float, cost: float) -> int:
        """Note a request that goes out now; return its ticket."""
        del cost
        self._tickets += 1
        self._sent_at[self._tickets] = now
        return self._tickets

    def on_success(
        self, now: float, ticket: int, *, hints: ServerHints = NO_HINTS, cost: float | None = None
    ) -> None:
        """Note a good reply."""
        del hints, cost
        sent_at = self._sent_at.pop(ticket)
        self._move(self._on_latency(now, now - sent_at))

    def on_failure(
        self, now: float, ticket: int, kind: FailureKind, *, hints: ServerHints = NO_HINTS
    ) -> None:
        """Note a failure."""
        sent_at = self._sent_at.pop(ticket)
        if hints.retry_after_s is not None:
            self._silent_until = max(self._silent_until, now + hints.retry_after_s)
        if kind is FailureKind.RATE_LIMITED:
            self._move(self._on_refusal(now, sent_at))

    def on_cancel(self, now: float, ticket: int) -> None:
        """Forget a request whose outcome will never be known."""
        del now
        self._sent_at.pop(ticket)

    def state(self, now: float) -> LimiterState:
        """Return a picture of the controller."""
        held = self.gate(now, 0.0) > 0
        return LimiterState(self.limit, len(self._sent_at), None, self._name if held else "")

    def _move(self, limit: float) -> None:
        self.limit = min(self._most, max(self._least, limit))

    def _on_latency(self, now: float, latency_s: float) -> float:
        """Return the limit after a good reply."""
        del now, latency_s
        return self.limit

    def _on_refusal(self, now: float, sent_at: float) -> float:
        """Return the limit after a 429."""
        del now, sent_at
        return self.limit
