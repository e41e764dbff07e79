"""How much one caller may ask: so often a second, and so much at once."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BURST_S = 2.0
"""A caller who was quiet may ask at once what the rate allows in so many seconds."""
MAX_CALLERS = 10_000
"""Callers that are remembered; of more, those who asked longest ago begin anew."""
MAX_AT_ONCE = 200
"""Requests of one caller that are worked on at once, streams among them."""


class Rates:
    """A token bucket a caller: it holds ``BURST_S`` seconds' worth, a request takes one, and it fills at the rate.

    Args:
        rate_per_s: Requests a second; 0: any number.
        clock: Monotonic seconds.
    """

    def __init__(self, rate_per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate_per_s
        self._most = max(1.0, rate_per_s * BURST_S)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._at_once: Counter[str] = Counter()

    def take(self, caller: str) -> float:
        """Count a request; return 0, or in how many seconds there is room for it, and then it does not count."""
        if not self._rate:
            return 0.0
        now = self._clock()
        left, since = self._buckets.pop(caller, (self._most, now))
        left = min(self._most, left + (now - since) * self._rate)
        granted = left >= 1
        self._buckets[caller] = (left - granted, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - left) / self._rate

    @contextmanager
    def working(self, caller: str) -> Iterator[bool]:
        """Count a request as long as the context; yield False where the caller has too many."""
        if self._at_once[caller] >= MAX_AT_ONCE:
            yield False
            return
        self._at_once[caller] += 1
        try:
            yield True
        finally:
            self._at_once[caller] -= 1
            if not self._at_once[caller]:
                del self._at_once[caller]
