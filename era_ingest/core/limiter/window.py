"""Window: a quota that is full again at fixed times and shows no headers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight, Unit
    from era_ingest.core.limiter.spending import Spending

USUAL_S: Final = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 3600)
"""Lengths that windows have; a measured one within 12 % is taken for it."""
LIKE: Final = 0.12
DOUBLINGS: Final = 4
"""How often the pace doubles while the second refusal is overdue."""
FASTER: Final = 4.0
FASTEST: Final = 8.0
"""A window is spent at these multiples of its mean pace: before and after its length is known."""
EVERY: Final = 3
MORE: Final = 1.02
"""In each third window 2 % more is tried."""
AFTER_S: Final = 0.02
CATCH_UP_S: Final = 0.05
EARLY: Final = 0.5
"""A refusal below this share of the limit, with a short Retry-After, is no window's."""
SHORT_S: Final = 2.0


class Window:
    """Counts what a window lets in, stops there, and waits for the next.

    Formula. ``limit`` is what was let in between a turn and the next refusal; ``length`` is the distance of
    two turns, snapped to the usual lengths within 12 %. Until the limit requests go at 8 times the window's
    mean pace, then none until the turn.

    State. Limit and length (None until known), when it ends, how much is used.

    Defaults. Every third window asks for 2 % more. A turn is known from Retry-After, or from the first
    request that is let in after a drought.

    Weak spots. The first two windows are run into. A bare window's turn is known to the spacing of the
    questions that the drought asked. A limit that falls is seen by its refusals and may waste a window.

    Args:
        now: Seconds.
        ends_at: When the present window ends; the present, if it just has.
        used: What went between the start of sending and the first refusal, units.
        span_s: How long that took.
        unit: What is counted.
        books: The books of what was sent.
    """

    def __init__(
        self, now: float, *, ends_at: float, used: float, span_s: float, unit: Unit, books: Spending
    ) -> None:
        self.unit = unit
        self.limit: float | None = None
        self.length_s: float | None = None
        self.ends_at = ends_at
        self.used = used
        self._books = books
        self._turned_at: float | None = None
        self._count = 0
        self._pace = FASTER * used / max(1.0, span_s)
        self._overdue_at, self._overdue_s = ends_at + max(1.0, span_s), max(1.0, span_s)
        self._next_at = now
        self._doublings = 0

    @property
    def pace(self) -> float:
        """Units a second at present."""
        return self._pace

    def wait(self, now: float, cost: float) -> float:
        """Return seconds until ``cost`` units may be spent; 0 if now."""
        self._turn(now)
        if self.length_s is None and now > self._overdue_at and self._doublings < DOUBLINGS:
            self._pace, self._doublings = 2 * self._pace, self._doublings + 1
            self._overdue_at = now + self._overdue_s
        if self.limit is not None and self.ends_at < math.inf:
            most = self.limit
            if self._count % EVERY == 0:
                most = MORE * most + self._books.mean[self.unit]
            if self.used + cost > most:
                self.limit = max(self.limit, self.used)
                return max(self.ends_at + AFTER_S - now, 1e-3)
        return max(0.0, self._next_at - now)

    def on_send(self, now: float, flight: Flight) -> None:
        """Spend a request's cost."""
        cost = flight.cost[self.unit]
        self.used += cost
        self._next_at = max(self._next_at, now - CATCH_UP_S) + cost / self._pace

    def on_returned(self, flight: Flight) -> None:
        """Take a refused request out of the count."""
        self.used = max(0.0, self.used - flight.cost[self.unit])

    def on_refused(self, now: float, *, is_first: bool, retry_after_s: float | None) -> float | None:
        """Learn from a refusal.

        Args:
            now: Seconds.
            is_first: Whether requests were let in since the last one.
            retry_after_s: What the server says, seconds.

        Returns:
            Seconds to wait; None if the drought's questions are to find out.

        Raises:
            NotAWindowError: It refuses far below its limit and soon lets in again.
        """
        short = is_first if retry_after_s is None else retry_after_s <= SHORT_S
        if short and self.limit is not None and self.used < EARLY * self.limit:
            raise NotAWindowError
        if is_first:
            self.limit = max(self._books.mean[self.unit], self.used)
        if retry_after_s is not None:
            self.ends_at = now + retry_after_s
            self._measure(self.ends_at)
            return retry_after_s
        if self.length_s is not None and is_first and self.ends_at < math.inf:
            return max(self.ends_at + AFTER_S - now, 0.1)
        return None

    def on_turned(self, now: float) -> None:
        """Note that requests are let in again after a drought, from ``now`` on."""
        self._measure(now)
        self.used = self._books.mean[self.unit]
        self._count += 1
        self._turned_at = self._next_at = now
        self.ends_at = now + self.length_s if self.length_s is not None else math.inf

    def _turn(self, now: float) -> None:
        while now >= self.ends_at:
            self.used, self._count = 0.0, self._count + 1
            self._turned_at = self._next_at = self.ends_at
            self.ends_at += self.length_s if self.length_s is not None else math.inf

    def _measure(self, turn: float) -> None:
        """Take the distance of two turns for the length."""
        gap = turn - self._turned_at if self._turned_at is not None else 0.0
        if self.length_s is not None or gap < EARLY:
            return
        usual = min(USUAL_S, key=lambda length: abs(math.log(gap / length)))
        self.length_s = float(usual) if abs(math.log(gap / usual)) < LIKE else gap
        if self.limit is not None:
            self._pace = FASTEST * self.limit / self.length_s


class NotAWindowError(Exception):
    """What was taken for a fixed window behaves otherwise; a signal between two learners, never shown."""
