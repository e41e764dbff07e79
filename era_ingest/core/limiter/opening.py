"""Opening: what the very first requests say, before anything can be compared."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.arm import Finding

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight

PATIENCE: Final = 1.25
"""A lone worker answers the n-th request after n times the first one's latency; wait this much longer."""
START_SPREAD: Final = 0.3
APART: Final = 0.3
"""A lone worker's answers are apart by at least this share of the first one's latency."""
EVENLY: Final = 0.6
"""... and by so much on average."""
TOGETHER: Final = 1.8
"""Two workers need twice the first one's latency for four requests; a server with room needs less than this."""


class Opening:
    """Sends a handful of requests at once and finds out whether a lone worker answers them.

    Formula. A lone worker answers in the order of sending, each a service time after the one before. A server
    with room for all of them answers all within 1.8 times the latency of the first. Between them are servers
    with room for a few, and those that batch. Waiting costs nothing: the lone worker is busy meanwhile, the
    wide one answers all at once.

    Weak spot. A wide server whose latencies scatter much may by chance answer in order and apart (one time in
    some hundreds at a spread of 0.5); what follows corrects it.

    Args:
        size: Requests to send, >= 2.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._out: dict[int, float] = {}
        self._points: list[tuple[int, float, float]] = []

    def wait(self, now: float) -> float:
        """Return 0 while requests are to be sent, else seconds until patience ends."""
        if len(self._out) + len(self._points) < self._size:
            return 0.0
        return max(self._deadline() - now, 1e-3) if self._points and self._out else math.inf

    def _deadline(self) -> float:
        fastest = min(latency for _, _, latency in self._points)
        patience = PATIENCE * self._size if self.is_lone() else TOGETHER
        return min(self._out.values()) + patience * fastest

    def on_send(self, flight: Flight) -> None:
        """Note a request that goes out."""
        self._out[flight.ticket] = flight.sent_at

    def on_drop(self, flight: Flight) -> None:
        """Forget a request that brought no latency; another takes its place."""
        self._out.pop(flight.ticket, None)

    def on_success(self, flight: Flight, latency_s: float) -> None:
        """Take a latency."""
        if self._out.pop(flight.ticket, None) is not None:
            self._points.append((flight.ticket, math.log(flight.in_flight), latency_s))

    def is_over(self, now: float) -> bool:
        """Return whether all are back, or have had the time that a lone worker, or a server with room, takes."""
        if len(self._points) + len(self._out) < self._size or not self._points:
            return False
        return not self._out or now >= self._deadline()

    def is_lone(self) -> bool:
        """Return whether the answers so far came one after the other, as from a lone worker."""
        first, last = self._points[0][2], self._points[-1][2]
        one_by_one = all(
            earlier[0] < later[0] and later[2] - earlier[2] > APART * first
            for earlier, later in pairwise(self._points)
        )
        return one_by_one and last - first >= EVENLY * first * (len(self._points) - 1)

    def has_room(self) -> bool:
        """Return whether the server had room for all of them."""
        latencies = [latency for _, _, latency in self._points]
        return not self._out and max(latencies) <= TOGETHER * min(latencies)

    def finding(self) -> Finding:
        """Return the opening as the first arm of the ramp."""
        count = len(self._points)
        load = math.exp(sum(x for _, x, _ in self._points) / count)
        return Finding(load, sum(y for _, _, y in self._points) / count, START_SPREAD, count)
