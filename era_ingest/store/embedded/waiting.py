"""Waiting for another process, with a bound."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Waiter:
    """Asks again and again, at first every 5 ms, later every 100 ms.

    Attributes:
        clock: Monotonic seconds.
        sleep: Pauses for so many seconds.
    """

    clock: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], None] = field(default=time.sleep)

    def attempts(self, timeout_s: float) -> Iterator[float]:
        """Yield the seconds waited so far, pausing between, until ``timeout_s`` are over; at least once."""
        start = self.clock()
        pause = _FIRST_PAUSE_S
        waited = 0.0
        while True:
            yield waited
            if waited >= timeout_s:
                return
            self.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)
            waited = self.clock() - start

    def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Return whether the condition came true within ``timeout_s`` seconds."""
        return any(condition() for _ in self.attempts(timeout_s))
