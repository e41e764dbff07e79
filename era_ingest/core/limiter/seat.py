"""Seat: where to sit relative to the knee, from comparisons of two levels around it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from era_ingest.core.limiter.flight import clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.arm import Finding

SEAT: Final = 1.15
"""Level to sit at, in knees: a pool of workers then has 15 requests waiting for each 100 that it serves."""
LOW: Final = 0.82
HIGH: Final = 1.136
"""Levels of the two arms, in levels: 0.94 and 1.31 knees."""
FLAT: Final = 0.12
"""Rise of ln(latency) between the arms, a standard error added, below which the level is far too low: ramp."""
STEEP: Final = 0.93
"""Elasticity above which, less a standard error, both arms only queue: the knee is below them."""
IMPOSSIBLE: Final = 1.5
"""Elasticity that only a server has that changed between the arms."""
MOST_UP: Final = 0.3
MOST_DOWN: Final = 1.4
"""Longest steps, in ln(level)."""
SMALL: Final = 0.04
TINY: Final = 0.01
"""Step, in ln(level), that is not worth another comparison: as much as the noise, within these bounds."""
BOOST: Final = 4.0
"""Steps up in a row double up to so much..."""
PERSISTS: Final = 0.6
"""... while what is wanted does not shrink below this share of what was."""
UNSURE: Final = 0.1
"""... of at most so much: in doubt it is better to look higher."""
UNKNOWN: Final = 0.3
DOUBTFUL: Final = 0.15
AGED: Final = 0.05
"""Standard deviations of ln(knee): not known; after a small surprise; gained between two comparisons."""


class Step(NamedTuple):
    """What a comparison advises.

    Attributes:
        level: Level to sit at from now on.
        is_flat: The server has far more room: ramp instead.
        is_final: Another comparison would change little.
    """

    level: float
    is_flat: bool
    is_final: bool


class Seat:
    """Moves the level so that it is ``SEAT`` times the knee, as surely as the noise allows.

    Formula. Below the knee latency is flat, above it is proportional to the load, so two arms on either side
    give ``knee = high load x low latency / high latency``, and the level belongs at 1.15 of it. For a pool of
    workers that is exact at once. For a server whose latency bends smoothly (a GPU that batches) the same
    formula is a fixed point at an elasticity of 0.82, where 1 % more load brings 0.18 % more throughput.

    Each comparison is weighted against what is known: with ``P`` the variance of the known ln(knee) and ``R``
    that of the comparison, the step is ``P / (P + R)`` of what the comparison says, and ``P`` becomes
    ``P R / (P + R)``. So a quiet server is followed at once, and the jitter of a noisy one averages out. Two
    comparisons in a row that say the same show that the level lags: ``P`` grows by half their product.

    State. ``P``; what the last comparison said; the way of the last step and the boost that repeated steps one
    way have earned, until a step is final.

    Where both arms only queue, the comparison says no more than that the knee is below the low arm: the level goes
    there, but at first by no more than what is known of the knee leaves open (noise makes a good seat look like that,
    and a seat at the knee has no latency that could fall when workers are added).

    Weak spot. Noise that is no noise, such as the beat of a GPU's batches, is averaged like any other.
    """

    def __init__(self) -> None:
        self._variance = UNKNOWN**2
        self._way, self._boost, self._wanted = 0, 1.0, 0.0

    def doubt(self, deviation: float) -> None:
        """Know the knee no better than to so much, in ln."""
        self._variance = max(self._variance, deviation**2)
        self._way, self._boost, self._wanted = 0, 1.0, 0.0

    def learn(self, level: float, low: Finding, high: Finding) -> Step:
        """Return the next level after a comparison of a low and a high arm around ``level``."""
        elasticity = high.elasticity_since(low)
        if elasticity is None:
            return Step(level, is_flat=False, is_final=True)
        error = high.latency_error_since(low)
        wanted = math.log(SEAT * high.load * low.latency_s / (high.latency_s * level))
        if elasticity - high.error_since(low) > STEEP:
            known = math.inf if self._way < 0 else math.sqrt(self._variance)
            wanted = min(wanted, max(math.log(LOW), -known))
        persists = wanted / self._wanted > PERSISTS if self._way else False
        turned = wanted * self._way < 0
        step = self._weigh(wanted, error, surely=elasticity > IMPOSSIBLE)
        self._boost = min(BOOST, 2 * self._boost) if persists and wanted > 0 else 1.0
        self._way = 1 if step > 0 else -1
        final = turned or abs(step) < clamp(error, TINY, SMALL)
        step = clamp(step * self._boost, -MOST_DOWN, MOST_UP)
        if final:
            self._way, self._boost = 0, 1.0
        flat = math.log(high.latency_s / low.latency_s) + min(error, UNSURE) < FLAT
        return Step(level * math.exp(step), is_flat=flat, is_final=final)

    def _weigh(self, wanted: float, error: float, *, surely: bool) -> float:
        """Return the share of ``wanted`` that this comparison deserves."""
        self._variance += 0.5 * max(0.0, wanted * self._wanted) + AGED**2
        weight = 1.0 if surely else self._variance / (self._variance + error**2)
        self._variance *= 1 - weight
        self._wanted = wanted
        return weight * wanted
