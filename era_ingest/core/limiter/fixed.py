"""A plain bound on requests in flight: the controller that learns nothing.

State: requests in flight, and the time until which the server asked to be left alone. Formula: a request may
go if fewer than ``limit`` are in flight and no pause is on. A refusal (429) or an unavailable server with a
Retry-After pauses all requests for so long; a bare refusal pauses for ``pause_s``, doubled by each further
refusal in a row up to ``max_pause_s``. Right for servers whose capacity is known and for in-process models;
wrong for servers that are slow but wide, or that limit a rate without saying so: there it starves or pesters.
"""

from __future__ import annotations

import math

from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, LimiterState, ServerHints


class FixedLimiter:
    """At most ``limit`` requests in flight; pauses where the server asks for one. Implements ``Limiter``.

    Args:
        limit: Requests in flight, >= 1.
        pause_s: First pause after a refusal that does not say how long to wait, seconds.
        max_pause_s: Longest such pause, seconds.
    """

    def __init__(self, limit: int, *, pause_s: float = 0.5, max_pause_s: float = 30.0) -> None:
        self._limit = limit
        self._pause_s = pause_s
        self._max_pause_s = max_pause_s
        self._next_ticket = 0
        self._sent_at: dict[int, float] = {}
        self._paused_until = -math.inf
        self._refusals = 0
        self._refused_at = -math.inf

    def gate(self, now: float, cost: float) -> float:  # noqa: ARG002 - cost: a fixed bound counts requests only
        """Return 0 if a request may go now, else seconds to wait (``inf``: until the next event)."""
        if now < self._paused_until:
            return self._paused_until - now
        return 0.0 if len(self._sent_at) < self._limit else math.inf

    def on_send(self, now: float, cost: float) -> int:  # noqa: ARG002
        """Note a request that goes out now; return its ticket."""
        self._next_ticket += 1
        self._sent_at[self._next_ticket] = now
        return self._next_ticket

    def on_success(
        self,
        now: float,  # noqa: ARG002
        ticket: int,
        *,
        hints: ServerHints = NO_HINTS,  # noqa: ARG002
        cost: float | None = None,  # noqa: ARG002
    ) -> None:
        """Note a good reply: the next bare refusal begins with a short pause again."""
        sent_at = self._sent_at.pop(ticket, -math.inf)
        if sent_at >= self._refused_at:
            self._refusals = 0

    def on_failure(
        self, now: float, ticket: int, kind: FailureKind, *, hints: ServerHints = NO_HINTS
    ) -> None:
        """Note a failure; pause if the server asks for it, or refuses without saying for how long."""
        sent_at = self._sent_at.pop(ticket, now)
        if kind is FailureKind.RATE_LIMITED:
            self._pause(now, self._refusal_pause_s(now, sent_at, hints))
        elif kind is not FailureKind.REJECTED and hints.retry_after_s is not None:
            self._pause(now, hints.retry_after_s)

    def on_cancel(self, now: float, ticket: int) -> None:  # noqa: ARG002
        """Forget a request whose outcome will never be known."""
        self._sent_at.pop(ticket, None)

    def state(self, now: float) -> LimiterState:
        """Return a picture of the controller."""
        held = now < self._paused_until or len(self._sent_at) >= self._limit
        return LimiterState(
            limit=float(self._limit),
            in_flight=len(self._sent_at),
            rate_per_s=None,
            held_by="fixed" if held else "",
        )

    def _refusal_pause_s(self, now: float, sent_at: float, hints: ServerHints) -> float:
        """Return how long to pause after a refusal; those of one volley count as one."""
        if sent_at >= self._refused_at:
            self._refusals += 1
            self._refused_at = now
        if hints.retry_after_s is not None:
            return hints.retry_after_s
        return min(self._max_pause_s, self._pause_s * 2.0 ** min(self._refusals - 1, 60))

    def _pause(self, now: float, seconds: float) -> None:
        self._paused_until = max(self._paused_until, now + seconds)
