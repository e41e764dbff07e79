"""Arms: the measurement that is being made, and those whose last replies are awaited."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from era_ingest.core.limiter.arm import Arm

if TYPE_CHECKING:
    from era_ingest.core.limiter.arm import Finding
    from era_ingest.core.limiter.flight import Flight


class Arms:
    """Hands requests and their latencies to the arms that they belong to.

    Formula. None: requests go to the present arm; findings come from the oldest that is not judged yet, in order.

    State. The present arm, and the full ones before it: a level that is held is measured by one arm after the other,
    and the next begins before the last reply to the one before.

    Defaults. The first arm takes 8 requests, whatever they meet.

    Weak spot. A full arm whose replies are late holds up the ones after it.
    """

    def __init__(self) -> None:
        self._arm = Arm(8, 1, math.inf)
        self._full: deque[Arm] = deque()

    def begin(self, arm: Arm) -> None:
        """Forget all others and fill this one."""
        self._full.clear()
        self._arm = arm

    def follow(self, arm: Arm) -> None:
        """Fill this one; the present one waits for its replies."""
        self._full.append(self._arm)
        self._arm = arm

    def add(self, flight: Flight) -> bool:
        """Take in a request that goes out, if it is wanted; return whether it filled the arm."""
        if not self._arm.wants(flight):
            return False
        self._arm.add(flight)
        return self._arm.is_full

    def drop(self, flight: Flight) -> None:
        """Forget a request that brought no latency."""
        if flight.arm is not None:
            flight.arm.drop(flight)
            if flight.arm in self._full and not flight.arm.is_full:
                self._full.remove(flight.arm)
            flight.arm = None

    def note(self, now: float, flight: Flight, latency_s: float) -> Finding | None:
        """Take a latency; return what the oldest arm found, if that is final."""
        if flight.arm is not None:
            flight.arm.note(flight, latency_s)
            flight.arm = None
        return (self._full[0] if self._full else self._arm).finding(now)

    def retire(self) -> None:
        """Judge the oldest full arm no more."""
        self._full.popleft()
