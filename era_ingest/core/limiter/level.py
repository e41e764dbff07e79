"""Level: how many requests may be in flight."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, NamedTuple

from era_ingest.core.limiter import seat as seating
from era_ingest.core.limiter.flight import clamp
from era_ingest.core.limiter.glide import Glide

BELOW: Final = 2
"""Requests in flight that a low arm is below the level at least: the level of a few workers is one more than they are,
and a low arm that leaves none idle could not tell them from one less."""


class Bounds(NamedTuple):
    """Requests in flight: at the start, at least, at most."""

    start: int = 4
    least: int = 2
    most: int = 512


class Mode(StrEnum):
    """What the pipe is doing."""

    OPENING = "opening"
    RAMP = "ramp"
    LOW = "low"
    HIGH = "high"
    CRUISE = "cruise"


class Level:
    """Turns a target above the knee into requests in flight, within bounds, and approaches it.

    Formula. The level is the target (``SEAT`` knees), or one more than the knee if that is more; an arm below it is at
    0.82 of the target and two requests less at least, one above it at 1.136. All stay within bounds and ceiling.

    State. The target, the ceiling that others set, and the glide to a new level.

    Defaults. Start 4, at least 2, at most 512 in flight; no ceiling.

    Weak spot. At the least level there is no room for a low arm of two less.

    Args:
        bounds: Requests in flight.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.ceiling = math.inf
        self.target = float(bounds.start)
        self._glide = Glide()

    @property
    def floor(self) -> float:
        """The target of the least level."""
        return seating.SEAT * max(1, self.bounds.least - 1)

    @property
    def top(self) -> float:
        """The greatest target."""
        return min(self.ceiling, self.bounds.most)

    @property
    def is_at_top(self) -> bool:
        """Whether there is no way up."""
        return self.target >= self.top

    @property
    def is_between(self) -> bool:
        """Whether there is a way up and a way down."""
        return self.floor < self.target < self.top

    def move_to(self, target: float) -> None:
        """Take a new target, as far as the bounds allow."""
        self.target = clamp(target, self.floor, self.top)

    def glide(self, now: float, start: float, over_s: float) -> None:
        """Go from ``start`` requests in flight to the level within ``over_s`` seconds instead of at once."""
        self._glide.begin(now, start, over_s)

    def goal(self, mode: Mode) -> int:
        """Return where the level is going."""
        level = self.seated
        if mode is Mode.LOW:
            level = max(self.bounds.least - 1, min(level - BELOW, round(seating.LOW * self.target)))
        elif mode is Mode.HIGH:
            level = max(level, round(seating.HIGH * self.target))
        return max(1, int(min(level, self.top)))

    @property
    def seated(self) -> int:
        """Requests in flight at the target, whatever others allow."""
        return max(round(self.target), round(self.target / seating.SEAT) + 1)

    def at(self, now: float, mode: Mode) -> int:
        """Return how many may be in flight now."""
        return self._glide.level(now, self.goal(mode))

    def wait(self, now: float, mode: Mode, in_flight: int) -> float:
        """Return 0 if one more may go, seconds while the level glides up, else infinity (until an event)."""
        return self._glide.wait(now, self.goal(mode), in_flight)
