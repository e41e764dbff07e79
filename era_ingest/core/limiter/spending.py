"""Spending: what went out, what of it was let in, and how fast."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from era_ingest.core.limiter.flight import NOTHING, Flight, Spend, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator


LEAST_TOKENS: Final = 1e-6
"""Mean tokens of requests that carry none: nothing divides by zero."""
MEAN_TO_SPREAD: Final = 1.25
"""Standard deviation over mean absolute deviation of a normal distribution."""
MOST_DEVIATION: Final = 4.0


class Mark(NamedTuple):
    """A refusal: when the refused request was sent, and what had been let in before it.

    At a mark the server's bucket was empty, so that between two marks it let in what it refilled.
    """

    at: float
    accepted: Spend

    def since(self, earlier: Mark) -> Epoch:
        """Return what lies between two marks."""
        return Epoch(max(self.at - earlier.at, 1e-3), self.accepted.minus(earlier.accepted))


class Epoch(NamedTuple):
    """The time between two refusals, in seconds, and what was let in during it."""

    span_s: float
    accepted: Spend

    def rate(self, unit: Unit) -> float:
        """Return units a second."""
        return max(0.0, self.accepted[unit]) / self.span_s

    @property
    def requests(self) -> int:
        """Requests let in."""
        return max(0, round(self.accepted.requests))


class Spending:
    """Keeps the books of one controller towards one server; a request counts as let in until refused.

    Attributes:
        sent: Everything sent so far.
        returned: Everything refused or failed so far.
        mean: Mean cost of a request.
        size_spread: Mean relative deviation of the tokens of a request.
        window_s: Span of the recent rate, seconds.
    """

    def __init__(self) -> None:
        self.sent = self.returned = NOTHING
        self.mean = Spend(1.0, 1.0)
        self.size_spread = 0.0
        self.window_s = 1.0
        self.began_at: float | None = None
        self._recent: deque[tuple[float, Spend]] = deque(maxlen=20_000)

    @property
    def accepted(self) -> Spend:
        """What was let in, as far as known."""
        return self.sent.minus(self.returned)

    def on_send(self, flight: Flight) -> None:
        """Note a request that goes out."""
        now, cost = flight.sent_at, flight.cost
        if self.began_at is None:
            self.began_at = now
        self.sent = self.sent.plus(cost)
        weight = max(0.05, 1 / self.sent.requests)
        tokens = self.mean.tokens + weight * (cost.tokens - self.mean.tokens)
        self.mean = Spend(1.0, max(tokens, LEAST_TOKENS))
        deviation = abs(cost.tokens / self.mean.tokens - 1) * MEAN_TO_SPREAD
        self.size_spread += 0.02 * (min(deviation, MOST_DEVIATION) - self.size_spread)
        self._recent.append((now, cost))
        while self._recent[0][0] < now - self.window_s:
            self._recent.popleft()

    def on_returned(self, flight: Flight) -> None:
        """Note that a request was not let in, or failed."""
        self.returned = self.returned.plus(flight.cost)

    def mark(self, flight: Flight) -> Mark:
        """Return the mark of a refused request; call it before ``on_returned``."""
        return Mark(flight.sent_at, flight.sent_before.minus(self.returned))

    def start(self) -> Mark:
        """Return the beginning of all sending."""
        return Mark(self.began_at or 0.0, NOTHING)

    def recent_rate(self, now: float, unit: Unit, *, more_s: float = 0.0) -> float:
        """Return units a second sent lately, as if ``more_s`` seconds of silence followed."""
        oldest = self._recent[0][0] if self._recent else now
        return sum(self._amounts(unit)) / (max(0.2, now - oldest) + more_s)

    def _amounts(self, unit: Unit) -> Iterator[float]:
        return (cost[unit] for _, cost in self._recent)
