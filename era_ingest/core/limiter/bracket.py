"""Bracket: what refusals prove about the refill of a bucket, as a lower and an upper bound."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Unit
    from era_ingest.core.limiter.spending import Epoch, Mark

NARROW: Final = 1.05
"""Bounds closer than this ratio are a measurement."""
CLOSE: Final = 1.3
"""Bounds closer than this are tried at the upper one, wider ones in the middle."""
WIDEST: Final = 8.0
"""A lower bound below this share of the upper one says nothing."""


class Bracket:
    """Bounds of a limit between which a search goes on.

    Formula. At a refusal the bucket holds less than the refused request costs, ``c``. So between two of them,
    with ``A`` units let in during ``t`` seconds, the refill is at least ``(A - c) / t``, and at most
    ``(A + c) / (t - f)``, where ``f`` bounds the time that the bucket may have been full. What is let in
    without a refusal raises the lower bound in the same way as it goes.

    State. The two bounds, units a second; 0 and infinity know nothing.

    Weak spot. A fixed or sliding window is no bucket: shorter than a window, an epoch misleads. Bounds that
    contradict each other are replaced by the latest epoch's.

    Args:
        low: Lower bound, units a second.
        high: Upper bound, units a second.
    """

    def __init__(self, low: float = 0.0, high: float = math.inf) -> None:
        self.low, self.high = low, high

    @property
    def is_narrow(self) -> bool:
        """Whether the limit is known."""
        return self.high <= NARROW * self.low

    @property
    def is_close(self) -> bool:
        """Whether the upper bound may be tried."""
        return self.high <= CLOSE * self.low

    @property
    def middle(self) -> float:
        """The limit, as far as known: between the bounds."""
        return math.sqrt(self.low * self.high)

    def refused(self, bounds: Bounds) -> None:
        """Take the bounds that two refusals prove."""
        self.low, self.high = max(self.low, bounds.low), min(self.high, bounds.high)
        if self.low > self.high:
            self.low, self.high = bounds.low, bounds.high

    def passed(self, rate: float) -> None:
        """Take a rate at which requests were let in without a refusal."""
        self.low = max(self.low, rate)

    def next_try(self) -> float:
        """Return the rate to try next; infinity if there is no upper bound."""
        if self.is_close or self.high == math.inf:
            return self.high
        return math.sqrt(max(self.low, self.high / WIDEST) * self.high)


class Bounds(NamedTuple):
    """What one epoch proves, units a second."""

    low: float
    high: float


class Stand(NamedTuple):
    """A mark, and how long the bucket may have been full by then in all, seconds."""

    mark: Mark
    full_s: float

    def since(self, earlier: Stand) -> Epoch:
        """Return what lies between."""
        return self.mark.since(earlier.mark)

    def bounds(self, earlier: Stand, unit: Unit, slack: float) -> Bounds:
        """Return what the epoch since an earlier stand proves; ``slack`` is the cost of a refused request."""
        epoch = self.since(earlier)
        busy_s = max(epoch.span_s - (self.full_s - earlier.full_s), 1e-3)
        accepted = max(0.0, epoch.accepted[unit])
        return Bounds(max(0.0, accepted - slack) / epoch.span_s, (accepted + slack) / busy_s)
