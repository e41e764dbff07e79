"""The learners of quotas and refusals, each alone: what it concludes from what it is told."""

from __future__ import annotations

import math

import pytest

from era_ingest.bench.simulation.limits import TokenBucket
from era_ingest.core.limiter.bracket import Bounds
from era_ingest.core.limiter.cap import Cap, Doubt
from era_ingest.core.limiter.contract import ServerHints
from era_ingest.core.limiter.flight import NOTHING, Flight, Spend, Unit
from era_ingest.core.limiter.quota import Quota
from era_ingest.core.limiter.rate import Phase, Rate
from era_ingest.core.limiter.sharing import Sharing
from era_ingest.core.limiter.spending import Epoch, Mark, Spending
from era_ingest.core.limiter.turn import Turn
from era_ingest.core.limiter.units import UnitChooser
from era_ingest.core.limiter.window import NotAWindowError, Window
from era_ingest_tests.unit.limiter_kit import flight, half


def hints(remaining: float, reset_s: float, limit: float = 100) -> ServerHints:
    """Return the headers of a request quota."""
    return ServerHints(limit_requests=limit, remaining_requests=remaining, reset_requests_s=reset_s)


def hear(quota: Quota, sent: Flight, told: ServerHints) -> None:
    """Send a request and let its headers come back at once."""
    quota.on_send(sent.sent_at, sent, 0.1)
    quota.on_hints(sent.sent_at, sent, told)


def alone_at(remaining: float) -> Quota:
    """Return the quota of one client, 10 a second and 1,000 at most, of which so much is left after a minute."""
    return shared_at(remaining, clients=1)


def shared_at(remaining: float, *, clients: int) -> Quota:
    """Return the quota of one of several such clients: each sends 10 a second."""
    quota = Quota(Unit.REQUESTS, half)
    for second in range(60):
        sent = flight(float(second), before=Spend(10.0 * second, 0.0))
        hear(quota, sent, hints(remaining, (1000 - remaining) / (10 * clients), 1000))
    return quota


def test_the_quota_spends_by_the_square_of_what_is_left() -> None:
    """Alone 4 % of the limit are kept back: there the refill is spent, at half of it a quarter."""
    assert alone_at(40).pace(59.0, 0.1) == pytest.approx(10, rel=0.02)
    assert alone_at(20).pace(59.0, 0.1) == pytest.approx(2.5, rel=0.02)


def test_the_quota_leaves_each_client_time_to_hear_of_the_others() -> None:
    """Alone a third a latency of what is beyond the reserve, besides the refill; each of four a sixteenth."""
    assert alone_at(840).pace(59.0, 1.0) == pytest.approx(10 + 800 / 3, rel=0.05)
    assert shared_at(840, clients=4).pace(59.0, 1.0) == pytest.approx(40 + 720 / 16, rel=0.05)


def test_the_quota_waits_when_nothing_is_left() -> None:
    """A wait of about one refill, never longer than a second."""
    quota = Quota(Unit.REQUESTS, half)
    hear(quota, flight(1.0), hints(0, 10.0))
    assert quota.wait(1.0, 1.0, 0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("told", [(-1, 0.0, -1), (5, 0.0, 0), (-3, 1.0, 100)])
def test_the_quota_ignores_figures_that_mean_nothing(told: tuple[float, float, float]) -> None:
    """Azure's -1 and litellm's negative remainder are no information."""
    remaining, reset_s, limit = told
    quota = Quota(Unit.REQUESTS, half)
    quota.on_hints(1.0, flight(1.0), hints(remaining, reset_s, limit))
    assert not quota.is_known
    assert quota.wait(1.0, 1.0, None) == 0


def test_the_quota_recognises_a_window_and_waits_for_its_end() -> None:
    """The end stays where it is while time passes."""
    quota = Quota(Unit.REQUESTS, half)
    for second in range(1, 8):
        now = float(second)
        sent = flight(now, before=Spend(second - 1, 0.0))
        hear(quota, sent, hints(max(0, 60 - 10 * second), 60 - now))
    assert quota.is_window
    assert quota.wait(7.0, 1.0, 0.1) == pytest.approx(53, abs=0.1)


def build_window(books: Spending, *, ends_at: float = 60.0) -> Window:
    """Return a window of which 50 were let in within 5 s."""
    return Window(
        0.0,
        ends_at=ends_at,
        late_s=0.0,
        used=50,
        began_at=ends_at - 60.0,
        until=ends_at - 55.0,
        unit=Unit.REQUESTS,
        books=books,
    )


class Bench:
    """A rate learner, its books and a real bucket behind it; refusals are heard 10 ms later."""

    def __init__(self, rate: float, burst: float = 10.0) -> None:
        self.books = Spending()
        self.learner = Rate(half, self.books)
        self.bucket = TokenBucket(((0.0, rate),), burst)
        self.now, self.refused, self.let_in = 0.0, 0, 0

    def run(self, seconds: float) -> None:
        """Send as fast as the learner lets, never more than 1,000 a second."""
        end = self.now + seconds
        while self.now < end:
            wait = self.learner.wait(self.now, 1.0)
            self.now += max(wait, 0.001)
            if wait <= 0:
                self._send()

    def _send(self) -> None:
        sent = flight(self.now, before=self.books.sent)
        self.books.on_send(sent)
        self.learner.on_send(self.now, 1.0)
        if self.bucket.wait(self.now, 1.0) == 0:
            self.bucket.take(self.now, 1.0)
            self.let_in += 1
            return
        self.refused += 1
        mark = self.books.mark(sent)
        self.books.on_returned(sent)
        self.learner.on_returned(sent)
        self.now += 0.01
        self.learner.on_refused(self.now, mark)


@pytest.mark.parametrize("rate", [5.0, 40.0])
def test_refusals_teach_the_rate(rate: float) -> None:
    """After a minute the estimate is within 3 %, and hardly anything is refused in the next minute."""
    bench = Bench(rate)
    bench.run(60)
    assert bench.learner.estimate == pytest.approx(rate, rel=0.03)
    refused, let_in = bench.refused, bench.let_in
    bench.run(60)
    assert bench.let_in - let_in > 0.97 * 60 * rate
    assert bench.refused - refused <= 0.015 * 60 * rate


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_limit_that_moves_is_found_again(factor: float) -> None:
    """Halved or tripled: half a minute later it is known to 10 %."""
    bench = Bench(30.0)
    bench.run(60)
    bench.bucket.rate = ((0.0, 30.0 * factor),)
    bench.run(30)
    assert bench.learner.estimate == pytest.approx(30.0 * factor, rel=0.1)


def test_before_any_refusal_there_is_no_pace() -> None:
    """Off: no wait, no bound."""
    bench = Bench(10.0)
    assert bench.learner.phase is Phase.OFF
    assert bench.learner.pace == math.inf
    assert bench.learner.wait(0.0, 1e9) == 0


def test_the_steadier_unit_is_the_limited_one() -> None:
    """Requests that scatter while tokens repeat: tokens."""
    units = UnitChooser()
    for requests in (10, 20, 15, 30):
        units.note(Epoch(2.0, Spend(requests, 5000.0)), Epoch(8.0, Spend(75, 20_000.0)))
    assert units.decide()
    assert units.unit is Unit.TOKENS


def test_a_window_is_counted_and_its_length_snapped() -> None:
    """Two turns 58 s apart are a minute; the third window stops at its limit."""
    books = Spending()
    window = build_window(books, ends_at=0.0)
    window.on_turned(0.0, 0.0)
    for at in range(50):
        window.on_send(float(at) / 5, flight(float(at) / 5))
    assert window.on_refused(10.0, flight(9.99), is_first=True, retry_after_s=None) is None
    window.on_turned(58.0, 5.0)
    assert window.length_s == 60
    assert window.limit == 51
    assert window.ends_at == pytest.approx(118)


def test_a_short_retry_after_far_below_the_limit_is_no_window() -> None:
    """It was a bucket after all."""
    window = build_window(Spending())
    window.limit, window.used = 50, 10
    with pytest.raises(NotAWindowError):
        window.on_refused(5.0, flight(4.99), is_first=True, retry_after_s=1.0)


def test_a_window_is_spent_fast_where_it_surely_holds_more_and_slowly_where_it_ends() -> None:
    """Of the 50 that the first one held, let in within 5 s, 45 go at 5 a second; then one a refusal's time, 0.5 s."""
    window = build_window(Spending(), ends_at=60.0)
    window.refusal_s = 0.5
    window.used = 44
    assert window.pace == pytest.approx(5.0)
    window.used = 46
    assert window.pace == pytest.approx(2.0)


def test_a_window_asks_whether_it_turns_earlier_than_was_seen() -> None:
    """Let in at 60 for the first time after a refusal at 50: at 115 of the next one, then between there and 120."""
    turn = Turn(60.0, 10.0)
    turn.length_s = 60.0
    turn.pass_by(60.0)
    assert turn.ask_at() == pytest.approx(115.0)
    turn.on_asked(115.0)
    assert turn.wait(115.01, 0.01) > 0
    assert turn.on_refused(115.0)
    assert (turn.ends_at, turn.late_s) == (120.0, 5.0)
    assert turn.ask_at() == math.inf
    turn.pass_by(120.0)
    assert turn.ask_at() == pytest.approx(177.5)
    turn.on_asked(177.5)
    assert not turn.is_early(177.51, 0.01)
    assert turn.is_early(177.6, 0.01)
    assert (turn.ends_at, turn.late_s) == (177.5, 2.5)


def test_two_rounded_retry_afters_say_more_than_one() -> None:
    """The turn lies in the second before each: what both leave open is less."""
    turn = Turn(60.0, 1.0)
    turn.length_s = 60.0
    turn.pass_by(60.0)
    turn.told(119.7, 1.0)
    assert turn.ends_at == pytest.approx(119.7)
    assert turn.late_s == pytest.approx(0.7)


def test_a_cap_stands_until_it_is_refused_from_below() -> None:
    """Refused at 20: 19. Refused at 5: there is no cap."""
    cap = Cap()
    cap.suspect(0.0, 20, test=True)
    assert cap.limit == 19
    assert cap.wait(0.0, 19) == math.inf
    cap.on_success(0.1, flight(0.0, load=3), 0.1)
    assert cap.doubt is Doubt.READY
    assert cap.wait(0.1, 18) == 0
    cap.on_send(0.1)
    assert 0 < cap.wait(0.1, 19) < 1
    assert cap.wait(1.0, 19) == 0
    assert not cap.on_refused(2.0, flight(1.9, load=5))
    assert not cap.is_suspected


def test_a_cap_is_raised_when_more_is_let_in() -> None:
    """One more after 5 s, then twice as many."""
    cap = Cap()
    cap.suspect(0.0, 11, test=False)
    cap.on_success(16.0, flight(15.9, load=10), 0.1)
    assert cap.allowed == 11
    cap.on_success(16.2, flight(16.1, load=11), 0.1)
    assert cap.limit == 11


def test_a_hit_means_company_and_a_long_calm_means_none() -> None:
    """A refusal below the limit switches sharing on, 150 calm seconds switch it off."""
    sharing = Sharing()
    sharing.vote(0.0, 0.5)
    assert not sharing.is_on
    sharing.vote(1.0, 0.5)
    assert sharing.is_on
    assert sharing.hit(2.0, 10.0) == 0.7
    assert sharing.grow(12.0, 10.0) > 1
    sharing.grow(200.0, 10.0)
    assert not sharing.is_on


def test_refused_at_equal_paces_a_client_is_alone() -> None:
    """Four hits within 5 % are a limit's, not other people's."""
    sharing = Sharing()
    sharing.vote(0.0, 2.0)
    for at, pace in enumerate((10.0, 10.2, 9.9, 10.1)):
        assert sharing.is_on
        sharing.hit(3.0 * at, pace)
    assert not sharing.is_on


def test_refusals_of_one_event_cut_once() -> None:
    """Whoever is small would else pay for each that comes before the large one is refused."""
    sharing = Sharing()
    sharing.vote(0.0, 2.0)
    assert [sharing.hit(at, 10.0) for at in (1.0, 1.3, 2.9)] == [0.7, 1.0, 1.0]
    assert sharing.hit(3.1, 7.0) == 0.7


def test_large_and_small_grow_alike_rather_than_in_proportion() -> None:
    """From four to one they come nearer, even if both are cut at every refusal."""
    large, small = 40.0, 10.0
    mine, theirs = Sharing(), Sharing()
    mine.vote(0.0, 2.0)
    theirs.vote(0.0, 2.0)
    for second in range(1, 120):
        large *= mine.grow(float(second), large)
        small *= theirs.grow(float(second), small)
        if large + small > 50:
            large, small = large * mine.hit(second, large), small * theirs.hit(second, small)
    assert large / small < 3


@pytest.mark.parametrize(("per_s", "is_on"), [((20.1, 19.9, 20.0), False), ((20.0, 17.0, 22.0), True)])
def test_one_refill_that_explains_three_epochs_is_ours_alone(
    per_s: tuple[float, ...], *, is_on: bool
) -> None:
    """However unequal the paces: what others leave is never so even."""
    sharing = Sharing()
    sharing.vote(0.0, 2.0)
    for at, (rate, pace) in enumerate(zip(per_s, (18.0, 27.0, 21.0), strict=True)):
        sharing.hit(3.0 * at, pace, Bounds(0.99 * rate, 1.01 * rate))
    assert sharing.is_on is is_on
    assert sharing.refill == (None if is_on else pytest.approx(20.0, rel=0.01))


def test_marks_know_what_was_let_in_between() -> None:
    """A refused request counts nowhere."""
    books = Spending()
    for at in range(10):
        books.on_send(flight(float(at), before=books.sent))
    refused = flight(10.0, before=books.sent)
    mark = books.mark(refused)
    books.on_send(refused)
    books.on_returned(refused)
    assert mark.since(Mark(0.0, NOTHING)).rate(Unit.REQUESTS) == pytest.approx(1.0)
    assert books.accepted.requests == 10
