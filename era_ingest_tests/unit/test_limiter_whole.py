"""The controllers whole, against plain servers in virtual time."""

from __future__ import annotations

import math
from random import Random

import pytest

from era_ingest.bench.simulation.client import Machine
from era_ingest.bench.simulation.families import heavy_tail
from era_ingest.bench.simulation.scenario import Outcome, Scenario, run_scenario
from era_ingest.bench.simulation.servers import Server, Service, Workers
from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.aimd import Aimd
from era_ingest.core.limiter.contract import FailureKind, Limiter, ServerHints
from era_ingest.core.limiter.counting import CountingLimiter
from era_ingest.core.limiter.latency_rule import LatencyRule, LatencyRuleParameters
from era_ingest.core.limiter.level import Bounds
from era_ingest_tests.unit.limiter_kit import Loop, refused_in, served_in


def adaptive() -> AdaptiveLimiter:
    """Return the controller with a seed."""
    return AdaptiveLimiter(uniform=Random(1).random)


def test_it_starts_gently() -> None:
    """Four requests, then it waits for the first answers."""
    loop = Loop(adaptive(), lambda _now, _load: served_in(1.0))
    loop.run(0.99)
    assert len(loop.sent) == 4


def test_it_fills_a_wide_slow_server_within_20_seconds() -> None:
    """2.5 s of latency and room for all: the bound is reached."""
    loop = Loop(adaptive(), lambda _now, _load: served_in(2.5))
    loop.run(20.0)
    assert loop.most_in_flight == Bounds().most


def test_bounds_are_kept() -> None:
    """A preset's bound holds whatever the server could do."""
    limiter = AdaptiveLimiter(uniform=Random(1).random, bounds=Bounds(start=4, least=2, most=16))
    loop = Loop(limiter, lambda _now, _load: served_in(0.5))
    loop.run(20.0)
    assert loop.most_in_flight == 16


def test_it_stays_below_a_cap() -> None:
    """Room for 10: few refusals, and full use."""
    loop = Loop(adaptive(), lambda _now, load: served_in(0.2) if load <= 10 else refused_in(0.005))
    loop.run(60.0)
    assert len(loop.refused) < 10
    assert len(loop.served) > 0.97 * 60 * 10 / 0.2


def test_retry_after_is_obeyed() -> None:
    """Nothing goes until the time the server named, on the first refusal."""
    refusals = iter([True])
    loop = Loop(
        adaptive(),
        lambda now, _load: refused_in(0.01, 5.0) if now > 1 and next(refusals, False) else served_in(0.1),
    )
    loop.run(8.0)
    first = loop.refused[0]
    assert not [at for at in loop.sent if first < at < first + 4.99]
    assert [at for at in loop.sent if at > first + 5]


def test_a_429_never_opens_the_breaker() -> None:
    """However many there are."""
    limiter = adaptive()
    loop = Loop(limiter, lambda _now, _load: refused_in(0.01))
    loop.run(30.0)
    assert not limiter.breaker.is_open
    assert len(loop.sent) < 60


def test_an_outage_costs_few_requests() -> None:
    """Down for 30 s: at most one probe a second, and back to what it was."""

    def serve(now: float, _load: int) -> tuple[float, FailureKind | None, ServerHints]:
        return (0.01, FailureKind.CONNECTION, ServerHints()) if 20 <= now < 50 else served_in(0.2)

    loop = Loop(adaptive(), serve)
    loop.run(60.0)
    assert len([at for at in loop.sent if 21 <= at < 50]) <= 29
    assert len([at for at in loop.served if 55 <= at < 60]) > 0.9 * len(
        [at for at in loop.served if 15 <= at < 20]
    )


def test_a_server_that_hangs_is_used_again_soon_after_it_is_back() -> None:
    """Down for 30 s, each request a time-out of 10 s: probes do not wait for those that hang."""

    def serve(now: float, _load: int) -> tuple[float, FailureKind | None, ServerHints]:
        return (10.0, FailureKind.TIMEOUT, ServerHints()) if 20 <= now < 50 else served_in(0.2)

    loop = Loop(adaptive(), serve)
    loop.run(60.0)
    assert len([at for at in loop.sent if 31 <= at < 50]) <= 19
    assert len([at for at in loop.served if 55 <= at < 60]) > 0.9 * len(
        [at for at in loop.served if 15 <= at < 20]
    )


def test_what_hung_while_the_server_was_down_is_no_load_and_no_news() -> None:
    """They take nobody's place once a newer request is answered, nor do they open the breaker again."""
    limiter = AdaptiveLimiter(uniform=Random(1).random, bounds=Bounds(start=8))
    hung = [limiter.on_send(0.0, 1.0) for _ in range(8)]
    for ticket in hung[:5]:
        limiter.on_failure(30.0, ticket, FailureKind.TIMEOUT)
    assert limiter.breaker.is_open
    assert limiter.gate(30.0, 1.0) == 0.0
    limiter.on_success(30.1, limiter.on_send(30.0, 1.0))
    assert not limiter.breaker.is_open
    new = 0
    while limiter.gate(30.1, 1.0) <= 0:
        limiter.on_send(30.1, 1.0)
        new += 1
    assert new >= 4  # half of the level before; the rest follows within a moment
    for ticket in hung[5:]:
        limiter.on_failure(31.0, ticket, FailureKind.TIMEOUT)
    assert not limiter.breaker.is_open


def test_the_state_says_what_holds() -> None:
    """For progress lines."""
    limiter = adaptive()
    for _ in range(4):
        assert limiter.gate(0.0, 1.0) == 0
        limiter.on_send(0.0, 1.0)
    assert limiter.gate(0.0, 1.0) == math.inf
    state = limiter.state(0.0)
    assert state.held_by == "pipe"
    assert state.in_flight == 4
    assert state.rate_per_s is None


def test_a_cancelled_request_makes_room() -> None:
    """Its outcome is never known."""
    limiter = adaptive()
    tickets = [limiter.on_send(0.0, 1.0) for _ in range(4)]
    limiter.on_cancel(0.1, tickets[0])
    assert limiter.gate(0.1, 1.0) == 0
    assert limiter.state(0.1).in_flight == 3


def test_the_latency_rule_follows_its_numbers() -> None:
    """+2 when fast, x0.9 when slow, x0.7 at the third refusal."""
    rule = LatencyRule()

    def reply(latency_s: float, times: int) -> None:
        for _ in range(times):
            rule.on_success(latency_s, rule.on_send(0.0, 1.0))

    reply(0.3, 20)
    assert rule.limit == 12
    reply(0.9, 20)
    assert rule.limit == 12
    reply(1.5, 20)
    assert rule.limit == pytest.approx(10.8)
    for _ in range(3):
        rule.on_failure(2.0, rule.on_send(1.9, 1.0), FailureKind.RATE_LIMITED)
    assert rule.limit == pytest.approx(7.56)
    reply(0.1, 20 * 40)
    assert rule.limit == LatencyRuleParameters().most


def test_aimd_halves_once_a_round_trip() -> None:
    """Refusals of what was sent before the cut are the same event."""
    aimd = Aimd(start=16)
    tickets = [aimd.on_send(0.0, 1.0) for _ in range(3)]
    for ticket in tickets:
        aimd.on_failure(0.1, ticket, FailureKind.RATE_LIMITED)
    assert aimd.limit == 8


@pytest.mark.parametrize(
    "limiter", [CountingLimiter(start=3, least=1, most=3, name="fixed"), Aimd(), LatencyRule()]
)
def test_simple_limiters_count_and_obey(limiter: Limiter) -> None:
    """Places, and Retry-After."""
    tickets = []
    while limiter.gate(0.0, 1.0) == 0:
        tickets.append(limiter.on_send(0.0, 1.0))
    assert limiter.state(0.0).in_flight == len(tickets)
    limiter.on_failure(1.0, tickets.pop(), FailureKind.RATE_LIMITED, hints=ServerHints(retry_after_s=3.0))
    limiter.on_cancel(1.0, tickets.pop())
    assert limiter.gate(1.0, 1.0) in {3.0, math.inf}
    while tickets:
        limiter.on_success(2.0, tickets.pop())
    assert limiter.gate(2.0, 1.0) == pytest.approx(2.0)


def test_a_false_start_at_the_least_level_is_corrected() -> None:
    """The opening happened to look like a lone worker's; the server is wide all the same."""
    early = iter([0.1, 0.2, 0.3, 0.4])
    loop = Loop(adaptive(), lambda _now, _load: served_in(next(early, 0.1)))
    loop.run(60.0)
    assert loop.most_in_flight > 50


def run_workers(*counts: int, service: Service, each_s: float, seed: int) -> Outcome:
    """Run the controller against so many workers, each number for ``each_s`` seconds."""
    steps = tuple((index * each_s, count) for index, count in enumerate(counts))
    scenario = Scenario(
        "workers",
        lambda rng: Server(Workers(steps, service, rng)),
        service,
        machine=Machine(trip_s=0.04 * service.mean_s),
        duration_s=each_s * len(counts),
        changes=tuple(since for since, _ in steps[1:]),
    )
    return run_scenario(scenario, lambda rng: AdaptiveLimiter(uniform=rng.random), seed)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_a_few_workers_are_all_busy_and_little_waits(workers: int, spread: float) -> None:
    """One more in flight than workers; the two workers were taken for one, and held at two."""
    outcome = run_workers(workers, service=Service(0.005, spread), each_s=30.0, seed=1018)
    assert outcome.goodput >= 0.985
    assert outcome.p95 <= 2


def test_a_lone_worker_is_never_sent_a_third_request_once_it_is_known() -> None:
    """Comparisons look down, to one in flight: a third would only wait."""
    free_at, loads = 0.0, []

    def serve(now: float, load: int) -> tuple[float, FailureKind | None, ServerHints]:
        nonlocal free_at
        loads.append((now, load))
        free_at = max(now, free_at) + 0.4
        return served_in(free_at - now)

    Loop(adaptive(), serve).run(200.0)
    assert max(load for at, load in loads if at > 5) == 2
    assert min(load for at, load in loads if at > 5) == 1


@pytest.mark.parametrize("seed", [1004, 1014, 1016])
def test_workers_that_become_a_quarter_are_not_left_with_a_queue(seed: int) -> None:
    """Twice as many and then a quarter: the level follows within one cut or two, not in steps of a fifth."""
    outcome = run_workers(40, 80, 20, service=Service(0.3, 0.1), each_s=60.0, seed=seed)
    assert outcome.p95 <= 1.5
    assert outcome.recovery_s <= 5
    assert outcome.goodput >= 0.97


def test_a_first_seat_that_noise_put_too_low_is_not_held_for_minutes() -> None:
    """28 workers were held at 7 for 140 s after one noisy comparison: goodput 0.64."""
    scenario = heavy_tail(Random("heavy tail112"))
    outcome = run_scenario(scenario, lambda rng: AdaptiveLimiter(uniform=rng.random), 112)
    assert outcome.goodput >= 0.9
