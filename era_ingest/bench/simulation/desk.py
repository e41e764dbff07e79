"""The board that several simulated clients share, with the time that a database takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.board import Board
from era_ingest.core.limiter.sharer import Sharer

if TYPE_CHECKING:
    from random import Random

    from era_ingest.bench.simulation.world import World
    from era_ingest.core.limiter.adaptive import AdaptiveLimiter
    from era_ingest.core.limiter.board import Grant

CLOCK: Final = 1e6
"""What the database's clock shows when the run begins: nobody may take it for their own."""


class Desk:
    """Keeps one board.

    Args:
        world: Its clock.
        trip_s: Time of a visit, there and back, seconds.
    """

    def __init__(self, world: World, trip_s: float) -> None:
        self.board = Board()
        self.visits = 0
        self._world, self._trip_s = world, trip_s
        self._names = 0

    def admit(self, inner: AdaptiveLimiter, rng: Random) -> Sharer:
        """Return the limiter of one more client."""
        self._names += 1
        sharer, name = Sharer(inner, uniform=rng.random), f"client {self._names}"
        sharer.on_due = lambda: self._plan(sharer, name)
        return sharer

    def _plan(self, sharer: Sharer, name: str) -> None:
        """Come by when it is time."""
        if not sharer.is_asking and sharer.ask_at < math.inf:
            self._world.at(sharer.ask_at, lambda: self._come_by(sharer, name))

    def _come_by(self, sharer: Sharer, name: str) -> None:
        now = self._world.now
        if sharer.is_asking or now < sharer.ask_at:
            return
        report = sharer.report(now)

        def arrive() -> None:
            self.visits += 1
            grant = self.board.exchange(CLOCK + self._world.now, name, report)
            self._world.at(self._world.now + self._trip_s / 2, lambda: go_home(grant))

        def go_home(grant: Grant) -> None:
            sharer.apply(self._world.now, grant)
            self._plan(sharer, name)

        self._world.at(now + self._trip_s / 2, arrive)
