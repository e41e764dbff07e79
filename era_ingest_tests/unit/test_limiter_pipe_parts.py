"""The pipe's parts and the breaker, each alone: what it concludes from what it is told."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.limiter.arm import Arm, Finding
from era_ingest.core.limiter.breaker import Breaker
from era_ingest.core.limiter.glide import Glide
from era_ingest.core.limiter.level import Bounds, Mode
from era_ingest.core.limiter.opening import Opening
from era_ingest.core.limiter.pipe import Pipe
from era_ingest.core.limiter.ramp import Ramp
from era_ingest.core.limiter.seat import HIGH, LOW, SEAT, Seat
from era_ingest.core.limiter.watch import Watch
from era_ingest_tests.unit.limiter_kit import flight, half

if TYPE_CHECKING:
    from collections.abc import Callable


def test_an_arm_does_not_wait_for_stragglers() -> None:
    """Three quarters back, the rest older than 1.6 times these: final; in a hurry, older than they."""
    arm, hurried = Arm(8, floor=1, patience_s=10), Arm(8, floor=1, patience_s=10, hurried=True)
    for each in [flight(0.0, load=4) for _ in range(8)]:
        hurried.add(each)
        if hurried.sent < 8:
            hurried.note(each, 0.2)
    assert hurried.finding(0.1) is None
    early = hurried.finding(0.21)
    assert early is not None
    assert early.latency_s == pytest.approx((7 * 0.2 + 0.24) / 8)
    flights = [flight(0.0, load=4) for _ in range(8)]
    for each in flights:
        arm.add(each)
    for each in flights[:7]:
        arm.note(each, 0.2)
    assert arm.finding(0.1) is None
    assert arm.finding(0.3) is None
    found = arm.finding(0.33)
    assert found is not None
    assert found.latency_s == pytest.approx((7 * 0.2 + 0.32) / 8)
    assert found.load == pytest.approx(4)


def opened(latencies: list[float]) -> Opening:
    """Return an opening of four whose answers come in the order of their latencies."""
    opening = Opening(4)
    flights = [flight(0.0, load=load) for load in (1, 2, 3, 4)]
    for each in flights:
        assert opening.wait(0.0) == 0
        opening.on_send(each)
    assert opening.wait(0.0) == math.inf
    for latency, each in sorted(zip(latencies, flights, strict=True), key=lambda pair: pair[0]):
        opening.on_success(each, latency)
    assert opening.is_over(max(latencies))
    return opening


@pytest.mark.parametrize(
    ("latencies", "lone", "room"),
    [
        ([1, 2, 3, 4], True, False),
        ([1.2, 1.9, 3.1, 3.8], True, False),
        ([2, 2, 2, 2], False, True),
        ([1.5, 1.0, 1.7, 1.2], False, True),
        ([1, 1, 2, 2], False, False),
        ([1, 2.2, 2.2, 2.2], False, False),
        ([0.142, 0.25, 0.3, 0.39], False, False),
    ],
    ids=["lone worker", "lone, noisy", "wide", "wide, noisy", "two", "gpu", "in order by chance"],
)
def test_the_opening_tells_servers_apart(latencies: list[float], *, lone: bool, room: bool) -> None:
    """One by one: a lone worker. All within 1.8 times the first: room. Else something between."""
    opening = opened(latencies)
    assert opening.is_lone() is lone
    assert opening.has_room() is room


def test_a_straggler_does_not_hold_up_the_opening() -> None:
    """Patience ends a little after a lone worker would have answered; sooner if it is none."""
    opening = Opening(4)
    flights = [flight(0.0, load=load) for load in (1, 2, 3, 4)]
    for each in flights:
        opening.on_send(each)
    opening.on_success(flights[0], 1.0)
    assert opening.wait(1.0) == pytest.approx(4.0)
    for each in flights[1:3]:
        opening.on_success(each, 1.0)
    assert opening.wait(1.0) == pytest.approx(0.8)
    assert opening.is_over(1.9)


def test_a_straggler_does_not_distort_an_arm() -> None:
    """Ten times as late counts 1.6 times what three quarters stay below, whether it is back or not."""
    arm = Arm(20, floor=1, patience_s=10)
    flights = [flight(0.0, load=4) for _ in range(20)]
    for each in flights:
        arm.add(each)
    for each in flights[:19]:
        arm.note(each, 1.0)
    assert arm.finding(1.5) is None
    still_out = arm.finding(1.7)
    arm.note(flights[19], 10.0)
    assert still_out == arm.finding(10.0)
    assert still_out is not None
    assert still_out.latency_s == pytest.approx(1.03)


def test_a_full_arm_that_loses_a_request_does_not_wait_for_another() -> None:
    """An outage takes requests out of it: it must still come to an end."""
    arm = Arm(8, floor=1, patience_s=10)
    flights = [flight(0.0, load=4) for _ in range(8)]
    for each in flights:
        arm.add(each)
    arm.drop(flights[0])
    for each in flights[1:]:
        arm.note(each, 1.0)
    assert arm.finding(2.0) is not None


def finding(load: float, latency_s: float, *, spread: float = 0.02, size: int = 40) -> Finding:
    """Return what an arm found."""
    return Finding(load, latency_s, spread, size)


def pool(load: float, *, workers: int = 30, **kind: float) -> Finding:
    """Return what an arm finds on workers that take a second."""
    return finding(load, max(1.0, load / workers), spread=kind.get("spread", 0.02))


def gpu(load: float) -> Finding:
    """Return what an arm finds on a GPU of 32 at most, 9 + 1 a request, two batches under way."""
    return finding(load, 18 + load if load < 64 else load * 82 / 64)


def test_a_ramp_ends_at_the_knee_of_a_pool() -> None:
    """x4, x4, then a step that makes it 2.1 times as slow: 30 workers."""
    ramp = Ramp(pool(4), 4.0)
    assert ramp.next_factor(pool(16)) == 4
    assert ramp.next_factor(pool(64)) is None
    assert ramp.knee(pool(64)) == pytest.approx(30)


def test_a_ramp_goes_on_where_latency_only_bends() -> None:
    """A GPU's batches fill up: small steps, and a knee not far below two full batches."""
    ramp, load = Ramp(gpu(4), 2.0), 8.0
    while (factor := ramp.next_factor(gpu(load))) is not None:
        load *= factor
    assert 36 <= ramp.knee(gpu(load)) <= 70


def test_a_ramp_from_above_the_knee_returns_to_its_start() -> None:
    """Both arms only queue."""
    ramp = Ramp(pool(40), 1.5)
    assert ramp.next_factor(pool(60)) is None
    assert ramp.knee(pool(60)) == pytest.approx(40)


def settle(serve: Callable[[float], Finding], level: float) -> tuple[float, int]:
    """Compare until a step is final; return the level and how many comparisons that took."""
    seat = Seat()
    for count in range(1, 20):
        step = seat.learn(level, serve(LOW * level), serve(HIGH * level))
        level = step.level
        if step.is_final:
            return level, count
    pytest.fail("never final")


@pytest.mark.parametrize("start", [25, 30, 34, 40, 60])
def test_the_seat_of_a_pool_is_a_little_above_its_knee(start: float) -> None:
    """From either side."""
    level, count = settle(pool, start)
    assert level == pytest.approx(SEAT * 30, rel=0.03)
    assert count <= 6


@pytest.mark.parametrize("start", [30, 45, 90])
def test_the_seat_of_a_gpu_is_two_full_batches(start: float) -> None:
    """Where the third batch would make it slower and nothing more."""
    level, _ = settle(gpu, start)
    assert 58 <= level <= 72


def test_a_noisy_comparison_moves_a_known_seat_little() -> None:
    """What five comparisons said is not thrown away for a sixth."""
    seat, level = Seat(), SEAT * 30
    for _ in range(5):
        seat.learn(level, pool(LOW * level, spread=0.5), pool(HIGH * level, spread=0.5))
    off = finding(HIGH * level, 1.6, spread=0.5)
    step = seat.learn(level, pool(LOW * level, spread=0.5), off)
    assert 0.86 < step.level / level < 1


def test_a_level_far_below_the_knee_is_flat() -> None:
    """Ramp instead."""
    assert Seat().learn(10, pool(8), pool(11)).is_flat


def test_a_server_that_changed_between_the_arms_is_followed_at_once() -> None:
    """Four times fewer workers: no weight for what was known."""
    seat, level = Seat(), SEAT * 30
    for _ in range(5):
        seat.learn(level, pool(LOW * level), pool(HIGH * level))
    step = seat.learn(level, pool(LOW * level), pool(HIGH * level, workers=8))
    assert step.level < 0.35 * level


def test_two_in_flight_beside_one_tell_a_lone_worker_from_two() -> None:
    """Twice as slow, or as fast: the least level needs no look at three."""
    lone = Seat().learn(SEAT, finding(1, 1.0), finding(2, 2.0))
    assert not lone.is_flat
    assert lone.level <= SEAT
    assert Seat().learn(SEAT, finding(1, 1.0), finding(2, 1.04)).is_flat


def test_two_workers_are_told_from_one_and_three_by_an_arm_that_leaves_one_idle() -> None:
    """Three in flight beside one."""
    step = Seat().learn(2 * SEAT, finding(1, 1.04), finding(3, 1.5))
    assert not step.is_flat
    assert round(step.level / SEAT) == 2
    assert round(Seat().learn(2 * SEAT, finding(1, 1.04), finding(3, 3.0)).level / SEAT) == 1
    assert Seat().learn(2 * SEAT, finding(1, 1.04), finding(3, 1.04)).is_flat


def test_one_comparison_that_only_queues_does_not_throw_a_settled_seat_to_the_knee() -> None:
    """Noise looked like that, and the seat was then held where no latency could fall; a second one is believed."""
    seat, level = Seat(), SEAT * 30
    for _ in range(5):
        seat.learn(level, pool(LOW * level, spread=0.1), pool(HIGH * level, spread=0.1))
    queues = finding(LOW * level, 0.9, spread=0.1), finding(HIGH * level, 1.32, spread=0.1)
    once = seat.learn(level, *queues)
    assert 0.9 < once.level / level < 1
    assert not once.is_final
    assert seat.learn(once.level, *queues).level / once.level < once.level / level


@pytest.mark.parametrize("factor", [0.85, 1.3, 4.0])
def test_a_change_is_noticed_within_four_arms(factor: float) -> None:
    """Up and down."""
    watch = Watch()
    for _ in range(10):
        assert watch.change(finding(30, 1.0, spread=0.2)) is None
    changes = [watch.change(finding(30, factor, spread=0.2)) for _ in range(4)]
    noticed = next(change for change in changes if change is not None)
    assert noticed == pytest.approx(math.log(factor), abs=0.1)


def test_a_change_on_its_way_is_as_large_as_the_last_arm_says() -> None:
    """The first arm held requests from before it."""
    watch = Watch(1.0)
    changes = [watch.change(finding(30, latency_s)) for latency_s in (1.5, 4.0)]
    assert changes[-1] == pytest.approx(math.log(4.0))


def test_a_small_arm_of_noisy_latencies_does_not_end_a_ramp() -> None:
    """Five requests on a wide server with stragglers, 1.7 times as slow as the opening seemed: go on."""
    assert Ramp(finding(2.2, 0.46, spread=0.3, size=4), 2.0).next_factor(
        finding(6.3, 0.78, spread=0.3, size=5)
    )


def test_noise_is_no_change() -> None:
    """A thousand arms, at most a few alarms."""
    rng, watch, alarms = Random(1), Watch(), 0
    for _ in range(1000):
        if watch.change(finding(30, math.exp(rng.gauss(0, 0.05)), spread=0.3)) is not None:
            alarms, watch = alarms + 1, Watch()
    assert alarms <= 5


def test_a_predicted_base_notices_a_change_that_comes_with_the_first_arm() -> None:
    """A comparison says what the latency will be: no arm is needed to learn it."""
    watch = Watch(1.0)
    changes = [watch.change(finding(30, 1.6)) for _ in range(3)]
    assert any(change is not None for change in changes)


def test_a_glide_lets_one_after_the_other_go() -> None:
    """From 4 to 12 within a second; the wait is the time until the next may go."""
    glide = Glide()
    glide.begin(1.0, 4, 1.0)
    assert glide.level(1.0, 12) == 4
    assert glide.wait(1.0, 12, 4) == pytest.approx(1 / 8)
    assert glide.level(1.5, 12) == 8
    assert glide.wait(2.0, 12, 11) == 0
    assert glide.wait(2.0, 12, 12) == math.inf
    assert glide.level(1.0, 3) == 3


def test_the_pipe_glides_to_a_new_level_instead_of_jumping() -> None:
    """Room for two: four times as many, within half a second."""
    pipe = Pipe(half, Bounds(start=2))
    flights = [flight(0.0, load=load) for load in (1, 2)]
    for each in flights:
        assert pipe.wait(0.0, 0) == 0
        pipe.on_send(each)
    for each in flights:
        pipe.on_success(0.5, each)
    assert pipe.mode is Mode.RAMP
    assert pipe.target == 8
    assert pipe.level(0.5) == 2
    assert 0 < pipe.wait(0.5, 2) < 0.5
    assert pipe.level(1.1) == 8
    assert pipe.wait(1.1, 8) == math.inf


def test_the_pipe_obeys_a_ceiling() -> None:
    """Never more than a proven cap."""
    pipe = Pipe(half)
    pipe.obey_ceiling(0.0, 3)
    assert pipe.wait(0.0, 2) == 0
    assert pipe.wait(0.0, 3) == math.inf


def broken(sent_at: float = 0.0, now: float = 0.0) -> Breaker:
    """Return a breaker that five failures opened."""
    breaker = Breaker(half)
    opened = [breaker.on_failure(now, sent_at, retry_after_s=None) for _ in range(5)]
    assert opened == [False, False, False, False, True]
    return breaker


def test_the_breaker_opens_after_five_failures_and_closes_on_what_was_sent_since() -> None:
    """An answer to what was sent before the last failure says nothing about now."""
    breaker = broken()
    assert 1 <= breaker.wait(0.0) <= 1.2
    assert breaker.wait(2.0) == 0
    assert breaker.on_send(2.0)
    assert breaker.wait(2.0) > 1
    assert not breaker.on_answer(0.0)
    assert breaker.on_answer(2.0)
    assert breaker.wait(2.1) == 0


def test_a_failed_probe_waits_longer() -> None:
    """1, 1.5, 2.25, 2.5, 2.5 seconds, and a fifth more for jitter at most."""
    breaker, now, waits = broken(), 0.0, []
    for _ in range(5):
        waits.append(breaker.wait(now))
        now += waits[-1]
        breaker.on_send(now)
        breaker.on_failure(now, now, retry_after_s=None)
    assert waits == pytest.approx([1.1, 1.65, 2.475, 2.75, 2.75])


def test_a_probe_that_hangs_does_not_hold_up_the_next_one() -> None:
    """A server that hangs into time-outs is asked again every few seconds all the same."""
    breaker = broken(sent_at=0.0, now=10.0)
    assert breaker.wait(10.0) == 0, "failures of ten seconds ago: ask at once"
    breaker.on_send(10.0)
    assert 1 <= breaker.wait(10.0) <= 3
    breaker.on_send(12.5)
    breaker.on_failure(20.0, 10.0, retry_after_s=None)
    assert breaker.on_answer(12.5)


def test_a_probe_obeys_retry_after() -> None:
    """A 503 may say how long."""
    breaker = broken()
    breaker.on_send(2.0)
    breaker.on_failure(2.0, 2.0, retry_after_s=30.0)
    assert breaker.wait(2.0) == 30


def test_a_cancelled_probe_makes_room_for_another() -> None:
    """Its outcome will never be known."""
    breaker = broken()
    breaker.on_send(2.0)
    breaker.on_cancel(2.1, 2.0)
    assert breaker.wait(2.1) <= 1.1
