"""A client that knows everything: is a bar within reach on the server that was drawn?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.bench.simulation.limits import FixedWindow, InFlightCap, SlidingWindow, TokenBucket, value_at
from era_ingest.bench.simulation.servers import Batching, Workers
from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, LimiterState, ServerHints

if TYPE_CHECKING:
    from era_ingest.bench.simulation.limits import Limit
    from era_ingest.bench.simulation.scenario import Scenario
    from era_ingest.bench.simulation.servers import Server

SPARE: Final = 1.05
"""Requests at a pool for each of its workers; and one more."""
BATCHES: Final = 2
"""Batches at a GPU: one that runs, and a full one that waits."""
AHEAD: Final = 2
"""Requests that one client may be ahead of another."""
LOOK_S: Final = 0.01
"""How often it looks again where it cannot tell how long to wait, seconds."""


class Knowledge:
    """What the clients of one run see: the server itself, each other, and what is on the way there.

    Args:
        scenario: What is run.
        server: Its server, as it is in this run.
    """

    def __init__(self, scenario: Scenario, server: Server) -> None:
        self.server, self.clients = server, list[Oracle]()
        self._way_s = scenario.machine.trip_s / 2
        self._underway: list[tuple[float, float]] = []

    def admit(self) -> Oracle:
        """Return the limiter of one more client."""
        self.clients.append(Oracle(self))
        return self.clients[-1]

    def send(self, now: float, tokens: float) -> None:
        """Note that a request goes out."""
        self._underway.append((now + self._way_s, tokens))

    def wait(self, now: float, tokens: float) -> float:
        """Return seconds until a request of so many tokens is surely let in and finds work waiting; 0 if now."""
        self._underway = [one for one in self._underway if one[0] >= now]
        back_at = max(
            (o.end for o in self.server.outages if o.start <= now + self._way_s < o.end), default=now
        )
        if back_at > now:
            return back_at - now
        if self._at_backend() + len(self._underway) >= self._level(now):
            return self._until_reply
        return max((self._wait_for(limit, now, tokens) for limit in self.server.limits), default=0.0)

    def _wait_for(self, limit: Limit, now: float, tokens: float) -> float:
        counts_tokens = limit.unit == "tokens"
        before = sum(one[1] if counts_tokens else 1.0 for one in self._underway)
        if isinstance(limit, InFlightCap):
            return self._until_reply if limit.inside + before >= limit.cap else 0.0
        cost = tokens if counts_tokens else 1.0
        most = math.inf
        if isinstance(limit, TokenBucket):
            most = limit.burst
        elif isinstance(limit, FixedWindow | SlidingWindow):
            most = limit.limit
        if before and before + cost > most:
            return self._way_s
        return limit.wait(now, before + cost)

    @property
    def _until_reply(self) -> float:
        """Infinity, unless the reply that makes room may be another client's."""
        return math.inf if len(self.clients) == 1 else LOOK_S

    def _at_backend(self) -> int:
        backend = self.server.backend
        if isinstance(backend, Workers):
            return backend.busy + len(backend.queue)
        assert isinstance(backend, Batching)
        return len(backend.queue) + backend.most * backend.running

    def _level(self, now: float) -> float:
        backend = self.server.backend
        if isinstance(backend, Workers):
            return int(SPARE * value_at(backend.count, now)) + 1
        assert isinstance(backend, Batching)
        return BATCHES * backend.most


class Oracle:
    """Sends what the server surely takes, in turns with the other clients; implements ``Limiter``."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.sent = 0
        self._knowledge = knowledge

    def gate(self, now: float, cost: float) -> float:
        """Return 0 if a request of this cost may go now, else seconds to wait."""
        if self.sent >= min(one.sent for one in self._knowledge.clients) + AHEAD:
            return LOOK_S
        return self._knowledge.wait(now, cost)

    def on_send(self, now: float, cost: float) -> int:
        """Note a request that goes out now; return its ticket."""
        self._knowledge.send(now, cost)
        self.sent += 1
        return self.sent

    def on_success(
        self, now: float, ticket: int, *, hints: ServerHints = NO_HINTS, cost: float | None = None
    ) -> None:
        """Learn nothing: all is known."""

    def on_failure(
        self, now: float, ticket: int, kind: FailureKind, *, hints: ServerHints = NO_HINTS
    ) -> None:
        """Learn nothing: all is known."""

    def on_cancel(self, now: float, ticket: int) -> None:
        """Learn nothing: all is known."""

    def state(self, now: float) -> LimiterState:
        """Return a picture without figures."""
        del now
        return LimiterState(math.inf, 0, None, "")
