"""Glide: a level of requests in flight that is approached, not jumped to."""

from __future__ import annotations

import math


class Glide:
    """Lets the number of requests in flight rise evenly to a goal instead of at once.

    Formula. From ``start`` at the time ``since`` the level rises linearly and reaches the goal ``over_s``
    seconds later. A goal below the start holds at once: places that are too many are simply not filled again.

    Why. A refusal is heard after a round trip; of a step in requests in flight, only what was sent until then
    is at risk.

    State. Start, since, length; no length: the level is the goal.
    """

    def __init__(self) -> None:
        self._start, self._since, self._over_s = 0.0, 0.0, 0.0

    @property
    def ends_at(self) -> float:
        """When the goal is reached, seconds."""
        return self._since + self._over_s

    def begin(self, now: float, start: float, over_s: float) -> None:
        """Rise from ``start`` requests in flight to the goal within ``over_s`` seconds."""
        self._start, self._since, self._over_s = start, now, over_s

    def level(self, now: float, goal: int) -> int:
        """Return how many may be in flight now, >= 1."""
        if now >= self.ends_at or goal <= self._start:
            return goal
        share = max(0.0, now - self._since) / self._over_s
        return max(1, int(self._start + share * (goal - self._start) + 1e-6))

    def wait(self, now: float, goal: int, in_flight: int) -> float:
        """Return 0 if one more may go, seconds until it may, else infinity: a place must become free."""
        if in_flight < self.level(now, goal):
            return 0.0
        if in_flight >= goal or now >= self.ends_at:
            return math.inf
        share = (in_flight + 1 - self._start) / (goal - self._start)
        return max(self._since + share * self._over_s - now, 1e-4)
