"""Ramp: multiply the load until latency follows it, then say where the knee was."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.arm import Finding

FLAT: Final = 0.2
"""Elasticity, half its error added, up to which the server surely has room: the next step is x4."""
EASY: Final = 0.45
"""The same up to which it probably has room: the next step is x2."""
STEEP: Final = 0.85
"""Elasticity from which it only queues."""
STEEP_NOISY: Final = 0.6
"""... at least, where the measurement is noisy."""
MUCH_SLOWER: Final = 1.5
"""A single step that makes the server so many times slower was too long, whatever its elasticity, unless noise
could do that: three standard errors."""
GAINFUL: Final = 0.8
GAINFUL_LEAP: Final = 0.65
"""Elasticity below which a small step, or a longer one, raised throughput enough to say that it began below the
knee. (The arm of a long step mixes requests from below and above.)"""
BIG: Final = 4.0
MIDDLE: Final = 2.0
SMALL: Final = 1.5
"""Steps."""


class Ramp:
    """Judges each step of a ramp.

    Formula. Between two arms at rising loads ``e = d ln(latency) / d ln(load)``. With half its error added to
    ``e`` the next step is x4 while ``e < 0.2``, x2 while ``e < 0.45``, else x1.5. The ramp is over at
    ``e > 0.85`` (0.6 where noise could hide that) or when one step surely makes the server 1.5 times as slow. Then
    the throughput ``load / latency`` has come to its end, and the knee is where the latency of the last arm
    from below that end would give it: ``throughput x latency below``. Exact for a pool of workers; for a GPU
    that batches, whose latency rises smoothly, it is close because the last steps are small.

    State. The arm before, the last arm from which throughput still rose much, the last step.

    Weak spot. A ramp that starts above the knee has no arm below it; the knee is then said to be at the start,
    and what follows must find it.

    Args:
        first: What is known of the level that the ramp starts from.
        factor: The first step; no step is more than twice the one before.
    """

    def __init__(self, first: Finding, factor: float) -> None:
        self._before = self._below = first
        self._factor = factor

    def next_factor(self, found: Finding) -> float | None:
        """Return by how much to multiply the level, or None when it is past the knee."""
        elasticity = found.elasticity_since(self._before)
        if elasticity is None:
            return MIDDLE
        slower = math.log(found.latency_s / self._before.latency_s)
        error = found.error_since(self._before)
        if elasticity < (GAINFUL if self._factor <= SMALL else GAINFUL_LEAP):
            self._below = self._before
        steep = clamp(STEEP - error, STEEP_NOISY, STEEP)
        leap = max(math.log(MUCH_SLOWER), 3 * error * math.log(found.load / self._before.load))
        if elasticity > steep or slower > leap:
            return None
        self._before = found
        careful = elasticity + 0.5 * error
        wanted = BIG if careful < FLAT else MIDDLE if careful < EASY else SMALL
        self._factor = min(wanted, 2 * self._factor)
        return self._factor

    def knee(self, found: Finding) -> float:
        """Return the load at which the server began to queue, after ``next_factor`` returned None."""
        return clamp(found.per_s * self._below.latency_s, self._below.load, found.load)
