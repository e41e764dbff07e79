"""A measurement: the latency of requests that were sent at one level of load."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight

QUANTILE: Final = 0.75
CLIP: Final = 1.6
"""Latencies count up to 1.6 times the one that three quarters of the arm stay below."""
LATE: Final = 1.2
"""What a request that is still out counts in a hurried arm, in terms of the same."""
LEAST: Final = 4
"""Requests that an arm needs at least."""
LEAST_SPREAD: Final = 0.02
MEAN_TO_TERCILE: Final = 0.86
"""Distance between the terciles of a normal distribution, in standard deviations."""


class Finding(NamedTuple):
    """What an arm found.

    Attributes:
        load: Geometric mean of the requests in flight that its requests met.
        latency_s: Mean latency, each cut to 1.6 times what three quarters stay below, seconds.
        spread: Standard deviation of ln(latency), >= 0.02.
        size: Requests it rests on.
    """

    load: float
    latency_s: float
    spread: float
    size: int

    @property
    def per_s(self) -> float:
        """Requests a second that were served at this load (Little's law)."""
        return self.load / self.latency_s

    @property
    def error(self) -> float:
        """Standard error of ln(latency)."""
        return CLIP_FACTOR * self.spread / math.sqrt(self.size)

    def latency_error_since(self, earlier: Finding) -> float:
        """Return the standard error of the change of ln(latency) between two findings."""
        return math.hypot(self.error, earlier.error)

    def elasticity_since(self, earlier: Finding) -> float | None:
        """Return d ln latency / d ln load between two findings; None if the loads hardly differ."""
        rise = math.log(self.load / earlier.load)
        if abs(rise) < MIN_RISE:
            return None
        return math.log(self.latency_s / earlier.latency_s) / rise

    def latency_at(self, load: float, lower: Finding) -> float:
        """Return the latency at a load between a lower finding and this one, seconds: flat, then queueing."""
        return max(lower.latency_s, load / self.per_s)

    def error_since(self, earlier: Finding) -> float:
        """Return the standard error of that elasticity."""
        rise = max(abs(math.log(self.load / earlier.load)), MIN_RISE)
        return self.latency_error_since(earlier) / rise


MIN_RISE: Final = 0.08
CLIP_FACTOR: Final = 1.1
"""Standard error of ln of that mean over that of the mean of ln(latency), for a log-normal."""


class Arm:
    """Requests sent at one level, until their latency is known.

    The statistic is the mean of the latencies, each cut to 1.6 times the one that three quarters of them stay
    below. It is final as soon as that many are back and every request still out is older than the cut: nothing
    can change it then, so a straggler neither distorts a measurement nor holds it up. (A plainer trimmed mean
    would be blind to a quarter of the requests that wait for one more of a GPU's batches.)

    Args:
        size: Requests to collect.
        floor: Least load (requests in flight) at which a request counts.
        patience_s: After so long make do with fewer, at least ``LEAST``.
        hurried: Final already when every request still out is older than what three quarters stay below;
            such a request then counts 1.2 times that. For the ramp, where each round trip counts.
    """

    __slots__ = (
        "_hurried",
        "_latencies",
        "_out",
        "_patience_s",
        "_since",
        "_sum_ln_load",
        "floor",
        "sent",
        "size",
    )

    def __init__(self, size: float, floor: float, patience_s: float, *, hurried: bool = False) -> None:
        self.size, self.floor = max(LEAST, int(size)), floor
        self.sent = 0
        self._hurried = hurried
        self._patience_s = patience_s
        self._since: float | None = None
        self._sum_ln_load = 0.0
        self._latencies: list[float] = []
        self._out: dict[int, float] = {}

    @property
    def is_full(self) -> bool:
        """Whether it has all the requests that it wants."""
        return self.sent >= self.size

    def wants(self, flight: Flight) -> bool:
        """Return whether this request belongs to the measurement."""
        return self.sent < self.size and flight.in_flight >= self.floor

    def add(self, flight: Flight) -> None:
        """Take a request in as it goes out."""
        now = flight.sent_at
        if self._since is None:
            self._since = now
        elif now > self._since + self._patience_s:
            self.size = min(self.size, max(self.sent + 1, LEAST))
        self.sent += 1
        self._sum_ln_load += math.log(flight.in_flight)
        self._out[flight.ticket] = now
        flight.arm = self

    def drop(self, flight: Flight) -> None:
        """Forget a request that brought no latency; if the arm was full, it makes do without."""
        if self._out.pop(flight.ticket, None) is not None:
            if self.is_full:
                self.size = max(LEAST, self.size - 1)
            self.sent -= 1
            self._sum_ln_load -= math.log(flight.in_flight)

    def note(self, flight: Flight, latency_s: float) -> None:
        """Take the latency of one of its requests."""
        if self._out.pop(flight.ticket, None) is not None:
            self._latencies.append(latency_s)

    def finding(self, now: float) -> Finding | None:
        """Return what the arm found, or None while that can still change."""
        last = int(QUANTILE * self.sent)
        if self.sent < self.size or len(self._latencies) <= last:
            return None
        ordered = sorted(self._latencies)
        most_s = CLIP * ordered[last]
        known_s, out_s = (ordered[last], LATE * ordered[last]) if self._hurried else (most_s, most_s)
        if self._out and now - max(self._out.values()) < known_s:
            return None
        spread = math.log(ordered[last // 3 * 2] / ordered[last // 3]) / (MEAN_TO_TERCILE * QUANTILE)
        return Finding(
            load=math.exp(self._sum_ln_load / self.sent),
            latency_s=(sum(min(each, most_s) for each in ordered) + out_s * len(self._out)) / self.sent,
            spread=max(LEAST_SPREAD, spread),
            size=self.sent,
        )
