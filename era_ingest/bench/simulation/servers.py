"""Models of servers: a door with limits, and what is behind it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from era_ingest.bench.simulation.limits import InFlightCap, Limit, Steps, retry_after, value_at
from era_ingest.bench.simulation.quirks import Proxy
from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, ServerHints

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from era_ingest.bench.simulation.world import Agenda


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back: ``failure`` is None when the request was served."""

    failure: FailureKind | None
    hints: ServerHints = NO_HINTS


@dataclass(frozen=True, slots=True)
class Service:
    """How long one request takes when nothing waits, in seconds.

    Log-normal around ``mean_s``, with a share of stragglers that take ``straggle`` times as long.

    Attributes:
        mean_s: Mean without the stragglers.
        spread: Standard deviation of ln(time); 0 is exact.
        per_token_s: Seconds more for each token.
        stragglers: Share of requests that straggle.
        straggle: How many times longer these take.
    """

    mean_s: float
    spread: float = 0.1
    per_token_s: float = 0.0
    stragglers: float = 0.0
    straggle: float = 10.0

    def draw(self, rng: Random, tokens: float) -> float:
        """Return one service time."""
        time = self.mean_s + self.per_token_s * tokens
        if self.spread > 0:
            time *= math.exp(rng.gauss(0.0, self.spread) - self.spread**2 / 2)
        return time * self.straggle if self.stragglers and rng.random() < self.stragglers else time

    def expected(self, mean_tokens: float) -> float:
        """Return the mean service time."""
        time = self.mean_s + self.per_token_s * mean_tokens
        return time * (1 + self.stragglers * (self.straggle - 1))


class Backend(Protocol):
    """What serves the requests that came in."""

    def submit(self, world: Agenda, tokens: float, done: Callable[[], None]) -> None:
        """Serve one request and call ``done`` when it is finished."""
        ...

    def capacity(self, mean_tokens: float) -> Steps:
        """Return the most requests a second that it can serve, in steps."""
        ...


@dataclass(slots=True)
class Workers:
    """So many workers, one queue; the number of workers may change."""

    count: Steps
    service: Service
    rng: Random
    busy: int = 0
    queue: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)

    def submit(self, world: Agenda, tokens: float, done: Callable[[], None]) -> None:
        """Queue one request."""
        if self.busy >= value_at(self.count, world.now):
            self.queue.append((tokens, done))
            return
        self._start(world, tokens, done)

    def _start(self, world: Agenda, tokens: float, done: Callable[[], None]) -> None:
        self.busy += 1

        def finish() -> None:
            self.busy -= 1
            done()
            while self.queue and self.busy < value_at(self.count, world.now):
                self._start(world, *self.queue.popleft())

        world.at(world.now + self.service.draw(self.rng, tokens), finish)

    def capacity(self, mean_tokens: float) -> Steps:
        """Return workers over mean service time."""
        mean = self.service.expected(mean_tokens)
        return tuple((since, count / mean) for since, count in self.count)


@dataclass(slots=True)
class Batching:
    """A GPU that serves whatever waits, up to ``most`` at once, in ``base_s + each_s * n``."""

    base_s: float
    each_s: float
    most: int
    running: bool = False
    queue: deque[Callable[[], None]] = field(default_factory=deque)

    def submit(self, world: Agenda, tokens: float, done: Callable[[], None]) -> None:
        """Queue one request."""
        del tokens
        self.queue.append(done)
        if not self.running:
            self._start(world)

    def _start(self, world: Agenda) -> None:
        batch = [self.queue.popleft() for _ in range(min(self.most, len(self.queue)))]
        self.running = bool(batch)
        if not batch:
            return

        def finish() -> None:
            for done in batch:
                done()
            self._start(world)

        world.at(world.now + self.base_s + self.each_s * len(batch), finish)

    def capacity(self, mean_tokens: float) -> Steps:
        """Return full batches a second."""
        del mean_tokens
        return ((0.0, self.most / (self.base_s + self.each_s * self.most)),)


@dataclass(frozen=True, slots=True)
class Outage:
    """Everything fails from ``start`` to ``end``, after ``after_s`` seconds each."""

    start: float
    end: float
    kind: FailureKind = FailureKind.CONNECTION
    after_s: float = 0.002


@dataclass(frozen=True, slots=True)
class Hangs:
    """Some requests are never answered; the client gives each up after its time limit. They keep no worker busy.

    Attributes:
        share: Of all requests.
        rng: Says which.
        after_s: The client's time limit, seconds.
    """

    share: float
    rng: Random
    after_s: float = 60.0

    def swallow(self, world: Agenda, answer: Callable[[Answer], None]) -> bool:
        """Return whether this request is one of them; the client then hears of it when its time is over."""
        if self.rng.random() >= self.share:
            return False
        world.at(world.now + self.after_s, lambda: answer(Answer(FailureKind.TIMEOUT)))
        return True


@dataclass(slots=True)
class Server:
    """A door with limits before a backend.

    Attributes:
        backend: What serves.
        limits: All must let a request in.
        outages: When nothing works.
        refusal_s: Time that a refusal takes.
        hangs: What it leaves unanswered.
        proxy: What stands before it and hands its headers on.
    """

    backend: Backend
    limits: tuple[Limit, ...] = ()
    outages: tuple[Outage, ...] = ()
    refusal_s: float = 0.003
    hangs: Hangs | None = None
    proxy: Proxy = field(default_factory=Proxy)

    def receive(self, world: Agenda, tokens: float, answer: Callable[[Answer], None]) -> None:
        """Take one request in, or turn it away."""
        now = world.now
        for outage in self.outages:
            if outage.start <= now < outage.end:
                self._fail(world, outage, answer)
                return
        if self.hangs is not None and self.hangs.swallow(world, answer):
            return
        costs = [tokens if limit.unit == "tokens" else 1.0 for limit in self.limits]
        waits = [limit.wait(now, cost) for limit, cost in zip(self.limits, costs, strict=True)]
        if any(waits):
            self._refuse(world, costs, answer)
            return
        for limit, cost in zip(self.limits, costs, strict=True):
            limit.take(now, cost)
        served = Answer(None, self.proxy.hand_on(now, self._hints(now, None), refused=False))

        def done() -> None:
            for limit in self.limits:
                limit.leave()
            down = any(outage.start <= world.now < outage.end for outage in self.outages)
            answer(Answer(FailureKind.CONNECTION) if down else served)

        self.backend.submit(world, tokens, done)

    @staticmethod
    def _fail(world: Agenda, outage: Outage, answer: Callable[[Answer], None]) -> None:
        world.at(world.now + outage.after_s, lambda: answer(Answer(outage.kind)))

    def _refuse(self, world: Agenda, costs: list[float], answer: Callable[[Answer], None]) -> None:
        """Answer 429; the wait that is told counts what the refusal itself cost."""
        for limit, cost in zip(self.limits, costs, strict=True):
            limit.refuse(world.now, cost)
        waits = [limit.wait(world.now, cost) for limit, cost in zip(self.limits, costs, strict=True)]
        hints = [
            retry_after(limit.hint, wait) for limit, wait in zip(self.limits, waits, strict=True) if wait
        ]
        told = [hint for hint in hints if hint is not None]
        hints_sent = self._hints(world.now, max(told) if told else None)
        refused = Answer(FailureKind.RATE_LIMITED, self.proxy.hand_on(world.now, hints_sent, refused=True))
        world.at(world.now + self.refusal_s, lambda: answer(refused))

    def _hints(self, now: float, wait: float | None) -> ServerHints:
        shown = {r.unit: r for limit in self.limits if (r := limit.reading(now)) is not None}
        if not shown:
            return ServerHints(retry_after_s=wait) if wait is not None else NO_HINTS
        requests, tokens = shown.get("requests"), shown.get("tokens")
        return ServerHints(
            limit_requests=requests.limit if requests else None,
            remaining_requests=requests.remaining if requests else None,
            reset_requests_s=requests.reset_s if requests else None,
            limit_tokens=tokens.limit if tokens else None,
            remaining_tokens=tokens.remaining if tokens else None,
            reset_tokens_s=tokens.reset_s if tokens else None,
            retry_after_s=wait,
        )

    def capacity(self, mean_tokens: float, trip_s: float, service_s: float) -> Steps:
        """Return requests a second that the backend serves to a client that keeps every cap just full."""
        caps = [limit.cap for limit in self.limits if isinstance(limit, InFlightCap)]
        bound = min(caps) / (service_s + trip_s) if caps else math.inf
        return tuple((since, min(rate, bound)) for since, rate in self.backend.capacity(mean_tokens))
