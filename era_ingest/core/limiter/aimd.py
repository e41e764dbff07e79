"""Additive increase, multiplicative decrease: TCP's rule, for comparison."""

from __future__ import annotations

import math
from typing import Final

from era_ingest.core.limiter.counting import CountingLimiter

CUT: Final = 0.5


class Aimd(CountingLimiter):
    """One request more for each limit's worth of replies; half at a refusal, once a round trip.

    State: the limit and when it was last cut; refusals of requests sent before that are the same event.
    When not to use it: it lives on refusals, since nothing else ever stops it from rising.

    Args:
        start: Limit at the start.
        most: Greatest limit.
    """

    def __init__(self, *, start: float = 4, most: float = 512) -> None:
        super().__init__(start=start, least=1, most=most, name="aimd")
        self._cut_at = -math.inf

    def _on_latency(self, now: float, latency_s: float) -> float:
        del now, latency_s
        return self.limit + 1 / self.limit if len(self._sent_at) + 1 >= int(self.limit) else self.limit

    def _on_refusal(self, now: float, sent_at: float) -> float:
        if sent_at <= self._cut_at:
            return self.limit
        self._cut_at = now
        return self.limit * CUT
