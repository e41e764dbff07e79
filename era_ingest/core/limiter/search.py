"""Search: which rate to try next between the bounds that refusals prove, and when that is a measurement."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from era_ingest.core.limiter.bracket import Bounds, Bracket
from era_ingest.core.limiter.flight import clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Unit
    from era_ingest.core.limiter.spending import Epoch

FEW: Final = 8
"""Requests below which an epoch measures nothing."""
ENOUGH: Final = 40
"""Requests that make a measurement good to 2.5 %."""
BEYOND: Final = 3.0
"""Requests beyond the model that prove the limit higher."""
PASSED: Final = 0.9
"""Share of a tried rate that counts as let in ..."""
TRY: Final = 12
"""... after so many requests without a refusal."""
TRY_CLOSE: Final = 60
"""Requests without a refusal that end a search whose bounds are close."""
TRIES: Final = 5
"""Refusals after which a search makes do with wider bounds: silences keep them apart."""
SLACK: Final = 0.05
"""Relative error of a rate that is no surprise."""
FALL: Final = 0.7
LEAST_FALL: Final = 0.5
"""What is left, at most and at least, of an estimate that is refused too soon to be measured anew."""


class Step(StrEnum):
    """How a search goes on."""

    TRY = "try"
    MEASURED = "measured"
    CLIMB = "climb"


class Verdict(NamedTuple):
    """How a search goes on, and at which rate, units a second."""

    step: Step
    rate: float


class Search:
    """Narrows a `Bracket` by trying rates until its bounds are within 5 %.

    Formula. The next rate is the middle of the bounds, or the upper one once they are within 30 %. Twelve
    requests without a refusal pass it at 0.9 of itself, sixty end a search between close bounds, and a
    refusal bounds it as `Bracket` says; within 5 % the middle is taken, since the lower bound makes each probe find
    a little more and climb for it. Without an upper bound a rate that passes is climbed from.

    State. The bracket, what had been sent when the present rate was tried first, and the refusals so far.

    Defaults. After five refusals wider bounds will do.

    Weak spot. That of `Bracket`.
    """

    def __init__(self) -> None:
        self.bracket = Bracket()
        self._tries, self._tried_from = 0, 0.0

    def begin(self, bracket: Bracket, sent: float) -> None:
        """Begin within bounds, when so many requests have been sent."""
        self.bracket, self._tries, self._tried_from = bracket, 0, sent

    def passed(self, epoch: Epoch, unit: Unit, mean: float, sent: float, rate: float) -> Verdict | None:
        """See whether the rate that is tried has passed; None if that is not known yet.

        Args:
            epoch: The time since the anchor, and what was let in.
            unit: What is counted.
            mean: Units a request.
            sent: Requests sent so far.
            rate: What is tried, units a second.
        """
        bracket, tried = self.bracket, sent - self._tried_from
        bracket.passed((epoch.accepted[unit] - BEYOND * mean) / epoch.span_s)
        if bracket.is_narrow:
            return Verdict(Step.MEASURED, bracket.middle)
        if bracket.is_close:
            return Verdict(Step.MEASURED, self._at_least(rate)) if tried >= TRY_CLOSE else None
        if tried < TRY:
            return None
        bracket.passed(PASSED * rate)
        if bracket.high == math.inf:
            return Verdict(Step.CLIMB, rate)
        return self._try(max(bracket.next_try(), rate), sent)

    def refused(self, whole: Bounds, epoch: Epoch, unit: Unit, sent: float, rate: float) -> Verdict:
        """Take a refusal of the rate that is tried.

        Args:
            whole: What the epoch proves.
            epoch: The time since the anchor, and what was let in.
            unit: What is counted.
            sent: Requests sent so far.
            rate: What is tried, units a second.
        """
        self.bracket.refused(whole)
        self._tries += 1
        if epoch.requests < FEW:
            return self._try(clamp(whole.high, LEAST_FALL * rate, FALL * rate), sent)
        if self.bracket.is_narrow or (self._tries > TRIES and epoch.requests >= ENOUGH):
            return Verdict(Step.MEASURED, self._at_least(epoch.rate(unit)))
        return self._try(self.bracket.next_try(), sent)

    def _at_least(self, rate: float) -> float:
        return max(self.bracket.low, (1 - SLACK) * rate)

    def _try(self, rate: float, sent: float) -> Verdict:
        self._tried_from = sent
        return Verdict(Step.TRY, rate)
