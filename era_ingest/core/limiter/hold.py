"""Hold: for how long a level is kept before it is compared again."""

from __future__ import annotations

import math
from typing import Final

from era_ingest.core.limiter.flight import LATENCY_GUESS_S

LEAST_S: Final = 15.0
LATENCIES: Final = 30
COMPARISONS: Final = 4
"""How long a level is held, at least: seconds, latencies, times as long as the comparison took."""
SURE: Final = 0.1
LONGER: Final = 2.0
"""Where a comparison's standard error of ln(latency) is more than that, no hold is more times as long as the one before
it since the last ramp: a knee that one noisy comparison has seen is not worth minutes, whatever another look costs."""
SELDOM: Final = 4
"""Comparisons in a row that change nothing double the hold up to so many times."""
NOTHING_NEW: Final = 0.06
"""Steps of a comparison that together change ln(level) by less changed nothing."""
LOST: Final = 0.005
"""Share of the throughput that low arms may cost: the hold is long enough for that."""


class Hold:
    """Weighs what another comparison would cost against what it may find.

    Formula. ``hold = max(15 s, 30 latencies, 4 comparisons, throughput lost to low arms / 0.005)``, doubled for each
    comparison in a row that changed nothing, up to four times. After a comparison whose error is above 0.1 it is at
    most twice the hold before.

    State. What comparisons took and lost, their error, how many in a row changed nothing, and the last hold.

    Weak spot. A change that comes just as a hold begins and moves latency by less than the noise is found at its end
    only.

    Attributes:
        error: Standard error of ln(latency) of the last comparison.
    """

    def __init__(self) -> None:
        self.error = 0.0
        self._confirmed = 0
        self._compared_from = 1.0
        self._held_s = self._lost_s = 0.0
        self._since = self._comparison_s = self._low_s = 0.0

    def forget(self) -> None:
        """Begin anew: a ramp goes to where nothing is known."""
        self._confirmed, self._held_s = 0, 0.0

    def surprised(self) -> None:
        """Note that the server has changed."""
        self._confirmed = 0

    # ---- what comparisons cost

    def begin_comparisons(self, level: float) -> None:
        """Note the level that a row of comparisons starts from."""
        self._compared_from, self._lost_s = level, 0.0

    def begin_comparison(self, now: float) -> None:
        """Note that a low arm begins."""
        self._since = now

    def low_is_done(self, now: float) -> None:
        """Note that the low arm is over."""
        self._low_s = now - self._since

    def high_is_done(self, now: float, error: float, loss: float) -> None:
        """Note the end of a comparison, its error, and the share of the throughput that its low arm lost."""
        self._comparison_s, self.error = now - self._since, error
        self._lost_s += self._low_s * max(0.0, loss)

    def settle(self, level: float) -> None:
        """Note the level that the comparisons led to."""
        same = abs(math.log(level / self._compared_from)) < NOTHING_NEW
        self._confirmed = self._confirmed + 1 if same else 0

    # ---- how long

    def begin(self, latency_s: float | None) -> float:
        """Return how long the level is held from now on, seconds."""
        hold_s = self.expected_s(latency_s) * min(SELDOM, 2.0**self._confirmed)
        if self.error > SURE:
            hold_s = min(hold_s, max(self._usual_s(latency_s), LONGER * self._held_s))
        self._held_s = hold_s
        return hold_s

    def expected_s(self, latency_s: float | None) -> float:
        """Return how long a level is held that was just compared, seconds."""
        return max(self._usual_s(latency_s), self._lost_s / LOST)

    def _usual_s(self, latency_s: float | None) -> float:
        """Return how long a level is held that was never compared before, seconds."""
        return max(LEAST_S, LATENCIES * (latency_s or LATENCY_GUESS_S), COMPARISONS * self._comparison_s)
