"""Watch: notice that the server has changed while the level is held."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.arm import CLIP_FACTOR

if TYPE_CHECKING:
    from era_ingest.core.limiter.arm import Finding

SLACK: Final = 0.5
ALARM: Final = 6.0
"""Reference value and threshold of the cumulative sums, in standard errors of an arm."""
LEAST_ERROR: Final = 0.05
"""Taken for an arm's standard error at least: smaller changes of ln(latency) do not matter."""
MEMORY: Final = 16
ENOUGH: Final = 4
"""Arms over which the scatter is averaged, and from which on it is believed."""
MOST_SURPRISE: Final = 4.0
"""What a single arm may add at most: two must agree."""
PREDICTED: Final = 3
"""Arms that a base is worth which was predicted from a comparison."""
MOVING: Final = 0.22
"""Two arms that differ by more in ln(latency) are on their way: the second says better where to than both do."""
QUIET: Final = 2.0
"""The base is only updated while both sums are below this."""


class Watch:
    """Compares each arm with the mean of those before, and adds up what does not fit.

    Formula. Page's cumulative sums: with ``z`` an arm's deviation of ln(latency) from the base, in standard
    errors, ``up = max(0, up + z - 0.5)`` and ``down = max(0, down - z - 0.5)``; a sum above 6 is a change.
    A change of three standard errors is noticed after three arms, noise alone raises an alarm once in about a
    thousand.

    State. Base (running mean of ln(latency) and how many arms it rests on), both sums, the last arm, scatter of the
    arms.

    Weak spot. Arms much shorter than a latency share their queue and are not independent.

    Args:
        base: What the latency is known to be; None: the first arm says it.
    """

    def __init__(self, base: float | None = None) -> None:
        self._base: float | None = None if base is None else math.log(base)
        self._arms = 0 if base is None else PREDICTED
        self._last = 0.0
        self._up = self._down = 0.0
        self._scatter, self._seen = 0.0, 0

    @property
    def spread(self) -> float | None:
        """Standard deviation of a request's ln(latency) that would explain how the arms differ; None: unknown.

        Unlike the spread within an arm it knows what repeats within each arm alike (the beat of a GPU's
        batches) and what a whole arm shares (a queue).
        """
        return math.sqrt(self._scatter) if self._seen >= ENOUGH else None

    @property
    def base_s(self) -> float | None:
        """The latency that is normal, seconds; None before the first arm."""
        return None if self._base is None else math.exp(self._base)

    def change(self, found: Finding) -> float | None:
        """Return by how much ln(latency) has changed, or None if it has not."""
        value = math.log(found.latency_s)
        if self._base is None:
            self._base, self._arms = value, 1
            return None
        own = found.error if self.spread is None else self.spread * CLIP_FACTOR / math.sqrt(found.size)
        error = max(LEAST_ERROR, own) * math.sqrt(1 + 1 / self._arms)
        surprise = max(-MOST_SURPRISE, min(MOST_SURPRISE, (value - self._base) / error))
        self._up = max(0.0, self._up + surprise - SLACK)
        self._down = max(0.0, self._down - surprise - SLACK)
        last, self._last = self._last, value
        if max(self._up, self._down) > ALARM:
            return (value if abs(value - last) > MOVING else 0.5 * (last + value)) - self._base
        excess = min(MOST_SURPRISE * error, abs(value - self._base)) / CLIP_FACTOR
        self._seen += 1
        self._scatter += (found.size * excess**2 - self._scatter) / min(self._seen, MEMORY)
        if max(self._up, self._down) > QUIET:
            return None
        self._arms += 1
        self._base += (value - self._base) / self._arms
        return None
