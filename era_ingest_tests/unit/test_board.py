"""The board that runs on one key share: who gets how much, what refusals teach, and what a row keeps."""

from __future__ import annotations

import json
import math
from random import Random

import pytest

from era_ingest.core.limiter import AdaptiveLimiter, FailureKind, ServerHints
from era_ingest.core.limiter.board import GONE_S, Board, Grant, Report
from era_ingest.core.limiter.common_rate import ENOUGH, HOLD, PAUSE_REQUESTS, CommonRate, Mark, Phase
from era_ingest.core.limiter.flight import Spend, Unit
from era_ingest.core.limiter.sharer import AGAIN_S, KEEP_S, Sharer

RATE = 20.0


def holding(rate: float = RATE) -> CommonRate:
    """Return a rate that was measured well."""
    mark = Mark(0.0, Spend(0.0, 0.0))
    return CommonRate(Phase.HOLD, rate=rate, measured=ENOUGH, anchor=mark, last=mark, before=rate)


def board_of(*names: str, now: float = 100.0, hungry: tuple[bool, ...] = ()) -> Board:
    """Return a board of runs that have all been here twice."""
    board = Board()
    for name in names:
        board.exchange(now - 0.4, name, Report())
    board.common = holding()
    for moment in (now - 0.2, now):
        for place, name in enumerate(names):
            wants = hungry[place] if hungry else True
            board.exchange(moment, name, Report(Spend(0.1, 0.1), is_hungry=wants))
    return board


def test_a_run_alone_is_on_its_own() -> None:
    """It gets no pace, and comes by rarely."""
    grant = Board().exchange(5.0, "a", Report(own_rate=7.0))
    assert grant.others == 0
    assert math.isinf(grant.pace)
    assert grant.asks_in_s >= 1.0


def test_hungry_runs_get_equal_shares_of_the_whole_pace() -> None:
    """And no more than that together."""
    board = board_of("a", "b", "c", "d")
    shares = [board.exchange(100.1, name, Report()).pace for name in "abcd"]
    assert shares == pytest.approx([HOLD * RATE / 4] * 4)


def test_what_one_leaves_goes_to_the_others() -> None:
    """A run that used little gets a little more than that; the rest is divided."""
    board = board_of("a", "b", "c", hungry=(True, True, False))
    shares = {name: board.exchange(100.1, name, Report(is_hungry=name != "c")).pace for name in "abc"}
    assert shares["c"] < 2.0
    assert shares["a"] == pytest.approx(shares["b"])
    assert sum(shares.values()) == pytest.approx(HOLD * RATE, rel=0.1)


def test_a_newcomer_waits_until_all_others_know_of_it() -> None:
    """Else the shares would add up to more than the pace for a while."""
    board = board_of("a", "b")
    grant = board.exchange(100.1, "new", Report())
    assert grant.starts_s == pytest.approx(0.4)
    assert board.exchange(100.2, "a", Report()).pace == pytest.approx(HOLD * RATE / 3)


def test_who_does_not_come_back_is_forgotten() -> None:
    """A run that was killed holds its share for some seconds, and no lock."""
    board = board_of("a", "dead")
    board.exchange(100.0 + GONE_S - 0.5, "a", Report())
    assert len(board.members) == 2
    assert board.exchange(100.0 + GONE_S + 0.1, "a", Report(own_rate=3.0)).others == 0


def test_who_leaves_is_gone_at_once() -> None:
    """Its share is the others'."""
    board = board_of("a", "b", "c")
    board.leave("c")
    assert board.exchange(100.1, "a", Report()).pace == pytest.approx(HOLD * RATE / 2)


def test_between_two_refusals_the_limit_is_measured() -> None:
    """Whatever each of the runs sent of it."""
    common = holding(21.0)
    common.on_refused(10.0, Mark(10.0, Spend(200.0, 200.0)), None)
    assert common.rate == pytest.approx(20.0)
    assert common.phase is Phase.HOLD
    assert common.silent_until == pytest.approx(10.0 + PAUSE_REQUESTS / 21.0)


def test_refusals_of_one_volley_count_as_one() -> None:
    """Those that were on their way when the first was heard teach nothing."""
    common = holding(20.0)
    common.on_refused(10.0, Mark(10.0, Spend(200.0, 200.0)), None)
    known = (common.rate, common.last)
    common.on_refused(10.3, Mark(10.2, Spend(200.0, 200.0)), None)
    assert (common.rate, common.last) == known


def test_a_board_survives_json() -> None:
    """To the digit: the next run goes on where the last one stopped."""
    board = board_of("a", "b")
    board.exchange(101.0, "a", Report(Spend(8.0, 900.0), refusals=(0.1,), retry_after_s=2.0))
    again = Board.from_dict(json.loads(json.dumps(board.as_dict())))
    assert again == board
    assert isinstance(again.common.unit, Unit)
    assert again.exchange(101.2, "b", Report()) == board.exchange(101.2, "b", Report())


@pytest.mark.parametrize("found", [{}, {"members": 3}, {"members": {}, "accepted": [], "common": {"x": 1}}])
def test_a_row_of_another_version_is_an_empty_board(found: dict[str, object]) -> None:
    """It is worth a few seconds of learning, no more."""
    assert Board.from_dict(found) == Board()


# ---- the run's side


def sharer(pace: float = 5.0, *, others: int = 1) -> Sharer:
    """Return a controller that was refused once, and got a share at 10 s."""
    one = Sharer(AdaptiveLimiter(uniform=Random(1).random), uniform=Random(2).random)
    one.on_failure(9.0, one.on_send(8.9, 1.0), FailureKind.RATE_LIMITED)
    one.report(9.0)
    one.apply(10.0, Grant(others, pace, Unit.REQUESTS, 0.0, 0.5))
    return one


def sent_within(one: Sharer, start: float, end: float) -> int:
    """Send whenever the gate lets; each request is answered after 20 ms."""
    now, count, back = start, 0, list[tuple[float, int]]()
    while now < end:
        while back and back[0][0] <= now:
            one.on_success(now, back.pop(0)[1])
        if one.gate(now, 1.0) <= 0:
            back.append((now + 0.02, one.on_send(now, 1.0)))
            count += 1
        now += 0.005
    return count


def test_nothing_is_asked_without_a_refusal() -> None:
    """Nor after one that comes with headers: they tell everybody the same."""
    one = Sharer(AdaptiveLimiter(uniform=Random(1).random), uniform=Random(2).random)
    one.on_success(0.2, one.on_send(0.1, 1.0))
    hints = ServerHints(limit_requests=10, remaining_requests=0, reset_requests_s=6)
    one.on_failure(0.4, one.on_send(0.3, 1.0), FailureKind.RATE_LIMITED, hints=hints)
    assert math.isinf(one.ask_at)
    one.on_failure(0.6, one.on_send(0.5, 1.0), FailureKind.RATE_LIMITED)
    assert one.ask_at == 0.6


def test_the_share_is_the_pace() -> None:
    """Neither more nor less than the board gave."""
    one = sharer(pace=5.0)
    assert sent_within(one, 10.0, 14.0) == pytest.approx(20, abs=1)
    assert one.state(14.0).rate_per_s == pytest.approx(5.0)


def test_a_report_tells_what_was_let_in_and_what_was_not() -> None:
    """And that more would have been sent."""
    one = sharer(pace=5.0)
    one.on_send(11.0, 7.0)
    one.on_failure(11.3, one.on_send(11.2, 7.0), FailureKind.RATE_LIMITED, hints=ServerHints(retry_after_s=2))
    assert one.gate(11.3, 1.0) > 0
    report = one.report(11.5)
    assert report.accepted == Spend(1.0, 7.0)
    assert report.refusals == pytest.approx((0.3,))
    assert report.retry_after_s == 2
    assert report.is_hungry


def test_a_run_that_waits_for_its_turn_stays_hungry() -> None:
    """Also if it slept through all the time since it last came by (found in simulation: shares shrank)."""
    one = sharer(pace=0.5)
    one.on_send(10.0, 1.0)
    assert one.gate(10.0, 1.0) > 1.0
    one.report(10.1)
    one.apply(10.11, Grant(1, 0.5, Unit.REQUESTS, 0.0, 0.5))
    assert one.report(10.6).is_hungry


def test_without_the_board_it_goes_on_alone_from_its_share() -> None:
    """Some seconds later, and the board is tried again."""
    one = sharer(pace=5.0)
    one.report(10.5)
    one.miss(10.6)
    assert one.ask_at == 10.6 + AGAIN_S
    assert one.is_sharing
    one.gate(10.0 + KEEP_S + 0.1, 1.0)
    assert not one.is_sharing
    assert one.inner.refusals.rate.estimate == 5.0


def test_when_the_others_are_gone_it_goes_on_alone() -> None:
    """From the pace that it had."""
    one = sharer(pace=5.0)
    one.report(10.5)
    one.apply(10.6, Grant(0, math.inf, Unit.REQUESTS, 0.0, 1.0))
    assert not one.is_sharing
    assert one.inner.refusals.rate.estimate == 5.0
