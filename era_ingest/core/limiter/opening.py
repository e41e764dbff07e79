"""Opening: what the very first requests say, before anything can be compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.arm import Finding

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight

PATIENCE: Final = 1.25
"""A lone worker answers the n-th request after n times the first one's latency; wait this much longer."""
START_SPREAD: Final = 0.3


class Opening:
    """Sends a handful of requests at once and waits for all of them.

    Formula. They meet loads of 1, 2, 3, ... in flight, so the slope of ln(latency) over ln(load) is the
    elasticity already: 1 for a lone worker that serves them one after the other, 0 for a server with room.
    Waiting costs neither anything: the lone worker is busy meanwhile, the wide one answers all at once.

    Weak spot. With latencies that scatter by 30 % the slope is only good to 0.3; what follows corrects it.

    Args:
        size: Requests to send, >= 2.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._out: dict[int, float] = {}
        self._points: list[tuple[float, float]] = []

    def wait(self, now: float) -> float:
        """Return 0 while requests are to be sent, else seconds until patience ends."""
        if len(self._out) + len(self._points) < self._size:
            return 0.0
        return max(self._deadline() - now, 1e-3) if self._points and self._out else math.inf

    def _deadline(self) -> float:
        fastest = min(latency for _, latency in self._points)
        return min(self._out.values()) + PATIENCE * self._size * fastest

    def on_send(self, flight: Flight) -> None:
        """Note a request that goes out."""
        self._out[flight.ticket] = flight.sent_at

    def on_drop(self, flight: Flight) -> None:
        """Forget a request that brought no latency; another takes its place."""
        self._out.pop(flight.ticket, None)

    def on_success(self, flight: Flight, latency_s: float) -> None:
        """Take a latency."""
        if self._out.pop(flight.ticket, None) is not None:
            self._points.append((math.log(flight.in_flight), latency_s))

    def is_over(self, now: float) -> bool:
        """Return whether all are back, or those that are out have straggled."""
        if len(self._points) + len(self._out) < self._size:
            return False
        return bool(self._points) and (not self._out or now >= self._deadline())

    def slope(self) -> float:
        """Return the elasticity, about 0 to 1; 0 if the loads did not differ."""
        mean_x = sum(x for x, _ in self._points) / len(self._points)
        logs = [(x - mean_x, math.log(latency)) for x, latency in self._points]
        scatter = sum(x * x for x, _ in logs)
        return sum(x * y for x, y in logs) / scatter if scatter > 0 else 0.0

    def finding(self) -> Finding:
        """Return the opening as the first arm of the ramp."""
        count = len(self._points)
        load = math.exp(sum(x for x, _ in self._points) / count)
        return Finding(load, sum(y for _, y in self._points) / count, START_SPREAD, count)
