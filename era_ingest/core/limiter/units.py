"""Which of requests and tokens a quota counts."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import Unit

if TYPE_CHECKING:
    from era_ingest.core.limiter.spending import Epoch

LEAST_EPOCHS: Final = 3
LEAST_REFUSED: Final = 6


class UnitChooser:
    """Takes the steadier unit for the limited one.

    Formula. The rate between two refusals repeats in the unit that is counted and scatters in the other; the
    ln of the ratio of the two coefficients of variation decides, above 1. Refused requests that are larger
    than the mean speak for tokens.

    State. The last 8 epochs, the mean relative size of what was refused. Default: requests.

    Weak spot. Requests of nearly equal size look alike in both units; then it does not matter either.
    """

    def __init__(self) -> None:
        self.unit = Unit.REQUESTS
        self._epochs: deque[Epoch] = deque(maxlen=8)
        self._refused, self._excess = 0, 0.0

    def note(self, epoch: Epoch) -> None:
        """Take a clean measurement."""
        if epoch.requests > LEAST_EPOCHS:
            self._epochs.append(epoch)

    def note_refused(self, relative_size: float) -> None:
        """Take the size of a refused request over the mean."""
        self._refused += 1
        self._excess += relative_size - 1

    def decide(self) -> bool:
        """Choose the unit; return whether that is a change."""
        if len(self._epochs) < LEAST_EPOCHS:
            return False
        odds = math.log((self._scatter(Unit.REQUESTS) + 3e-3) / (self._scatter(Unit.TOKENS) + 3e-3))
        if self._refused >= LEAST_REFUSED:
            odds += 2 * (self._excess / self._refused - 0.3)
        was = self.unit
        if abs(odds) > 1:
            self.unit = Unit.TOKENS if odds > 0 else Unit.REQUESTS
        return self.unit is not was

    def _scatter(self, unit: Unit) -> float:
        """Return the coefficient of variation of the epochs' rates."""
        rates = [epoch.rate(unit) for epoch in self._epochs]
        mean = sum(rates) / len(rates)
        return math.sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates)) / max(mean, 1e-12)
