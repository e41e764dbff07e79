"""Restraint: whatever the learners believe, a server that refuses much is asked less."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight

FEW, MANY = 60, 400
"""Requests over which refusals are judged: the latest, and more of them."""
ENOUGH: Final = 20
"""... the latest are at least so many, and more at least half of theirs."""
OFTEN: Final = 0.4
STEADY: Final = 0.1
"""Share of refused requests above which the pace is halved: of the latest, and of more."""
CONTENT: Final = 0.05
"""Share of refused requests up to which it is doubled again."""
LEAST: Final = 1 / 64
"""Of the learners' pace so much is left at least."""
LONGEST_S: Final = 30.0
"""Up to here a silence is lengthened, seconds."""
DOUBT_S: Final = 60.0
DOUBT_MOST_S: Final = 3600.0
"""Headers that did not explain what was refused are doubted so long, twice as long each time, seconds."""


class Restraint:
    """Halves the pace while a large share of the latest requests is refused: the net under the learners.

    Formula. Of the requests sent since the last change, are more than 40 % of the latest 60 (at least 20)
    refused, or 10 % of 400 (or 20 in fewer), half the pace is left; up to 5 % of the latest, it doubles again.
    From the second halving on silences are longer likewise. Requests that were on their way when a refusal
    was heard count once: they are one refusal.

    Headers that let it come to that are doubted, so that others learn from the refusals: for a minute, and each time it
    happens again for twice as long, up to an hour. Not for ever: a crowd that spends a window in front of a client is
    no lie of its headers, and only they show it the way back.

    State. The share of the learners' pace that is left (1/64 to 1), the latest outcomes, until when headers are
    doubted.

    Defaults. A learner that is right about its server is refused less than half as often, but for its first
    minute, and never meets this.

    Weak spot. It knows no cause: it keeps a server from being pestered, and does not serve well.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._doubt_s, self._doubt_until = DOUBT_S, -math.inf
        self._outcomes: deque[bool] = deque(maxlen=MANY)
        self._changed_at = self._heard_at = self._next_at = 0.0

    def wait(self, now: float, pace: float | None) -> float:
        """Return seconds until a request may go, at a learners' pace in requests a second; 0 if now.

        A pace of 0 is that of a quota that believes to be empty: it asks when it has to.
        """
        return 0.0 if self.share == 1.0 or pace is None else max(0.0, self._next_at - now)

    def on_send(self, now: float, pace: float | None) -> None:
        """Note a request that goes out."""
        if pace:
            self._next_at = now + 1 / (self.share * pace)

    def doubts_headers(self, now: float) -> bool:
        """Return whether headers do not explain refusals at present."""
        return now < self._doubt_until

    def silence_s(self, silence_s: float) -> float:
        """Return how long to be silent where the learners would for ``silence_s``, in seconds."""
        return max(silence_s, min(0.5 * silence_s / self.share, LONGEST_S))

    def on_answer(self, now: float, flight: Flight, *, refused: bool) -> None:
        """Judge the latest requests."""
        if flight.sent_at < self._changed_at or (refused and flight.sent_at <= self._heard_at):
            return
        if refused:
            self._heard_at = now
        self._outcomes.append(refused)
        if not refused and self.share == 1.0:
            return
        latest = list(islice(reversed(self._outcomes), FEW))
        if len(latest) < ENOUGH:
            return
        few, many = sum(latest) / len(latest), sum(self._outcomes) / max(MANY // 2, len(self._outcomes))
        if few > OFTEN or many > STEADY:
            self._doubt(now)
            self._change(now, max(LEAST, self.share / 2))
        elif self.share < 1.0 and few <= CONTENT:
            self._change(now, 2 * self.share)

    def _doubt(self, now: float) -> None:
        if not self.doubts_headers(now) and self._doubt_until > -math.inf:
            self._doubt_s = min(DOUBT_MOST_S, 2 * self._doubt_s)
        self._doubt_until = now + self._doubt_s

    def _change(self, now: float, share: float) -> None:
        self.share, self._changed_at = share, now
        self._outcomes.clear()
