"""Company: which refusals speak for others on the same quota."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from era_ingest.core.limiter.search import FEW, TRY

if TYPE_CHECKING:
    from era_ingest.core.limiter.sharing import Sharing
    from era_ingest.core.limiter.spending import Epoch

FALLEN, HIT, DUE = 0.5, 1.0, -0.25
"""Votes for company: a limit that seems to have fallen, a refusal while holding below it, one while probing."""


class Company:
    """Votes in `Sharing` on whose account a refusal is.

    Formula. Alone, a refusal comes when a probe asks for more: a quarter of a vote against company. One that only a
    fallen limit explains is half a vote for it. One while holding below the limit is a whole vote, once twelve more
    requests went without another: a limit that fell would have refused them too.

    State. What had been sent when the refusal came that is still in question.

    Weak spot. A limit that falls and rises by turns looks like company.

    Args:
        sharing: Where the votes are counted.
    """

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._hit_from = math.inf

    def refused(
        self, now: float, sent: float, epoch: Epoch, *, surprise: bool, probing: bool, holding: bool
    ) -> None:
        """Take a refusal.

        Args:
            now: Seconds.
            sent: Requests sent so far.
            epoch: What lies between it and the one before.
            surprise: Whether the model expected none.
            probing: Whether more than the limit was asked for.
            holding: Whether less was.
        """
        if surprise:
            self._hit_from = math.inf
            self._sharing.vote(now, FALLEN)
        elif epoch.requests >= FEW and probing:
            self._sharing.vote(now, DUE)
        elif epoch.requests >= FEW and holding:
            self._hit_from = sent

    def is_found(self, now: float, sent: float) -> bool:
        """Return whether the refusal in question has just turned out to be company's, and that settles it."""
        if sent < self._hit_from + TRY:
            return False
        self._hit_from = math.inf
        self._sharing.vote(now, HIT)
        return self._sharing.is_on
