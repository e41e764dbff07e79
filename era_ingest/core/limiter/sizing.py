"""Sizing: how many requests a measurement takes, and which of them count."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.arm import CLIP_FACTOR, MIN_RISE, Arm
from era_ingest.core.limiter.flight import LATENCY_GUESS_S, clamp
from era_ingest.core.limiter.hold import LOST, SELDOM
from era_ingest.core.limiter.seat import SEAT

if TYPE_CHECKING:
    from era_ingest.core.limiter.arm import Finding

AT_LEVEL: Final = 0.85
"""Share of a level at which a request counts as sent at that level."""
AT_RAMP: Final = 0.5
MOST_AT_RAMP: Final = 0.8
BEYOND: Final = 1.2
"""The same while the level is still gliding up: at least half, and 1.2 times the level before as far as it goes. All
that are sent from there on belong to the arm, so that it is full before the first of them returns."""
START_SPREAD: Final = 0.3
OLD_SPREAD: Final = 20
"""Requests that what is known of the spread of ln(latency) weighs against an arm's own."""
RAMP_ERROR: Final = 0.3
"""Standard error of the elasticity that an arm of a ramp is to reach, if the level's requests suffice."""
WANTED_ERROR: Final = 0.05
FINEST_ERROR: Final = 0.02
"""Standard error of ln(latency) that an arm of a comparison is to reach, and beyond which it need not go..."""
WANTED_REQUESTS: Final = 0.2
"""... which at a level of a few requests need not be finer than this share of one..."""
SHARE_OF_HOLD: Final = 0.03
"""... within this share of the time that the level is then held."""
MOST_OF_AN_ARM: Final = 400
LEAST_LOW: Final = 6.0
"""Low arms are, from so many requests on, so short that the longest hold pays for them."""
CRUISE_ARM_S: Final = 0.25
"""An arm of the cruise takes at least so long, seconds: one in a thousand raises a false alarm, and at 5 ms there
would be thousands a minute."""


class Sizing:
    """Makes arms as large as their purpose needs, given how much latency scatters.

    Formula. The error of an arm of ``n`` requests is ``1.1 spread / sqrt(n)``. An arm of a ramp is to tell the
    elasticity to 0.3 from as many requests as the level holds; one of a comparison ln(latency) to between 0.05 and
    0.02, in 3 % of the time that the level is held afterwards, a low one at no more cost than the longest hold pays
    for; one of the cruise takes the level's requests, and a quarter of a second.

    State. The spread of ln(latency), averaged over arms; how far the last step of a ramp went.

    Defaults. Spread 0.3 until known.

    Weak spot. Spread within an arm does not know what a whole arm shares, such as a GPU's beat.
    """

    def __init__(self) -> None:
        self._spread = START_SPREAD
        self._at_ramp, self._rise = AT_RAMP, 1.0

    def learn(self, found: Finding) -> None:
        """Average the spread."""
        share = found.size / (found.size + OLD_SPREAD)
        self._spread += share * (found.spread - self._spread)

    def judged(self, found: Finding) -> Finding:
        """Return a finding with the averaged spread."""
        return found._replace(spread=self._spread)

    def step(self, start: float, target: float) -> None:
        """Note how far a ramp's step goes."""
        self._at_ramp = clamp(BEYOND * start / target, AT_RAMP, MOST_AT_RAMP)
        self._rise = max(MIN_RISE, math.log(target / start * (1 + self._at_ramp) / 2))

    def ramp_arm(self, goal: int, latency_s: float | None) -> Arm:
        """Return the arm of a ramp at ``goal`` requests in flight."""
        floor = self._at_ramp * goal
        needed = (CLIP_FACTOR * self._spread / (RAMP_ERROR * self._rise)) ** 2
        size = max(goal - floor, 4.0, 60 * self._spread**2, min(needed, goal))
        return Arm(size, floor, max(1.0, 1.5 * (latency_s or LATENCY_GUESS_S)), hurried=True)

    def cruise_arm(self, goal: int, target: float, latency_s: float | None) -> Arm:
        """Return an arm of the cruise."""
        in_time = CRUISE_ARM_S * goal / (latency_s or LATENCY_GUESS_S)
        return Arm(max(12.0, target, in_time), AT_LEVEL * goal, math.inf)

    def comparison_arm(
        self, goal: int, target: float, latency_s: float | None, *, hold_s: float, is_low: bool
    ) -> Arm:
        """Return an arm of a comparison after which the level is held for ``hold_s`` seconds."""
        latency = latency_s or LATENCY_GUESS_S
        wanted_error = max(WANTED_ERROR, WANTED_REQUESTS / target)
        needed, most = ((CLIP_FACTOR * self._spread / error) ** 2 for error in (wanted_error, FINEST_ERROR))
        in_hold = hold_s * goal / latency
        size = min(MOST_OF_AN_ARM, clamp(SHARE_OF_HOLD * in_hold, needed, most))
        size = max(12.0, size, target)
        if is_low:
            lost = max(LOST, 1 - goal * SEAT / target)
            size = min(size, max(LEAST_LOW, SELDOM * LOST / lost * in_hold))
        return Arm(size, AT_LEVEL * goal, max(3.0, 6 * latency))
