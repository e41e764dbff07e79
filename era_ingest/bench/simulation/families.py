"""The rows of the table: families of servers whose parameters are drawn, and the bar that each must hold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from era_ingest.bench.simulation.bars import Bar, Family
from era_ingest.bench.simulation.client import Machine
from era_ingest.bench.simulation.limits import (
    HONEST,
    FixedWindow,
    InFlightCap,
    Limit,
    RetryAfter,
    TokenBucket,
    Unit,
)
from era_ingest.bench.simulation.scenario import Scenario, Tokens
from era_ingest.bench.simulation.servers import Batching, Hangs, Outage, Server, Service, Workers
from era_ingest.core.limiter.contract import FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

WINDOWS = 0.4
"""Share of quotas with headers that are windows rather than buckets."""
PLENTY = 100_000
"""Workers that no client fills."""


def between(rng: Random, low: float, high: float) -> float:
    """Return a value whose logarithm is uniform."""
    return low * math.exp(rng.random() * math.log(high / low))


def draw_machine(rng: Random) -> Machine:
    """Return a client whose network takes 0.5 to 20 ms there and back."""
    return Machine(trip_s=between(rng, 0.0005, 0.02))


def _workers(rng: Random, *, per_s: tuple[float, float] = (40, 200)) -> tuple[int, Service]:
    """Draw a number of workers and a service time with so many requests a second."""
    mean = between(rng, 0.05, 0.8)
    count = max(6, round(between(rng, *per_s) * mean))
    return count, Service(mean, rng.uniform(0.03, 0.3))


def many_workers(rng: Random) -> Scenario:
    """Return a plain pool of workers."""
    count, service = _workers(rng)
    return Scenario(
        "workers",
        lambda r: Server(Workers(((0.0, count),), service, r)),
        service,
        machine=draw_machine(rng),
        duration_s=200,
    )


def changing_workers(rng: Random) -> Scenario:
    """Return a pool that doubles and later shrinks to half of what it was."""
    count, service = _workers(rng, per_s=(30, 120))
    steps = ((0.0, count), (80.0, 2 * count), (160.0, max(3, count // 2)))
    return Scenario(
        "workers change",
        lambda r: Server(Workers(steps, service, r)),
        service,
        machine=draw_machine(rng),
        duration_s=240,
        changes=(80.0, 160.0),
    )


def one_worker(rng: Random) -> Scenario:
    """Return Ollama's default: one request at a time."""
    service = Service(between(rng, 0.05, 2.5), rng.uniform(0.02, 0.2))
    return Scenario(
        "one", lambda r: Server(Workers(((0.0, 1),), service, r)), service, machine=draw_machine(rng)
    )


def gpu(rng: Random) -> Scenario:
    """Return a GPU that takes whatever waits as one batch."""
    base, most = between(rng, 0.02, 0.08), rng.choice((16, 24, 32))
    each = base / rng.uniform(7, 13)
    return Scenario(
        "gpu",
        lambda _: Server(Batching(base, each, most)),
        Service(base + each, 0.0),
        machine=draw_machine(rng),
        duration_s=120,
    )


def fast_local(rng: Random) -> Scenario:
    """Return a server beside us that answers within 5 ms."""
    count, service = rng.randint(1, 6), Service(0.005, rng.uniform(0.02, 0.2))
    return Scenario(
        "local",
        lambda r: Server(Workers(((0.0, count),), service, r)),
        service,
        machine=Machine(trip_s=0.0002, timer_late_s=0.001),
        duration_s=60,
    )


def slow_wide(rng: Random) -> Scenario:
    """Return a server that takes seconds and serves hundreds at once."""
    count, service = round(between(rng, 120, 420)), Service(between(rng, 2.0, 3.0), rng.uniform(0.03, 0.25))
    return Scenario(
        "slow wide",
        lambda r: Server(Workers(((0.0, count),), service, r)),
        service,
        machine=draw_machine(rng),
        changes=(0.0,),
    )


def slow_limited(rng: Random) -> Scenario:
    """Return a server that takes seconds, takes any number, and refuses above a rate."""
    service = Service(between(rng, 2.0, 3.0), rng.uniform(0.03, 0.25))
    rate = between(rng, 30, 80)
    burst = rate * rng.uniform(0.5, 4)
    hint = rng.choice(HONEST)

    def build(r: Random) -> Server:
        return Server(Workers(((0.0, PLENTY),), service, r), (TokenBucket(((0.0, rate),), burst, hint=hint),))

    return Scenario("slow limited", build, service, machine=draw_machine(rng), changes=(0.0,))


def _behind_limit(
    rng: Random, name: str, make: Callable[[], Limit], *, clients: int = 1, spread: float = 0.0
) -> Scenario:
    service = Service(between(rng, 0.05, 0.6), rng.uniform(0.03, 0.3))

    def build(r: Random) -> Server:
        return Server(Workers(((0.0, PLENTY),), service, r), (make(),))

    return Scenario(
        name, build, service, machine=draw_machine(rng), clients=clients, tokens=Tokens(500.0, spread)
    )


def with_headers(clients: int) -> Callable[[Random], Scenario]:
    """Return a drawer of quotas that show headers: requests or tokens, bucket or window."""

    def draw(rng: Random) -> Scenario:
        unit: Unit = rng.choice(("requests", "tokens"))
        per = 500.0 if unit == "tokens" else 1.0
        spread = rng.choice((0.0, 0.5))
        if rng.random() < WINDOWS:
            limit, phase = between(rng, 600, 4000) * per, rng.uniform(0, 60)
            return _behind_limit(
                rng,
                f"window {unit}",
                lambda: FixedWindow(limit, 60.0, phase, unit, RetryAfter.SECONDS, headers=True),
                clients=clients,
                spread=spread,
            )
        rate = between(rng, 10, 60)
        burst = rate * rng.choice((60.0,) if clients > 1 else (2.0, 10.0, 60.0))
        return _behind_limit(
            rng,
            f"bucket {unit}",
            lambda: TokenBucket(((0.0, rate * per),), burst * per, unit, RetryAfter.SECONDS, headers=True),
            clients=clients,
            spread=spread,
        )

    return draw


def bucket(
    *, clients: int = 1, punishing: bool = False, rates: tuple[float, float] = (8, 60)
) -> Callable[[Random], Scenario]:
    """Return a drawer of buckets without headers, with or without Retry-After."""

    def draw(rng: Random) -> Scenario:
        unit: Unit = "requests" if punishing else rng.choice(("requests", "requests", "tokens"))
        per = 500.0 if unit == "tokens" else 1.0
        rate = between(rng, *rates)
        burst = max(3.0, rate * between(rng, 0.3, 5))
        hint = rng.choice(HONEST)
        return _behind_limit(
            rng,
            f"{unit} {hint}",
            lambda: TokenBucket(((0.0, rate * per),), burst * per, unit, hint, punishing=punishing),
            clients=clients,
            spread=rng.choice((0.0, 0.5)),
        )

    return draw


def sharing(clients: int) -> Callable[[Random], Scenario]:
    """Return a drawer of the same buckets for clients that share their limit through a database."""
    alone = bucket(clients=clients, rates=(16, 60))

    def draw(rng: Random) -> Scenario:
        return replace(alone(rng), database_s=between(rng, 0.001, 0.03))

    return draw


def fixed_window(hint: RetryAfter) -> Callable[[Random], Scenario]:
    """Return a drawer of fixed windows without headers."""

    def draw(rng: Random) -> Scenario:
        limit, phase = round(between(rng, 300, 2000)), rng.uniform(0, 60)
        return _behind_limit(rng, "window", lambda: FixedWindow(limit, 60.0, phase, hint=hint))

    return draw


def hard_cap(hint: RetryAfter) -> Callable[[Random], Scenario]:
    """Return a drawer of servers that refuse above so many in flight."""

    def draw(rng: Random) -> Scenario:
        cap, service = round(between(rng, 8, 60)), Service(between(rng, 0.08, 0.5), rng.uniform(0.03, 0.2))

        def build(r: Random) -> Server:
            return Server(Workers(((0.0, PLENTY),), service, r), (InFlightCap(cap, hint),))

        return Scenario(
            "cap", build, service, machine=Machine(trip_s=between(rng, 0.0005, 0.005)), changes=(0.0,)
        )

    return draw


def changing_rate(rng: Random) -> Scenario:
    """Return a quota that halves and later triples, without headers."""
    rate = between(rng, 16, 60)
    steps = ((0.0, rate), (100.0, rate / 2), (200.0, rate * 1.5))
    burst = rate * between(rng, 0.3, 3)
    hint = rng.choice(HONEST)
    service = Service(between(rng, 0.05, 0.6), rng.uniform(0.03, 0.3))

    def build(r: Random) -> Server:
        return Server(Workers(((0.0, PLENTY),), service, r), (TokenBucket(steps, burst, hint=hint),))

    return Scenario("rate changes", build, service, machine=draw_machine(rng), changes=(100.0, 200.0))


def outage(rng: Random) -> Scenario:
    """Return a pool of workers that refuses, fails, or hangs into time-outs for 30 seconds."""
    count, service = _workers(rng)
    kinds = (FailureKind.CONNECTION, FailureKind.SERVER_ERROR, FailureKind.TIMEOUT)
    kind = rng.choice(kinds)
    start = rng.uniform(60, 120)
    after_s = rng.choice((5.0, 10.0)) if kind is FailureKind.TIMEOUT else 0.002

    def build(r: Random) -> Server:
        return Server(
            Workers(((0.0, count),), service, r), outages=(Outage(start, start + 30, kind, after_s),)
        )

    return Scenario(
        "outage", build, service, machine=draw_machine(rng), changes=(start + 30,), duration_s=240
    )


def heavy_tail(rng: Random) -> Scenario:
    """Return a pool of workers of which 2 % of the requests straggle."""
    count, plain = _workers(rng, per_s=(40, 150))
    service = Service(plain.mean_s, rng.uniform(0.3, 0.5), stragglers=0.02, straggle=rng.uniform(5, 15))
    return Scenario(
        "tail", lambda r: Server(Workers(((0.0, count),), service, r)), service, machine=draw_machine(rng)
    )


def hanging(rng: Random) -> Scenario:
    """Return a pool of workers that never answers one request in 30 to 300: only a time-out ends it."""
    count, service = _workers(rng, per_s=(20, 100))
    share = between(rng, 1 / 300, 1 / 30)

    def build(r: Random) -> Server:
        return Server(Workers(((0.0, count),), service, r), hangs=Hangs(share, r))

    return Scenario("hangs", build, service, machine=draw_machine(rng))


FAMILIES: tuple[Family, ...] = (
    Family("many workers", many_workers, Bar(0.97, 0.0, 1.5)),
    Family("many workers, changing", changing_workers, Bar(0.97, 0.0, 1.5, recovery_s=5)),
    Family("one worker", one_worker, Bar(0.98, 0.0, 3)),
    Family("GPU that batches", gpu, Bar(0.95, 0.0, 10)),
    Family("5 ms local", fast_local, Bar(0.99, 0.0, 2)),
    Family("2.5 s, wide", slow_wide, Bar(0.93, 0.005, recovery_s=20)),
    Family("2.5 s, limited", slow_limited, Bar(0.93, 0.005, recovery_s=20)),
    Family("quota with headers", with_headers(1), Bar(0.98, 0.0005)),
    Family("... 2 clients", with_headers(2), Bar(0.98, 0.0005, fairness=0.99)),
    Family("... 8 clients", with_headers(8), Bar(0.98, 0.0005, fairness=0.99)),
    Family("quota without headers", bucket(), Bar(0.98, 0.01, wasted_tokens=0.02)),
    Family("refusals counted too", bucket(punishing=True), Bar(0.97, 0.015)),
    Family("fixed window, Retry-After", fixed_window(RetryAfter.SECONDS), Bar(0.99, 0.015)),
    Family("fixed window, bare", fixed_window(RetryAfter.NONE), Bar(0.97, 0.03)),
    Family("hard cap, bare", hard_cap(RetryAfter.NONE), Bar(0.98, 0.001)),
    Family("hard cap, Retry-After", hard_cap(RetryAfter.SECONDS), Bar(0.95, 1.0, recovery_s=15)),
    Family("rate halves, triples", changing_rate, Bar(0.95, 0.01, recovery_s=15)),
    Family("outage of 30 s", outage, Bar(0.97, failed=0.003, probes_per_s=1, recovery_s=5)),
    Family("heavy tail", heavy_tail, Bar(0.95, 0.0, 1.25)),
    Family("some never answered", hanging, Bar(0.95, 0.0, 2)),
    Family("2 clients, no headers", bucket(clients=2, rates=(16, 60)), Bar(0.98, 0.01, fairness=0.90)),
    Family("2 clients, sharing", sharing(2), Bar(0.97, 0.01, fairness=0.95)),
    Family("8 clients, sharing", sharing(8), Bar(0.97, 0.01, fairness=0.95)),
    Family("8 clients, no headers", bucket(clients=8, rates=(16, 60)), Bar(0.98, 0.025, fairness=0.85)),
)

ALONE = tuple(family for family in FAMILIES if "clients" not in family.name)
"""Families of a single client, from which random servers are drawn."""
