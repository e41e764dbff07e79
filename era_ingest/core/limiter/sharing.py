"""Sharing: how to live with others on a quota that shows no headers."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from era_ingest.core.limiter.flight import clamp

CUT: Final = 0.75
"""What a refusal leaves of the pace."""
HITS_PER_S: Final = 0.024
"""Refusals a second at a pace of one request a second; they rise with the root of the pace."""
FIRST: Final = 1.0
SETTLE_S: Final = 40.0
"""So many times more of them at first, and how long it takes to fall to the usual, seconds."""
ALONE_S: Final = 150.0
"""After so long without a refusal nobody else is there, seconds."""
MOST_RISE: Final = 1.0
"""Growth from one call to the next, as a share of the cut in ln."""
SAME_HITS: Final = 5
SAME: Final = 0.06
"""So many refusals at paces within 6 % of each other are those of a limit that is ours alone."""
SURE: Final = 2.0
MOST_VOTES: Final = 4.0


class Sharing:
    """Suspects that others use the quota too, and then yields when hit and grows patiently.

    Formula. Alone, refusals come when a probe asks for more. One that the model of the bucket did not expect,
    or that came while holding below the limit, is a vote for company; a due one is a quarter of a vote
    against. From two votes on: x0.75 at each refusal, then growth by ``(t / T)^2`` of what was cut (in ln), so
    that the pace is back after ``T`` seconds. ``1 / T`` is ``0.024 sqrt(requests a second)``. The larger
    client is hit more often and so has less time to grow: the shares even out at twice the speed that
    constant growth would give for as many refusals, without anybody knowing how many others there are.
    Compare the growth of CUBIC (RFC 9438), which is a function of the time since the last loss too.

    State. Votes 0 to 4, the time of the last refusal and of the last growth.

    Defaults. For 40 s refusals are twice as frequent, so that shares even out sooner. After 150 s without one
    nobody else is there.

    Weak spot. Some 2 % of the requests are refused at 2 a second, 1 % at 8 a second; headers, or turns handed
    out by somebody, do better.
    """

    def __init__(self) -> None:
        self._votes = 0.0
        self._paces: deque[float] = deque(maxlen=SAME_HITS)
        self._began_at = self._grown_at = self._hit_at = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether others are there."""
        return self._votes >= SURE

    def vote(self, now: float, weight: float) -> None:
        """Take a refusal: 1 if not expected, or while holding below the limit; -0.25 if due."""
        was = self.is_on
        self._votes = clamp(self._votes + weight, 0.0, MOST_VOTES)
        if self.is_on and not was:
            self._began_at = self._hit_at = self._grown_at = now
            self._paces.clear()

    def grow(self, now: float, requests_per_s: float) -> float:
        """Return the factor by which the pace grows from the last call to ``now``."""
        if now > self._hit_at + ALONE_S:
            self._votes = 0.0
        hits_per_s = HITS_PER_S * math.sqrt(requests_per_s)
        hits_per_s *= 1 + FIRST * math.exp((self._began_at - now) / SETTLE_S)
        since, self._grown_at = (self._grown_at - self._hit_at), now
        rise = ((now - self._hit_at) ** 2 - since**2) * hits_per_s**2
        return CUT ** -min(rise, MOST_RISE)

    def hit(self, now: float, pace: float) -> float:
        """Return the factor by which a refusal at ``pace`` cuts it; refused at equal paces, we are alone."""
        self._hit_at = self._grown_at = now
        self._paces.append(math.log(pace))
        if len(self._paces) == SAME_HITS and max(self._paces) - min(self._paces) < SAME:
            self._votes = 0.0
        return CUT
