"""Climb: how fast a rate rises that is known to be too low."""

from __future__ import annotations

import math
from typing import Final

STEP: Final = 1.25
"""What a step multiplies the rate by."""
LEAST_S: Final = 0.4
LATENCIES: Final = 0.5
REQUESTS: Final = 4
"""A step takes at least: seconds, latencies, requests at the rate."""
IN_USE_S: Final = 1.0
"""A rate that has held nobody back for so long need not rise, seconds."""


class Climb:
    """Steps up while the rate is what holds requests back.

    Formula. x1.25 a step; a step takes 0.4 s, half a latency, the time of a refusal and four requests, whichever is
    most: so long a refusal needs to be heard, and so many requests to provoke it.

    State. When the next step is due, and when the rate last held a request back.

    Weak spot. A latency of seconds makes the steps slow.
    """

    def __init__(self) -> None:
        self._due_at = math.inf
        self._bound_at = -math.inf

    def is_due(self, now: float) -> bool:
        """Return whether it is time for a step."""
        return now >= self._due_at

    def note_bound(self, now: float) -> None:
        """Note that the rate holds a request back."""
        self._bound_at = now

    def is_in_use(self, now: float) -> bool:
        """Return whether the rate has held requests back lately."""
        return now < self._bound_at + IN_USE_S

    def plan(self, now: float, *, latency_s: float, refusal_s: float, gap_s: float) -> None:
        """Plan the next step, given latency, the time of a refusal, and that from request to request, seconds."""
        self._due_at = now + max(LEAST_S, LATENCIES * latency_s, refusal_s, REQUESTS * gap_s)

    def factor(self, now: float) -> float:
        """Return what a step that is due multiplies the rate by."""
        return STEP if self.is_in_use(now) else 1.0
