"""Rate: what refusals teach about a quota that shows no headers."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.bracket import Bounds, Bracket, Stand
from era_ingest.core.limiter.bucket import Bucket
from era_ingest.core.limiter.climb import Climb
from era_ingest.core.limiter.company import Company
from era_ingest.core.limiter.flight import Flight, Unit, clamp
from era_ingest.core.limiter.pacer import Pacer
from era_ingest.core.limiter.probing import Probing
from era_ingest.core.limiter.search import (
    BEYOND,
    ENOUGH,
    FALL,
    FEW,
    LEAST_FALL,
    Search,
    Step,
    Verdict,
)
from era_ingest.core.limiter.sharing import Sharing
from era_ingest.core.limiter.spending import Mark
from era_ingest.core.limiter.units import UnitChooser

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform
    from era_ingest.core.limiter.spending import Spending

HOLD: Final = 0.99
"""Share of the learned limit to pace at between probes."""
HEADROOM_S: Final = 0.4
"""Refill that the first proof leaves to the bucket, seconds of the new estimate."""
LONG: Final = 400
"""Requests after which the oldest refusal is forgotten as the anchor of the measurement."""
SOFT: Final = 1.06
"""How much the first proof raises the estimate, which may just have been low; the second begins a climb."""
FIRST_SHARE: Final = 0.9
"""Share of the latest rate that the first refusal leaves."""
CATCH_UP_S: Final = 0.02
"""Seconds of pace that may be made up for after a late timer."""
LEAST_PER_S: Final = 1 / 60


class Phase(StrEnum):
    """What the rate learner is doing."""

    OFF = "off"
    SEARCH = "search"
    HOLD = "hold"
    PROBE = "probe"
    CLIMB = "climb"
    SHARE = "share"


class Rate:
    """Learns a bucket's refill from refusals, paces just below it, and asks for more now and then.

    Formula. See `Bracket`: what was let in between two refusals bounds the limit from both sides, to one
    request in ``n``.

    States. *Off*: no quota seen. *Search*: the bounds are wide apart; `Search` tries rates between them until
    they are within 5 %. *Hold*: 0.99 of the estimate; a refusal that the
    model did not expect means that the limit fell: search from x0.7 down; one that it did lowers the estimate
    to what the epoch allows. *Probe*: 25 % above the estimate until a refusal, which may only raise the
    estimate (thus a small bucket that was full for a while cannot drag it down), or until 3 requests more
    went through than the estimate allows. The first such proof raises it by 6 %, a second begins a *climb*:
    x1.25 a step until refused, then a search below. *Share*: others use the quota too (see `Sharing`).

    Defaults. ``unit`` is the steadier of requests and tokens (see `UnitChooser`); how often and how far it
    probes, see `Probing`.

    Weak spots. A limit of a few requests a minute has too few requests to learn from. Other users of the
    quota look like a limit that moves.

    Args:
        uniform: Randomness for the times of probes.
        spending: The books of what was sent and let in.
    """

    def __init__(self, uniform: Uniform, spending: Spending) -> None:
        self.phase = Phase.OFF
        self.estimate = 0.0
        self.latency_s = 0.3
        self.refusal_s = 0.05
        self._books, self._units, self._probing = spending, UnitChooser(), Probing(uniform)
        self._sharing, self._pacer, self._searching = Sharing(), Pacer(), Search()
        self._bucket = Bucket(spending)
        self._known = 0.0
        self._is_measured = False
        self._proofs = 0
        self._company, self._climbing = Company(self._sharing), Climb()
        self._probe_at = math.inf

    @property
    def unit(self) -> Unit:
        """What the quota counts."""
        return self._units.unit

    @property
    def pace(self) -> float:
        """Units a second; infinity while no quota is known."""
        if self.phase is Phase.OFF:
            return math.inf
        return self.estimate * {Phase.PROBE: 1 + self._probing.gain, Phase.HOLD: HOLD}.get(self.phase, 1.0)

    @property
    def is_sure(self) -> bool:
        """Whether the estimate is a measurement."""
        return self.phase is not Phase.OFF and self._is_measured

    @property
    def is_bounded(self) -> bool:
        """Whether refusals bound the limit from above."""
        return self.phase is not Phase.OFF and self._searching.bracket.high < math.inf

    # ---- the door

    def wait(self, now: float, cost: float) -> float:
        """Return seconds until the pace lets a request of so many units go; 0 if now."""
        if self.phase is Phase.OFF:
            return 0.0
        if self.phase is Phase.HOLD and now >= self._probe_at:
            self._ask_for_more(now)
        elif self.phase is Phase.CLIMB and self._climbing.is_due(now):
            self._climb(now)
        elif self.phase is Phase.SHARE:
            self._grow(now)
        wait = self._pacer.wait(now, cost, self.pace, self._most_credit())
        if wait > 0:
            self._climbing.note_bound(now)
        return wait

    def on_send(self, now: float, cost: float) -> None:
        """Spend pace; notice when more went through than the estimate allows."""
        if self.phase is Phase.OFF:
            return
        self._probing.on_send()
        self._bucket.on_send(now, self.estimate, self._mean)
        self._pacer.spend(now, cost, self.pace, self._most_credit())
        if self._company.is_found(now, self._books.sent.requests):
            self.estimate *= self._sharing.hit(now, self.estimate)
            self.phase = Phase.SHARE
        if self.phase is Phase.SEARCH:
            self._look(now)
        elif self.phase is Phase.PROBE and self.level(now) <= -BEYOND * self._mean:
            self._raise(now)

    def _most_credit(self) -> float:
        """Units of unused pace that may be made up for: after a pause the bucket holds them surely."""
        least = max(1.5 * self._mean, CATCH_UP_S * self.pace)
        return max(least, min(0.5 * self._bucket.burst, self.estimate)) if self.is_sure else least

    @property
    def _mean(self) -> float:
        return self._books.mean[self.unit]

    @property
    def _slack(self) -> float:
        return self._mean * (1 + self._books.size_spread)

    def level(self, now: float) -> float:
        """Return what the bucket holds at most by the estimate."""
        return self._bucket.level(now, self.estimate, self.unit)

    # ---- searching

    def _search(self, now: float, stand: Stand, bracket: Bracket, first: float) -> None:
        """Look for the limit from a refusal on, within bounds, beginning with a guess.

        Not so fast that many are refused before the first refusal is heard.
        """
        self.phase, self._is_measured = Phase.SEARCH, False
        self._searching.begin(bracket, self._books.sent.requests)
        self._bucket.begin(stand)
        self.estimate = max(1e-3, min(first, 2 * self._mean / self.refusal_s))
        self._pacer.empty(now)

    def _look(self, now: float) -> None:
        """See whether the rate that is tried has passed."""
        assert self._bucket.anchor is not None
        epoch = Mark(now, self._books.accepted).since(self._bucket.anchor.mark)
        sent = self._books.sent.requests
        verdict = self._searching.passed(epoch, self.unit, self._mean, sent, self.estimate)
        if verdict is not None:
            self._follow(now, verdict)

    def _follow(self, now: float, verdict: Verdict) -> None:
        """Go on as a search says."""
        match verdict.step:
            case Step.TRY:
                self.estimate = verdict.rate
            case Step.MEASURED:
                self._measure(now, verdict.rate)
            case Step.CLIMB:
                self._begin_climb(now)

    def _measure(self, now: float, estimate: float) -> None:
        """Hold a rate that was measured."""
        self.estimate = self._known = estimate
        self._is_measured, self.phase = True, Phase.HOLD
        self._bucket.learn_burst(estimate, self.unit)
        self._plan_probe(now)

    # ---- asking for more

    def _plan_probe(self, now: float) -> None:
        self._probe_at = now + self._probing.period_s(self.estimate / self._mean, self.latency_s)

    def _ask_for_more(self, now: float) -> None:
        self.phase, self._proofs = Phase.PROBE, 0
        self._bucket.deduct_above(now, self.estimate, self.unit, 5 * self.estimate)

    def _raise(self, now: float) -> None:
        self._proofs += 1
        self._probing.adapt(is_lost=False, burst_requests=math.inf)
        if self._proofs == 1:
            self.estimate *= SOFT
            self._bucket.deduct_above(now, self.estimate, self.unit, HEADROOM_S * self.estimate)
            return
        self.estimate *= 1 + self._probing.gain
        self._begin_climb(now)

    def _begin_climb(self, now: float) -> None:
        self.phase = Phase.CLIMB
        self._bucket.deduct_nothing()
        self._plan_climb(now)

    def _climb(self, now: float) -> None:
        self.estimate *= self._climbing.factor(now)
        self._plan_climb(now)

    def _plan_climb(self, now: float) -> None:
        gap_s = self._mean / self.estimate
        self._climbing.plan(now, latency_s=self.latency_s, refusal_s=self.refusal_s, gap_s=gap_s)

    def _grow(self, now: float) -> None:
        if self._climbing.is_in_use(now):
            self.estimate *= self._sharing.grow(now, self.estimate / self._mean)
        if not self._sharing.is_on:
            self._measure(now, self.estimate)

    # ---- refusals

    def adopt(self, now: float, estimate: float) -> None:
        """Pace at an estimate from elsewhere and measure anew."""
        self._bucket.sent_at = now
        self._search(now, self._bucket.stand(Mark(now, self._books.accepted)), Bracket(), estimate)

    def on_returned(self, flight: Flight) -> None:
        """Note any refusal: what it cost, how large it was, and that the bucket was not full then."""
        self._probing.on_refused()
        self._units.note_refused(flight.cost.tokens / max(self._books.mean.tokens, 1e-9))
        self._bucket.on_returned(flight)

    def on_refused(self, now: float, mark: Mark) -> None:
        """Learn from the first refused request of an episode.

        Args:
            now: When the refusal was heard, seconds.
            mark: The refused request's.
        """
        bucket = self._bucket
        stand, anchor, last = bucket.stand(mark), bucket.anchor, bucket.last
        bucket.on_first(mark)
        if anchor is None or last is None:
            bucket.sent_at = mark.at
            guess = FIRST_SHARE * self._books.recent_rate(now, self.unit, more_s=0.5)
            self._search(now, stand, Bracket(), guess)
            return
        epoch, was = stand.since(last), self.phase
        surprise = self._is_measured and bucket.is_surprise(stand, last, self._known, self.unit, self._slack)
        self._units.note(epoch, stand.since(anchor))
        self._company.refused(
            now,
            self._books.sent.requests,
            epoch,
            surprise=surprise,
            probing=was is Phase.PROBE,
            holding=was is Phase.HOLD,
        )
        if self._sharing.is_on:
            self._yield(now, stand, last)
        else:
            self._learn(now, stand, anchor, last, surprise=surprise)
        if epoch.requests >= FEW or was is not Phase.HOLD:
            bucket.last = stand
        bucket.deduct_nothing()
        self.estimate = max(self.estimate, self._mean * LEAST_PER_S)
        self._pacer.empty(now)

    def _learn(self, now: float, stand: Stand, anchor: Stand, last: Stand, *, surprise: bool) -> None:
        epoch, whole = stand.since(last), stand.since(anchor)
        latest = stand.bounds(last, self.unit, self._slack)
        bounds = stand.bounds(anchor, self.unit, self._slack)
        if self.phase is Phase.CLIMB:
            bracket = Bracket(min(latest.low, self.estimate), self.estimate)
            self._search(now, stand, bracket, bracket.next_try())
        elif surprise:
            first = clamp(epoch.rate(self.unit), LEAST_FALL * self.estimate, FALL * self.estimate)
            self._search(now, stand, Bracket(0.0, min(self.estimate, latest.high)), first)
        elif self._units.decide():
            self._change_unit(now, stand, anchor)
        elif self.phase is Phase.SEARCH:
            sent = self._books.sent.requests
            self._follow(now, self._searching.refused(bounds, whole, self.unit, sent, self.estimate))
        elif self.phase is Phase.PROBE or epoch.requests >= FEW:
            self._refine(now, bounds, latest)
            if whole.requests > LONG and epoch.requests >= ENOUGH:
                self._bucket.anchor = stand

    def _change_unit(self, now: float, stand: Stand, anchor: Stand) -> None:
        """Go on in the other unit with what is known since the anchor."""
        mean, bounds = self._books.mean, stand.bounds(anchor, self.unit, self._slack)
        estimate = self.estimate * mean[self.unit] / mean[1 - self.unit]
        self._search(now, anchor, Bracket(*bounds), clamp(estimate, bounds.low, bounds.high))
        if stand.since(anchor).requests >= ENOUGH:
            self._measure(now, self.estimate)

    def _refine(self, now: float, bounds: Bounds, latest: Bounds) -> None:
        """Take a refusal of a probe, which may only raise the estimate, or while holding."""
        was = self._known
        proved = max(latest.low, bounds.low)
        if self.phase is Phase.PROBE:
            self._probing.adapt(is_lost=proved <= was, burst_requests=self._bucket.burst / self._mean)
            self._measure(now, max(was, proved))
        else:
            self._measure(now, max(min(was, latest.high), proved))

    def _yield(self, now: float, stand: Stand, last: Stand) -> None:
        """Share the quota: cut, and grow from there; or see that it is ours alone."""
        unit = self.unit
        bounds = stand.bounds(last, unit, self._slack)
        if self._units.decide():
            self.estimate *= self._books.mean[self.unit] / self._books.mean[unit]
        self.estimate *= self._sharing.hit(now, self.estimate, bounds if unit is self.unit else None)
        self.phase = Phase.SHARE
        if not self._sharing.is_on:
            self._measure(now, self._sharing.refill or stand.since(last).rate(self.unit))
