"""Requests that hang, and the small parts that pipe and rate are made of."""

from __future__ import annotations

import math
from random import Random

import pytest

from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.arm import Arm, Finding
from era_ingest.core.limiter.arms import Arms
from era_ingest.core.limiter.bucket import Bucket
from era_ingest.core.limiter.climb import Climb
from era_ingest.core.limiter.company import Company
from era_ingest.core.limiter.contract import FailureKind, ServerHints
from era_ingest.core.limiter.flight import Spend, Unit
from era_ingest.core.limiter.hold import Hold
from era_ingest.core.limiter.jump import Jump, share_left
from era_ingest.core.limiter.level import Bounds, Level, Mode
from era_ingest.core.limiter.sharing import Sharing
from era_ingest.core.limiter.sizing import Sizing
from era_ingest.core.limiter.spending import Epoch, Mark, Spending
from era_ingest.core.limiter.traffic import Traffic
from era_ingest_tests.unit.limiter_kit import Loop, flight, served_in


def test_what_newer_requests_overtake_by_far_hangs() -> None:
    """0.1 s each: what was sent a second before an answered request takes no place; its neighbour does."""
    traffic = Traffic()
    lost, answered, waiting = flight(0.0), flight(1.1), flight(1.0)
    for one in (lost, waiting, answered):
        traffic.start(one)
    assert traffic.land(answered.ticket) == (answered, False)
    assert traffic.answered(1.2, answered, 0.1) == [lost]
    assert (len(traffic), traffic.load) == (2, 1)
    assert traffic.land(lost.ticket) == (lost, True)
    assert traffic.land(waiting.ticket) == (waiting, False)


def test_a_silent_server_is_asked_ever_more_rarely() -> None:
    """All in flight may be lost, or the server is slow: one more after a second, two, four."""
    traffic = Traffic()
    assert traffic.question_in(100.0) == math.inf
    first = flight(0.0)
    traffic.start(first)
    traffic.land(first.ticket)
    traffic.answered(0.1, first, 0.1)
    traffic.start(flight(0.2))
    asked = []
    now = 0.2
    for _ in range(3):
        wait = traffic.question_in(now)
        asked.append(wait)
        now += wait + 1e-9
        traffic.start(flight(now))
    assert asked == pytest.approx([1.0, 2.0, 4.0], abs=1e-6)


def test_a_server_that_never_answers_some_requests_is_kept_busy() -> None:
    """One request in 25 is lost until its time-out of 60 s: once they had taken all places within a minute."""
    lottery = Random(5)

    def serve(_now: float, _load: int) -> tuple[float, FailureKind | None, ServerHints]:
        if lottery.random() < 0.04:
            return 60.0, FailureKind.TIMEOUT, ServerHints()
        return served_in(0.2)

    loop = Loop(AdaptiveLimiter(uniform=Random(1).random, bounds=Bounds(most=20)), serve)
    loop.run(100.0)
    per_s = [len([at for at in loop.served if since <= at < since + 10]) / 10 for since in range(20, 100, 10)]
    assert min(per_s) > 50  # 20 in flight of 0.2 s each would be 100


def test_a_hold_pays_for_what_its_comparison_lost_and_doubles_while_nothing_changes() -> None:
    """A second at half the throughput is worth 100 s; what confirms the level is repeated more rarely."""
    hold = Hold()
    assert hold.begin(0.1) == 15.0
    hold.begin_comparisons(10.0)
    hold.begin_comparison(0.0)
    hold.low_is_done(1.0)
    hold.high_is_done(2.0, 0.01, 0.5)
    hold.settle(10.0)
    assert hold.expected_s(0.1) == pytest.approx(100.0)
    assert hold.begin(0.1) == pytest.approx(200.0)
    hold.surprised()
    assert hold.begin(0.1) == pytest.approx(100.0)
    hold.forget()
    hold.high_is_done(3.0, 0.2, 0.0)
    assert hold.begin(0.1) == 15.0  # noise: no longer than a usual one


def test_noisy_latencies_call_for_larger_arms() -> None:
    """Four times the scatter, more requests; a low arm at two workers stays short."""
    quiet, noisy = Sizing(), Sizing()
    for _ in range(50):
        quiet.learn(Finding(10.0, 0.1, 0.1, 100))
        noisy.learn(Finding(10.0, 0.1, 0.4, 100))
    sizes = [one.comparison_arm(20, 20.0, 0.1, hold_s=15.0, is_low=False).size for one in (quiet, noisy)]
    assert sizes[0] < sizes[1] / 2
    low = noisy.comparison_arm(1, 3.0, 0.1, hold_s=15.0, is_low=True)
    assert low.size < sizes[1]
    assert quiet.cruise_arm(10, 10.0, 0.005).size == 500
    quiet.step(10.0, 20.0)
    assert quiet.ramp_arm(20, 0.1).floor == pytest.approx(12.0)


def test_a_level_leaves_a_worker_idle_below_and_keeps_its_bounds() -> None:
    """Two workers are sent three; the low arm one."""
    level = Level(Bounds(start=4, least=2, most=8))
    level.move_to(2.3)
    assert [level.goal(mode) for mode in (Mode.CRUISE, Mode.LOW, Mode.HIGH)] == [3, 1, 3]
    level.move_to(100.0)
    assert level.is_at_top
    assert level.goal(Mode.HIGH) == 8
    level.ceiling = 5.0
    assert level.goal(Mode.CRUISE) == 5


def test_full_arms_are_judged_in_order() -> None:
    """The second is full as well; the first one's last reply makes it speak."""
    arms = Arms()
    arms.begin(Arm(4, 1, math.inf))
    first = [flight(0.1 * n) for n in range(4)]
    assert [arms.add(one) for one in first] == [False, False, False, True]
    arms.follow(Arm(4, 1, math.inf))
    second = [flight(1.0 + 0.1 * n) for n in range(4)]
    for one in second:
        arms.add(one)
    assert all(arms.note(2.0, one, 0.3) is None for one in second)
    found = [arms.note(2.0, one, 0.1) for one in first]
    assert found[:3] == [None] * 3
    assert found[3] is not None
    assert found[3].latency_s == pytest.approx(0.1)
    arms.retire()
    later = arms.note(2.0, flight(1.9), 0.1)
    assert later is not None
    assert later.latency_s == pytest.approx(0.3)


def test_a_jump_of_a_queue_leaves_the_old_latency_normal() -> None:
    """Half the workers: half the level is fast again. Twice the work: it is not."""
    jump = Jump()
    assert jump.normal_s(0.1, Finding(10.0, 0.1, 0.1, 40)) == 0.1
    jump.happened(Finding(20.0, 0.2, 0.1, 40))
    assert jump.normal_s(0.115, Finding(10.0, 0.1, 0.1, 40)) == pytest.approx(0.1)
    assert jump.normal_s(0.115, Finding(10.0, 0.2, 0.1, 40)) is None
    jump.explain()
    assert jump.normal_s(0.115, Finding(10.0, 0.2, 0.1, 40)) == 0.115
    assert (share_left(2.0), share_left(9.0)) == (0.5, 0.25)


def test_a_bucket_refills_and_a_silence_that_may_have_filled_it_counts_apart() -> None:
    """10 a second: 20 after two seconds; a minute of silence proves nothing about the refill from above."""
    books = Spending()
    bucket = Bucket(books)
    assert bucket.level(5.0, 10.0, Unit.REQUESTS) == 0.0
    bucket.begin(bucket.stand(Mark(0.0, books.accepted)))
    bucket.on_send(0.1, 10.0, 1.0)
    assert bucket.level(2.0, 10.0, Unit.REQUESTS) == pytest.approx(20.0)
    bucket.deduct_above(2.0, 10.0, Unit.REQUESTS, 4.0)
    assert bucket.level(2.0, 10.0, Unit.REQUESTS) == pytest.approx(4.0)
    bucket.on_send(60.0, 10.0, 1.0)
    assert bucket.stand(Mark(60.0, books.accepted)).full_s == pytest.approx(59.7)


def test_company_is_found_only_when_no_fallen_limit_refuses_what_follows() -> None:
    """A refusal while holding is a vote after twelve requests without another; a surprise takes it back."""
    epoch = Epoch(10.0, Spend(50.0, 50.0))
    sharing = Sharing()
    company = Company(sharing)
    company.refused(1.0, 100.0, epoch, surprise=False, probing=False, holding=True)
    assert not company.is_found(2.0, 111.0)
    company.refused(2.0, 111.0, epoch, surprise=True, probing=False, holding=True)
    assert not company.is_found(3.0, 200.0)
    company.refused(4.0, 200.0, epoch, surprise=False, probing=False, holding=True)
    assert company.is_found(5.0, 212.0)


def test_a_climb_waits_for_refusals_to_be_heard_and_for_somebody_who_wants_more() -> None:
    """Two seconds of latency: a step a second; nobody held back: no step."""
    climb = Climb()
    assert not climb.is_due(100.0)
    climb.plan(0.0, latency_s=2.0, refusal_s=0.05, gap_s=0.01)
    assert not climb.is_due(0.9)
    assert climb.is_due(1.0)
    assert climb.factor(1.0) == 1.0
    climb.note_bound(0.5)
    assert climb.factor(1.0) == 1.25
