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

CLOCK: Final = 1e6
"""What the database's clock shows when the run begins: nobody may take it for their own."""
LOOK_S: Final = 0.01
"""How often each client looks whether it is time to ask."""


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
        self._watch(sharer, name)
        return sharer

    def _watch(self, sharer: Sharer, name: str) -> None:
        now = self._world.now
        if now < sharer.ask_at or math.isinf(sharer.ask_at):
            self._world.at(now + LOOK_S, lambda: self._watch(sharer, name))
            return
        report = sharer.report(now)

        def come_by() -> None:
            self.visits += 1
            self.board, grant = self.board.exchange(CLOCK + self._world.now, name, report)

            def go_home() -> None:
                sharer.apply(self._world.now, grant)
                self._watch(sharer, name)

            self._world.at(self._world.now + self._trip_s / 2, go_home)

        self._world.at(now + self._trip_s / 2, come_by)
