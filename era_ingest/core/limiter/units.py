"""Which of requests and tokens a quota counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import Unit, clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.spending import Epoch

LEAST: Final = 4
"""Requests that an epoch needs to say anything."""
SURE: Final = 1.0
"""Evidence that settles it, in nats."""
MOST: Final = 4.0
"""Most evidence kept: a server may be mended, or another."""
MOST_AN_EPOCH: Final = 1.5
ROUGH: Final = 0.01
"""Relative error of a long epoch's rate, beside one request's share."""


class UnitChooser:
    """Weighs what speaks for tokens against what speaks for requests.

    Formula. Evidence for tokens in nats, from two sources. A bucket of tokens refuses in proportion to size,
    one of requests blindly: each refusal is worth ``ln(size / mean size)``. And what is let in between two
    refusals repeats in the unit that is counted, to one request in ``n``, while it scatters in the other: an
    epoch is worth ``(d_requests^2 - d_tokens^2) / (2 s^2)``, with ``d`` the ln of its rate over the rate of a
    longer time and ``s = 1 / n + 0.01``.

    State. The evidence, within 4 nats. Default: requests, until 1 nat speaks for tokens; then the reverse.

    Weak spot. Requests of nearly equal size look alike in both units; then it does not matter either.
    """

    def __init__(self) -> None:
        self.unit = Unit.REQUESTS
        self._evidence = 0.0

    def note(self, epoch: Epoch, whole: Epoch) -> None:
        """Take the time between two refusals, and a longer time that it is a part of."""
        if epoch.requests < LEAST or whole.requests <= epoch.requests:
            return
        off = [math.log(max(epoch.rate(unit), 1e-9) / max(whole.rate(unit), 1e-9)) for unit in Unit]
        scale = 1 / epoch.requests + ROUGH
        nats = (off[Unit.REQUESTS] ** 2 - off[Unit.TOKENS] ** 2) / (2 * scale**2)
        self._weigh(clamp(nats, -MOST_AN_EPOCH, MOST_AN_EPOCH))

    def note_refused(self, relative_size: float) -> None:
        """Take the size of a refused request over the mean."""
        self._weigh(math.log(max(relative_size, 1e-2)))

    def decide(self) -> bool:
        """Choose the unit; return whether that is a change."""
        was = self.unit
        if abs(self._evidence) > SURE:
            self.unit = Unit.TOKENS if self._evidence > 0 else Unit.REQUESTS
        return self.unit is not was

    def _weigh(self, nats: float) -> None:
        self._evidence = clamp(self._evidence + nats, -MOST, MOST)
