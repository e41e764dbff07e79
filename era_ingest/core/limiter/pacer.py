"""Pacer: lets units go at a pace, neither in bursts nor slower than it."""

from __future__ import annotations

from typing import Final

LATE_S: Final = 1e-6


class Pacer:
    """A small bucket of the client's own: credit grows with the pace, each request spends some.

    Formula. ``credit = min(most, credit + pace * elapsed)``; a request goes when its cost, or ``most`` if it
    costs more, is there. Credit may fall below 0 through a large request, and is then paid off.

    State. The credit and its time.
    """

    def __init__(self) -> None:
        self._credit, self._at = 0.0, 0.0

    def wait(self, now: float, cost: float, pace: float, most: float) -> float:
        """Return seconds until ``cost`` units may go; 0 if now."""
        self._refill(now, pace, most)
        missing = min(cost, most) - self._credit
        return missing / pace + LATE_S if missing > 0 else 0.0

    def spend(self, now: float, cost: float, pace: float, most: float) -> None:
        """Take the cost of a request that goes out."""
        self._refill(now, pace, most)
        self._credit -= cost

    def empty(self, now: float) -> None:
        """Begin anew without credit."""
        self._credit, self._at = 0.0, now

    def _refill(self, now: float, pace: float, most: float) -> None:
        self._credit = min(most, self._credit + (now - self._at) * pace)
        self._at = now
