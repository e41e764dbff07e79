"""An event queue with a clock that only moves when something happens."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Agenda(Protocol):
    """A clock, and what is to happen when: virtual time here, real time in ``bench.live``."""

    @property
    def now(self) -> float:
        """Seconds since the start of the run."""
        ...

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` at the instant ``when``, or at once if that is past."""
        ...


class World:
    """Virtual time. Events at the same instant happen in the order in which they were asked for.

    Attributes:
        now: Seconds since the start of the run.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` at the instant ``when``, or at once if that is past."""
        heapq.heappush(self._queue, (max(when, self.now), next(self._order), action))

    def run(self, until: float) -> None:
        """Let everything happen that is due before ``until``, then stand there."""
        while self._queue and self._queue[0][0] < until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until
