"""Sharing: how to live with others on a quota that shows no headers."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.bracket import Bounds

CUT: Final = 0.7
"""What a refusal leaves of the pace."""
ONE_EVENT_S: Final = 2.0
"""Refusals so soon after a cut are of the same event, seconds: whoever is small would else be cut for each of them
while the large one has not been refused yet."""
GROW_PER_REQUEST: Final = 0.0015
GROW_EVENLY: Final = 0.2
GROW_LEAST: Final = 0.006
GROW_MOST: Final = 0.02
"""Growth of ln(pace) a second: the less of so much times the requests a second (they earn the refusals), and so much
over the requests a second (so that shares even out), within these bounds."""
GROW_FIRST: Final = 0.05
SETTLE_S: Final = 40.0
"""Growth a second at first, and how long it takes to fall to the usual, seconds: shares even out sooner."""
CALM_S: Final = 40.0
"""The growth doubles with each such time without a refusal, seconds."""
DOUBLINGS: Final = 4
ALONE_S: Final = 150.0
"""After so long without a refusal nobody else is there, seconds."""
SAME_HITS: Final = 4
SAME: Final = 0.05
"""So many refusals at paces within 5 % of each other are those of a limit that is ours alone ..."""
SAME_EPOCHS: Final = 3
"""... and so are those after so many times in which one refill explains what was let in ..."""
EXACT: Final = 0.03
"""... to within this share."""
SURE: Final = 1.0
MOST_VOTES: Final = 4.0


class Sharing:
    """Suspects that others use the quota too, and then yields when hit and grows patiently.

    Formula. Alone, refusals come when a probe asks for more. One while holding just below the limit is a vote
    for company, unless the limit itself has fallen (half a vote); a due one a quarter of a vote against. From
    one vote on: x0.7 at a refusal, once in two seconds, else growth by 0.6 to 2 % a second, such that about 0.8 % of
    the requests are refused. Where that leaves room all grow by the same amount rather than by the same factor, and the
    larger client is hit more often, so that the shares even out within a minute or two.

    State. Votes 0 to 4, the time of the last refusal and of the last growth, the paces that were refused, and the
    bounds of the times between them; ``refill``: units a second, once those showed that we are alone.

    Defaults. After 40 s without a refusal growth doubles, again and again. Alone after all: after 150 s without
    one, when four in a row came at paces within 5 %, or when one refill lies within the bounds (see `Bracket`)
    of the last three times between refusals, each known to 3 %: what others leave is never so even, whereas a
    bucket of ours alone refills alike however it is drawn from.

    Weak spot. Shares even out slowly; headers, or turns handed out by somebody, do better.
    """

    def __init__(self) -> None:
        self._votes = 0.0
        self._paces: deque[float] = deque(maxlen=SAME_HITS)
        self._epochs: deque[Bounds] = deque(maxlen=SAME_EPOCHS)
        self.refill: float | None = None
        self._began_at = self._grown_at = self._hit_at = self._cut_at = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether others are there."""
        return self._votes >= SURE

    def vote(self, now: float, weight: float) -> None:
        """Take a refusal: how much it speaks for company, in votes; negative if it was due."""
        was = self.is_on
        self._votes = clamp(self._votes + weight, 0.0, MOST_VOTES)
        if self.is_on and not was:
            self._began_at = self._hit_at = self._grown_at = now
            self._paces.clear()
            self._epochs.clear()
            self.refill = None

    def grow(self, now: float, requests_per_s: float) -> float:
        """Return the factor by which the pace grows at ``now``."""
        calm = now - self._hit_at
        if calm > ALONE_S:
            self._votes = 0.0
        span, self._grown_at = now - self._grown_at, now
        wanted = min(GROW_PER_REQUEST * requests_per_s, GROW_EVENLY / requests_per_s)
        rate = clamp(wanted, GROW_LEAST, GROW_MOST)
        rate = max(rate, GROW_FIRST * math.exp((self._began_at - now) / SETTLE_S))
        return math.exp(span * rate * 2 ** min(DOUBLINGS, int(calm / CALM_S)))

    def hit(self, now: float, pace: float, bounds: Bounds | None = None) -> float:
        """Return the factor by which a refusal at ``pace`` cuts it.

        Args:
            now: Seconds.
            pace: Units a second.
            bounds: What was let in since the last refusal proves, if we had been alone; None: nothing.
        """
        self._hit_at = self._grown_at = now
        if now < self._cut_at + ONE_EVENT_S:
            return 1.0
        self._cut_at = now
        self._paces.append(math.log(pace))
        if len(self._paces) == SAME_HITS and max(self._paces) - min(self._paces) < SAME:
            self._votes = 0.0
        if bounds is not None:
            self._epochs.append(bounds)
            self._compare()
        return CUT

    def _compare(self) -> None:
        """See whether one refill explains the latest epochs: then nobody else is there."""
        low, high = max(one.low for one in self._epochs), min(one.high for one in self._epochs)
        are_exact = all(one.high <= (1 + EXACT) * one.low for one in self._epochs)
        if len(self._epochs) == SAME_EPOCHS and are_exact and low <= high:
            self._votes, self.refill = 0.0, (low + high) / 2
