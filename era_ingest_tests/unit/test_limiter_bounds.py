"""What bounds a limit: brackets, units, and headers that do not explain a refusal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.limiter.bracket import Bounds, Bracket, Stand
from era_ingest.core.limiter.cap import Cap
from era_ingest.core.limiter.contract import NO_HINTS, ServerHints
from era_ingest.core.limiter.flight import Spend, Unit
from era_ingest.core.limiter.mirror import Mirror, Reading
from era_ingest.core.limiter.pacer import Pacer
from era_ingest.core.limiter.quota import Quota
from era_ingest.core.limiter.restraint import Restraint
from era_ingest.core.limiter.spending import Mark, Spending
from era_ingest.core.limiter.units import UnitChooser
from era_ingest.core.limiter.window import NotAWindowError, Window
from era_ingest_tests.unit.limiter_kit import flight, half

if TYPE_CHECKING:
    from collections.abc import Iterable


def test_two_refusals_bound_the_limit_from_both_sides() -> None:
    """20 let in during 2 s, give or take the one that was refused."""
    earlier = Stand(Mark(1.0, Spend(100.0, 0.0)), 0.0)
    bounds = Stand(Mark(3.0, Spend(120.0, 0.0)), 0.0).bounds(earlier, Unit.REQUESTS, 1.0)
    assert bounds == pytest.approx((9.5, 10.5))


def test_a_silence_that_may_have_filled_the_bucket_widens_only_the_upper_bound() -> None:
    """One of the two seconds may have been lost: between 9.5 and 21 a second."""
    earlier = Stand(Mark(1.0, Spend(100.0, 0.0)), 0.0)
    bounds = Stand(Mark(3.0, Spend(120.0, 0.0)), 1.0).bounds(earlier, Unit.REQUESTS, 1.0)
    assert bounds == pytest.approx((9.5, 21.0))


def test_a_search_goes_to_the_middle_of_wide_bounds_and_to_the_end_of_close_ones() -> None:
    """First the geometric mean, then the upper bound; contradicting bounds give way to the latest."""
    bracket = Bracket(4.0, 16.0)
    assert bracket.next_try() == pytest.approx(8.0)
    bracket.refused(Bounds(7.0, 8.0))
    assert bracket.next_try() == pytest.approx(8.0)
    assert not bracket.is_narrow
    bracket.passed(7.8)
    assert bracket.is_narrow
    bracket.refused(Bounds(3.0, 4.0))
    assert (bracket.low, bracket.high) == (3.0, 4.0)
    assert Bracket().next_try() == math.inf


def test_the_pacer_neither_bursts_nor_lags() -> None:
    """Ten a second: a tenth of a second each, and one request made up for after a pause."""
    pacer = Pacer()
    pacer.empty(0.0)
    assert pacer.wait(0.0, 1.0, 10.0, 1.5) == pytest.approx(0.1, abs=1e-5)
    assert pacer.wait(5.0, 1.0, 10.0, 1.5) == 0
    pacer.spend(5.0, 1.0, 10.0, 1.5)
    assert pacer.wait(5.0, 1.0, 10.0, 1.5) == pytest.approx(0.05, abs=1e-5)


def test_refusals_of_large_requests_speak_for_tokens() -> None:
    """A bucket of tokens refuses in proportion to size; small ones speak for requests again."""
    units, chosen = UnitChooser(), []
    for size, times in ((1.5, 4), (0.7, 8)):
        for _ in range(times):
            units.note_refused(size)
        assert units.decide()
        chosen.append(units.unit)
    assert chosen == [Unit.TOKENS, Unit.REQUESTS]


def shown(remaining: float) -> ServerHints:
    """Return headers of a request quota."""
    return ServerHints(limit_requests=100, remaining_requests=remaining, reset_requests_s=60)


@pytest.mark.parametrize(("remaining", "explains"), [(80.0, False), (1.0, True)])
def test_a_quota_with_much_left_does_not_explain_a_refusal(remaining: float, *, explains: bool) -> None:
    """The tokens may have run out, which these headers do not show."""
    quota = Quota(Unit.REQUESTS, half)
    quota.on_hints(1.0, flight(1.0), shown(remaining))
    assert quota.explains(1.0, None) is explains


def test_headers_that_only_refusals_carry_are_not_believed() -> None:
    """Three good replies without them, and what refusals say is no mirror any more."""
    quota = Quota(Unit.REQUESTS, half)
    quota.on_hints(1.0, flight(1.0), shown(0.0), refused=True)
    assert quota.is_known
    for at in (2.0, 3.0, 4.0):
        quota.on_hints(at, flight(at), NO_HINTS)
    assert not quota.is_known
    quota.on_hints(5.0, flight(5.0), shown(0.0), refused=True)
    assert not quota.is_known
    quota.on_hints(6.0, flight(6.0), shown(50.0))
    assert quota.is_known


def crowded_window() -> Quota:
    """Return a window's quota of which others used 40 for each of ours until 20 were left."""
    quota = Quota(Unit.REQUESTS, half)
    for second, remaining in ((1.0, 100.0), (2.0, 60.0), (3.0, 20.0)):
        sent = flight(second, before=Spend(second - 1, 0.0))
        quota.on_send(second, sent, 0.1)
        told = ServerHints(limit_requests=100, remaining_requests=remaining, reset_requests_s=60 - second)
        quota.on_hints(second, sent, told)
    return quota


def test_a_window_asks_for_what_only_a_guess_says_is_gone() -> None:
    """One more request, and others have had the rest: after a second of silence one request asks."""
    quota = crowded_window()
    assert quota.is_window
    quota.on_send(3.1, flight(3.1, before=Spend(3.0, 0.0)), 0.1)
    assert 0 < quota.wait(4.0, 1.0, 0.1) <= 0.11
    assert quota.wait(4.2, 1.0, 0.1) == 0


def test_a_window_in_company_is_left_alone_when_not_all_could_send() -> None:
    """Ten left for sixteen clients that read the same: nobody sends until the turn."""
    quota = crowded_window()
    sent = flight(4.0, before=Spend(3.0, 0.0))
    quota.on_send(4.0, sent, 0.1)
    told = ServerHints(limit_requests=100, remaining_requests=10, reset_requests_s=56)
    quota.on_hints(4.0, sent, told)
    assert quota.wait(30.0, 1.0, 0.1) == pytest.approx(30, abs=0.1)


def test_a_crowded_window_of_a_few_latencies_is_still_spent_by_what_is_left() -> None:
    """Its mean pace belongs to all: one client of twelve that took it for its own starved."""
    quota = crowded_window()
    for turn in range(4):
        for second, remaining in ((1.0, 100.0), (2.0, 60.0), (3.0, 20.0)):
            now = 60.0 * (turn + 1) + second
            sent = flight(now, before=Spend(3.0 * (turn + 1) + second - 1, 0.0))
            quota.on_send(now, sent, 10.0)
            told = ServerHints(limit_requests=100, remaining_requests=remaining, reset_requests_s=60 - second)
            quota.on_hints(now, sent, told)
    assert quota.is_window
    assert quota.pace(243.5, 10.0) < 1.0
    quota.on_refused(243.5)
    assert quota.explains(243.5, 10.0)


def test_a_mirror_sees_how_many_share_it() -> None:
    """Three others send as much as we: each of ours stands for four, and silence for four silences."""
    mirror = Mirror()
    for second in range(60):
        mirror.on_send(10.0 * second, 1.0)
        mirror.read(Reading(float(second), 500.0, second + 12.5, 10.0 * second), 1000.0)
    assert mirror.refill == pytest.approx(40)
    assert mirror.company == pytest.approx(4, rel=0.02)
    assert mirror.level(60.0) == pytest.approx(540)
    mirror.on_send(600.0, 1.0)
    assert mirror.level(60.0) == pytest.approx(500, rel=0.01)


def test_refusals_below_a_cap_soon_refute_it() -> None:
    """With a Retry-After each costs seconds: the second one that the wire does not explain decides."""
    cap = Cap()
    cap.refusal_s = 0.005
    cap.suspect(0.0, 16, test=False)
    assert cap.on_refused(2.0, flight(1.9, load=15))
    assert not cap.on_refused(4.0, flight(3.9, load=14))


def test_a_bare_refusal_far_below_the_limit_is_no_window() -> None:
    """A sliding window lets in again long before the turn that a fixed one would have."""
    window = Window(
        0.0,
        ends_at=60.0,
        late_s=0.0,
        used=50,
        began_at=0.0,
        until=10.0,
        unit=Unit.REQUESTS,
        books=Spending(),
    )
    window.limit, window.used = 50, 10
    with pytest.raises(NotAWindowError):
        window.on_refused(5.0, flight(4.99), is_first=True, retry_after_s=None)


def _answers(restraint: Restraint, since: float, refused: Iterable[bool]) -> float:
    """One request each 0.1 s, answered before the next; return when the last was."""
    now = since
    for is_refused in refused:
        now += 0.1
        restraint.on_answer(now, flight(sent_at=now - 0.05), refused=is_refused)
    return now


def test_a_server_that_refuses_much_is_asked_half_as_often_until_it_does_not() -> None:
    """Half of the requests refused: half the pace, then a quarter and longer silences; then all again."""
    restraint = Restraint()
    now = _answers(restraint, 0.0, [False, True] * 10)
    assert restraint.share == 0.5
    assert restraint.silence_s(2.0) == 2.0
    restraint.on_send(now, 10.0)
    assert restraint.wait(now, 10.0) == pytest.approx(0.2)
    now = _answers(restraint, now, [False, True] * 10)
    assert restraint.share == 0.25
    assert restraint.silence_s(2.0) == 4.0
    now = _answers(restraint, now, [False] * 40)
    assert restraint.share == 1.0
    assert restraint.wait(now, 10.0) == 0


def test_headers_that_did_not_explain_refusals_are_doubted_for_a_minute_then_for_two() -> None:
    """Not for ever: a crowd in front of a client is no lie of its headers."""
    restraint = Restraint()
    assert not restraint.doubts_headers(0.0)
    caught = _answers(restraint, 0.0, [False, True] * 10)
    assert restraint.doubts_headers(caught + 59)
    assert not restraint.doubts_headers(caught + 61)
    again = _answers(restraint, caught + 100, [False, True] * 10)
    assert restraint.doubts_headers(again + 119)
    assert not restraint.doubts_headers(again + 121)


def test_a_restraint_lives_with_a_quota_that_believes_to_be_empty() -> None:
    """Its pace is 0, and still a request goes to ask: eight clients on headers once divided by it."""
    restraint = Restraint()
    now = _answers(restraint, 0.0, [False, True] * 10)
    restraint.on_send(now, 0.0)
    assert restraint.wait(now, 0.0) == 0


def test_one_in_eight_refused_is_too_much_in_the_long_run() -> None:
    """It takes longer to tell, but 12 % are no server's wish."""
    restraint = Restraint()
    now = _answers(restraint, 0.0, [True, *[False] * 7] * 10)
    assert restraint.share == 1.0
    _answers(restraint, now, [True, *[False] * 7] * 20)
    assert restraint.share == 0.5


def test_refusals_of_what_was_on_its_way_are_one() -> None:
    """A hundred in flight at once that are refused together do not halve the pace."""
    restraint = Restraint()
    for _ in range(100):
        restraint.on_answer(1.0, flight(sent_at=0.5), refused=True)
    assert restraint.share == 1.0


@pytest.mark.parametrize("reset_s", [None, 1.0])
def test_headers_that_never_tell_a_refill_are_not_believed(reset_s: float | None) -> None:
    """No reset, or 1 s every time: what is left says nothing about how fast it comes back."""
    quota = Quota(Unit.REQUESTS, half)
    for number in range(5):
        hints = ServerHints(limit_requests=100, remaining_requests=40, reset_requests_s=reset_s)
        quota.on_hints(number + 1.0, flight(sent_at=float(number)), hints)
    assert not quota.is_known


def test_a_window_shorter_than_the_headers_way_is_spent_evenly() -> None:
    """100 in each second, known 3 s late: 95 a second, and a refusal there is for others to explain."""
    quota = Quota(Unit.REQUESTS, half)
    for number in range(40):
        at = 0.25 * number + 0.01
        left_s = 1.0 - at % 1.0
        sent = flight(sent_at=at, before=Spend(25.0 * number, 0.0))
        hints = ServerHints(limit_requests=100, remaining_requests=100 * left_s - 1, reset_requests_s=left_s)
        quota.on_send(at, sent, 3.0)
        quota.on_hints(at, sent, hints)
    assert quota.is_window
    assert quota.pace(10.0, 3.0) == pytest.approx(95.0, rel=0.02)
    assert quota.wait(12.0, 1.0, 3.0) == 0
    assert not quota.explains(10.0, 3.0)
