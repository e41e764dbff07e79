"""Bucket: what the server's bucket holds, as far as refusals and the present estimate of its refill say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.bracket import Stand
from era_ingest.core.limiter.search import SLACK

if TYPE_CHECKING:
    from era_ingest.core.limiter.bracket import Bounds
    from era_ingest.core.limiter.flight import Flight, Unit
    from era_ingest.core.limiter.spending import Epoch, Mark, Spending

SURPRISE: Final = 2.0
"""Requests' cost that the model may be off without surprise."""
LEAST_FILLING: Final = 2.0
"""Requests that a bucket of unknown size is taken to hold."""


class Bucket:
    """Remembers the refusals that measure the refill, and reckons what has come back since the last one.

    Formula. At a refusal the bucket is empty; later it holds ``estimate * elapsed - let in since``, at most. A silence
    longer than it takes to fill may have left it full: such time counts apart, as it bounds the refill from below only.
    What the very first epoch let in beyond the refill was the bucket's size.

    State. The refusal from which the rate is measured (the anchor), the last one, what is deducted from the level, the
    burst, the time in which it may have been full.

    Defaults. Of unknown size it holds two requests.

    Weak spot. Whatever others spend is missing from the level.

    Attributes:
        anchor: From where the rate is measured.
        last: The last refusal.
        burst: Units that it holds when full, as far as known.
        sent_at: When a request went last, seconds.
    """

    def __init__(self, books: Spending) -> None:
        self.anchor: Stand | None = None
        self.last: Stand | None = None
        self.burst = 0.0
        self.sent_at = 0.0
        self._books = books
        self._first: Epoch | None = None
        self._deducted = 0.0
        self._full_s = self._idle_s = 0.0

    # ---- refusals

    def stand(self, mark: Mark) -> Stand:
        """Return a mark with the time in which the bucket may have been full by now."""
        return Stand(mark, self._full_s)

    def begin(self, stand: Stand) -> None:
        """Measure from here."""
        self.anchor = self.last = stand

    def on_first(self, mark: Mark) -> None:
        """Note a refusal; the very first one tells the bucket's size later on."""
        if self._first is None:
            self._first = mark.since(self._books.start())

    def learn_burst(self, estimate: float, unit: Unit) -> None:
        """Take what the first epoch let in beyond the refill for the size."""
        if self._first is not None:
            self.burst = max(0.0, self._first.accepted[unit] - estimate * self._first.span_s)

    def is_surprise(self, stand: Stand, last: Stand, known: float, unit: Unit, slack: float) -> bool:
        """Return whether ``known`` units a second allow for more than was let in, even if it was full for long."""
        bounds: Bounds = stand.bounds(last, unit, SURPRISE * slack)
        return (1 - SLACK) * known > bounds.high

    # ---- what it holds

    def level(self, now: float, estimate: float, unit: Unit) -> float:
        """Return what it holds at most by the estimate: refill less what was let in since it was empty."""
        if self.last is None:
            return 0.0
        used = self._books.accepted[unit] - self.last.mark.accepted[unit]
        return estimate * (now - self.last.mark.at) - used - self._deducted

    def deduct_above(self, now: float, estimate: float, unit: Unit, most: float) -> None:
        """Believe that it holds no more than ``most``."""
        self._deducted += max(0.0, self.level(now, estimate, unit) - most)

    def deduct_nothing(self) -> None:
        """Believe the level as it is."""
        self._deducted = 0.0

    # ---- silence

    def on_send(self, now: float, estimate: float, mean: float) -> None:
        """Count the time in which a silence may have left the bucket full."""
        filling_s = max(LEAST_FILLING * mean, self.burst) / estimate
        self._idle_s = max(0.0, now - self.sent_at - filling_s)
        self._full_s += self._idle_s
        self.sent_at = now

    def on_returned(self, flight: Flight) -> None:
        """Note that the request which ended a silence was refused: the bucket was not full then."""
        if flight.sent_at == self.sent_at:
            self._full_s, self._idle_s = self._full_s - self._idle_s, 0.0
