"""One run: a server, clients, a length; and what is measured of it."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from era_ingest.bench.simulation.client import Client, Failed, Machine, Tally
from era_ingest.bench.simulation.desk import Desk
from era_ingest.bench.simulation.limits import FixedWindow, InFlightCap, SlidingWindow, Steps, TokenBucket
from era_ingest.bench.simulation.oracle import Knowledge
from era_ingest.bench.simulation.servers import Batching, Server, Service
from era_ingest.bench.simulation.world import World
from era_ingest.core.limiter.adaptive import AdaptiveLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.core.limiter.contract import Limiter

    MakeLimiter = Callable[[Random], Limiter]

TOGETHER_S = 0.05
"""Several clients start within this time, seconds."""
FULL_RATE = 0.9
"""Share of the oracle's rate that counts as recovered."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Sizes of requests: log-normal around ``mean`` tokens."""

    mean: float = 500.0
    spread: float = 0.0

    def draw(self, rng: Random) -> float:
        """Return one request's tokens, >= 1."""
        size = (
            self.mean * math.exp(rng.gauss(0.0, self.spread) - self.spread**2 / 2)
            if self.spread
            else self.mean
        )
        return max(1.0, size)


PLAIN_MACHINE = Machine()
PLAIN_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One server as one run meets it.

    Attributes:
        build: Makes the server anew from a generator.
        service: What one request takes on it when nothing waits.
        clients: Clients that know nothing of each other.
        duration_s: Length of the run, seconds.
        database_s: Time that a visit to the board in the database takes; None: the clients share none.
        changes: Instants after which a recovery is timed, seconds; 0 times the start.
    """

    name: str
    build: Callable[[Random], Server]
    service: Service
    clients: int = 1
    duration_s: float = 300.0
    machine: Machine = PLAIN_MACHINE
    tokens: Tokens = PLAIN_TOKENS
    changes: tuple[float, ...] = ()
    database_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to.

    Attributes:
        goodput: Share of what an all-knowing client gets from the scarcest of the server's means.
        refused: Share of requests answered 429.
        wasted_tokens: Share of tokens in requests answered 429.
        failed: Share of requests that failed otherwise though one had failed before them: those that were on
            their way when the first failure of an outage was heard are nobody's fault.
        p95: 95 % of requests took at most this multiple of the same server's unloaded 95 %.
        recovery_s: Longest time from a change to 90 % of the oracle's rate; 0 without changes.
        fairness: Jain's index over the clients.
        probes_per_s: Most requests sent in vain within any second, from one second after the first failure of
            an outage on.
    """

    goodput: float
    refused: float
    wasted_tokens: float
    failed: float
    p95: float
    recovery_s: float
    fairness: float
    probes_per_s: int
    requests: int

    def scaled(self, p95: float) -> Outcome:
        """Return the same outcome with its p95 times a factor."""
        return replace(self, p95=self.p95 * p95)


def run_oracle(scenario: Scenario, seed: int) -> Outcome:
    """Run the server that this seed draws under clients that know everything about it and each other."""
    return run_scenario(replace(scenario, database_s=None), None, seed)


def run_scenario(scenario: Scenario, make: MakeLimiter | None, seed: int) -> Outcome:
    """Run one scenario in virtual time; the same seed gives the same outcome to the digit.

    Args:
        scenario: What to run.
        make: Makes each client's controller; None: an oracle's.
        seed: Draws the server's and the clients' chances.
    """
    rng = Random(seed)
    world, server = World(), scenario.build(Random(rng.random()))
    if make is None:
        knowledge = Knowledge(scenario, server)
        make = lambda _: knowledge.admit()  # noqa: E731 - a limiter's maker like any other
    desk = None if scenario.database_s is None else Desk(world, scenario.database_s)
    clients = [_build_client(scenario, world, server, make, rng, desk) for _ in range(scenario.clients)]
    for client in clients:
        world.at(TOGETHER_S * rng.random() * (scenario.clients > 1), client.pump)
    world.run(scenario.duration_s)
    return measure(scenario, server, [client.tally for client in clients], Random(seed + 1))


def _build_client(
    scenario: Scenario, world: World, server: Server, make: MakeLimiter, rng: Random, desk: Desk | None
) -> Client:
    own = Random(rng.random())
    limiter = make(Random(rng.random()))
    if desk is not None and isinstance(limiter, AdaptiveLimiter):
        limiter = desk.admit(limiter, own)
    return Client(
        world, server, limiter, scenario.machine, draw_tokens=lambda: scenario.tokens.draw(own), rng=own
    )


def measure(scenario: Scenario, server: Server, tallies: list[Tally], rng: Random) -> Outcome:
    """Return what a run came to, in virtual or in real time.

    Args:
        scenario: What was run.
        server: A server of it, for what it could have done.
        tallies: What each client saw until the end of the run.
        rng: Draws the latencies of an unloaded server.
    """
    served = sorted((s for t in tallies for s in t.served), key=lambda s: s.at)
    sent = max(1, sum(t.sent for t in tallies))
    sent_tokens = max(1.0, sum(t.sent_tokens for t in tallies))
    base = _unloaded(scenario, server, rng)
    totals = [float(len(t.served)) for t in tallies]
    fairness = sum(totals) ** 2 / (len(totals) * sum(x * x for x in totals)) if any(totals) else 0.0
    failed = [f for t in tallies for f in t.failed]
    latencies = sorted(s.latency_s for s in served)
    oracle = Oracle(scenario, server, base.mean_s)
    moments = [s.at for s in served]
    return Outcome(
        goodput=oracle.share(len(served), sum(s.tokens for s in served)),
        refused=sum(t.refused for t in tallies) / sent,
        wasted_tokens=sum(t.refused_tokens for t in tallies) / sent_tokens,
        failed=len(_in_vain(server, failed, 0.0)) / sent,
        p95=latencies[int(0.95 * len(latencies))] / base.p95_s if latencies else math.inf,
        recovery_s=max((oracle.recovery(moments, change) for change in scenario.changes), default=0.0),
        fairness=fairness,
        probes_per_s=_probes(_in_vain(server, failed, 1.0)),
        requests=sent,
    )


@dataclass(frozen=True, slots=True)
class Unloaded:
    """Latency of a request that meets an idle server, seconds."""

    mean_s: float
    p95_s: float


def _unloaded(scenario: Scenario, server: Server, rng: Random) -> Unloaded:
    trip = scenario.machine.trip_s + scenario.machine.cpu_s
    if isinstance(server.backend, Batching):
        alone = server.backend.base_s + server.backend.each_s + trip
        return Unloaded(alone, alone)
    times = sorted(scenario.service.draw(rng, scenario.tokens.draw(rng)) + trip for _ in range(4000))
    return Unloaded(sum(times) / len(times), times[int(0.95 * len(times))])


@dataclass(frozen=True, slots=True)
class Oracle:
    """What a client that knows the server beforehand would get."""

    scenario: Scenario
    server: Server
    latency_s: float

    def share(self, served: int, tokens: float) -> float:
        """Return what was served over what the scarcest means allowed."""
        span = self.scenario.duration_s - self.latency_s
        down = sum(max(0.0, min(o.end, span) - o.start) for o in self.server.outages)
        shares = [served / _area(self._capacity(), 0.0, span, down)]
        for limit in self.server.limits:
            supply = limit.supply(span)
            if supply < math.inf:
                shares.append((tokens if limit.unit == "tokens" else served) / supply)
        return max(shares)

    def _capacity(self) -> Steps:
        mean_tokens = self.scenario.tokens.mean
        machine = self.scenario.machine
        own = 1 / machine.cpu_s * self.scenario.clients if machine.cpu_s else math.inf
        service_s = self.scenario.service.expected(mean_tokens)
        steps = self.server.capacity(mean_tokens, machine.trip_s + machine.cpu_s, service_s)
        return tuple((since, min(rate, own)) for since, rate in steps)

    def _rate(self, now: float) -> float:
        """Requests a second that are possible at ``now``."""
        rates = [_at(self._capacity(), now)]
        for limit in self.server.limits:
            per = self.scenario.tokens.mean if limit.unit == "tokens" else 1.0
            if isinstance(limit, TokenBucket):
                rates.append(_at(limit.rate, now) / per)
            elif isinstance(limit, FixedWindow | SlidingWindow):
                rates.append(limit.limit / limit.length / per)
            elif isinstance(limit, InFlightCap):
                continue
        return min(rates)

    def recovery(self, moments: list[float], change: float) -> float:
        """Return seconds from ``change`` until the following span runs at 90 % of what is possible."""
        rate = self._rate(change + 1e-6)
        span = max(2.0, 2 * self.latency_s, 30.0 / rate)
        start = change + self.latency_s
        step = 0.25
        at = start
        while at + span < self.scenario.duration_s:
            if _count(moments, at, at + span) >= FULL_RATE * rate * span:
                return at - start
            at += step
        return math.inf


def _count(moments: list[float], start: float, end: float) -> int:
    return bisect_left(moments, end) - bisect_left(moments, start)


def _at(steps: Steps, now: float) -> float:
    return [value for since, value in steps if since <= now][-1]


def _area(steps: Steps, start: float, end: float, down: float) -> float:
    edges = [*(since for since, _ in steps), end]
    total = sum(
        value * max(0.0, min(until, end) - max(since, start))
        for (since, value), until in zip(steps, edges[1:], strict=True)
    )
    return max(1.0, total * (1 - down / (end - start)))


def _in_vain(server: Server, failed: list[Failed], after_s: float) -> list[float]:
    """Return when requests were sent that failed though a failure had been heard ``after_s`` seconds before."""
    heard = [min((f.at for f in failed if f.at >= o.start), default=math.inf) for o in server.outages]
    ends = [o.end for o in server.outages]
    spans = list(zip(heard, ends, strict=True))
    return sorted(f.sent_at for f in failed if any(at + after_s < f.sent_at < end for at, end in spans))


def _probes(sent_at: list[float]) -> int:
    return max((_count(sent_at, at, at + 1) for at in sent_at), default=0)
