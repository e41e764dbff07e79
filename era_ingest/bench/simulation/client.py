"""A client that always has work: it sends whenever its controller lets it, and sends again what failed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from era_ingest.core.limiter.contract import FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from era_ingest.bench.simulation.servers import Answer, Server
    from era_ingest.bench.simulation.world import World
    from era_ingest.core.limiter.contract import Limiter

RETRY_FIRST_S = 0.5
RETRY_MOST_S = 8.0


@dataclass(frozen=True, slots=True)
class Served:
    """One request that succeeded: when (s), after how long (s), how many tokens."""

    at: float
    latency_s: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Failed:
    """One request that failed otherwise than by a 429: when it was sent, and when that was known (s)."""

    sent_at: float
    at: float


@dataclass(slots=True)
class Tally:
    """What one client saw."""

    served: list[Served] = field(default_factory=list)
    sent: int = 0
    sent_tokens: float = 0.0
    refused: int = 0
    refused_tokens: float = 0.0
    failed: list[Failed] = field(default_factory=list)


@dataclass(slots=True)
class _Text:
    tokens: float
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """The client's own limits.

    Attributes:
        trip_s: Network time there and back, seconds.
        cpu_s: Seconds of its one core that each request costs, spent when the reply comes.
        timer_late_s: How late a timer fires, seconds.
    """

    trip_s: float = 0.002
    cpu_s: float = 0.0
    timer_late_s: float = 0.001


class Client:
    """Drives one limiter against one server in a world."""

    def __init__(
        self,
        world: World,
        server: Server,
        limiter: Limiter,
        machine: Machine,
        *,
        draw_tokens: Callable[[], float],
        rng: Random,
    ) -> None:
        self.tally = Tally()
        self._world, self._server, self._limiter, self._machine = world, server, limiter, machine
        self._draw_tokens, self._rng = draw_tokens, rng
        self._again: deque[_Text] = deque()
        self._wake_at = math.inf
        self._core_free_at = 0.0

    def pump(self) -> None:
        """Send while the controller says so; then sleep until it says, or until a reply."""
        now = self._world.now
        while True:
            text = self._again[0] if self._again else _Text(self._draw_tokens())
            if not self._again:
                self._again.append(text)
            wait = self._limiter.gate(now, text.tokens)
            if wait > 0:
                break
            self._again.popleft()
            self._send(text)
        if now + wait < self._wake_at - 1e-9 or self._wake_at <= now:
            self._sleep(wait)

    def _sleep(self, wait: float) -> None:
        if math.isinf(wait):
            return
        self._wake_at = due = self._world.now + wait + self._machine.timer_late_s * self._rng.random()

        def wake() -> None:
            if self._wake_at == due:
                self._wake_at = math.inf
                self.pump()

        self._world.at(due, wake)

    def _send(self, text: _Text) -> None:
        sent_at = self._world.now
        ticket = self._limiter.on_send(sent_at, text.tokens)
        self.tally.sent += 1
        self.tally.sent_tokens += text.tokens
        trip_s = self._machine.trip_s

        def arrived() -> None:
            self._server.receive(self._world, text.tokens, on_the_way_back)

        def on_the_way_back(answer: Answer) -> None:
            due = max(self._world.now + trip_s / 2, self._core_free_at) + self._machine.cpu_s
            self._core_free_at = due if self._machine.cpu_s else 0.0
            self._world.at(due, lambda: self._receive(text, ticket, sent_at, answer))

        self._world.at(sent_at + trip_s / 2, arrived)

    def _receive(self, text: _Text, ticket: int, sent_at: float, answer: Answer) -> None:
        now = self._world.now
        if answer.failure is None:
            self.tally.served.append(Served(now, now - sent_at, text.tokens))
            self._limiter.on_success(now, ticket, hints=answer.hints)
        elif answer.failure is FailureKind.RATE_LIMITED:
            self.tally.refused += 1
            self.tally.refused_tokens += text.tokens
            self._limiter.on_failure(now, ticket, answer.failure, hints=answer.hints)
            self._again.append(text)
        else:
            self._fail(text, ticket, sent_at, answer)
        self.pump()

    def _fail(self, text: _Text, ticket: int, sent_at: float, answer: Answer) -> None:
        now = self._world.now
        self.tally.failed.append(Failed(sent_at, now))
        self._limiter.on_failure(now, ticket, answer.failure or FailureKind.SERVER_ERROR, hints=answer.hints)
        text.attempts += 1
        pause = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** min(text.attempts, 5)) * self._rng.random()

        def again() -> None:
            self._again.append(text)
            self.pump()

        self._world.at(now + pause, again)
