"""Rate: what refusals teach about a quota that shows no headers."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import Flight, Unit, clamp
from era_ingest.core.limiter.sharing import Sharing
from era_ingest.core.limiter.spending import Mark
from era_ingest.core.limiter.units import UnitChooser

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform
    from era_ingest.core.limiter.spending import Epoch, Spending

HOLD: Final = 0.99
"""Share of the learned limit to pace at between probes."""
GAIN: Final = 1.25
"""How far above the learned limit a probe goes, and how steep a climb is."""
REFUSED_SHARE: Final = 0.008
"""Share of requests that may be refused; each request earns so much of a refusal."""
PURSE: Final = 3.0
"""Most refusals saved up, or owed."""
PROBE_EVERY: Final = 48.0
"""A probe comes each 48 / sqrt(requests a second) seconds: it is worth more where the rate is higher."""
PROBE_SOONEST_S: Final = 5.0
PROBE_LATEST_S: Final = 60.0
PROBE_LATENCIES: Final = 4.0
"""No sooner than so many latencies: what a probe finds is of no use before."""
IN_DEBT, IN_CREDIT = 1.35, 0.85
"""... times so much while more, or less, was refused than earned."""
HEADROOM_S: Final = 1.0
"""Refill that the first proof leaves to the bucket, seconds of the new estimate."""
FEW: Final = 8
"""Requests below which an epoch measures nothing."""
ENOUGH: Final = 40
"""Requests that make a measurement good to 2.5 %."""
LONG: Final = 400
"""Requests after which the oldest refusal is forgotten as the anchor of the measurement."""
BEYOND: Final = 3.0
"""Requests beyond the model that prove the limit higher."""
SOFT: Final = 1.06
"""How much the first proof raises the estimate, which may just have been low; the second begins a climb."""
UNSURE_PROOFS: Final = 3
"""So many soft steps while the estimate rests on few requests; they are twice as long."""
SLACK: Final = 0.05
"""Relative error of the model that is no surprise."""
FALL: Final = 0.7
"""What is left of the estimate when the limit has fallen."""
FRESH_S: Final = 10.0
"""A first refusal older than this is no anchor: the bucket may have been full since, seconds."""
SHRINK: Final = 0.85
"""What is left of a guess that is refused before it measured anything."""
GUESS_GAIN: Final = 0.1
"""How far above a guess the pace goes."""
CATCH_UP_S: Final = 0.02
"""Seconds of pace that may be made up for after a late timer."""
LEAST_PER_S: Final = 1 / 60


class Phase(StrEnum):
    """What the rate learner is doing."""

    OFF = "off"
    PROBE = "probe"
    HOLD = "hold"
    CLIMB = "climb"
    SHARE = "share"


class Rate:
    """Learns a bucket's refill from refusals, paces just below it, and asks for more now and then.

    Formula. At a refusal the bucket is empty; between two refusals it let in exactly what it refilled, as
    long as it never was full in between. So ``accepted / elapsed`` between an anchor, the first refusal under
    the present limit, and the latest one is the limit, to one request in ``n``; and it is never above the
    limit.

    States. *Off*: no quota seen. *Probe*: pace above the estimate (by 25 % when asking for more, by 2/n
    while an estimate from n requests is refined) until a refusal measures, or until 3 requests more went
    through than the estimate allows: then *climb*: x1.25 a step until refused. *Hold*: 0.99 of the estimate;
    a refusal that the model did not expect means that the limit fell: x0.7 and measure anew. After a probe
    the measurement may only raise the estimate; a refusal while holding lowers it to the measurement. Thus a
    small bucket that was full for a while cannot drag the estimate down.

    Defaults. A probe comes each 48 / sqrt(rate) seconds (5 to 60), more rarely while more than 0.8 % of the
    requests were refused. ``unit`` is the steadier of requests and tokens.

    A long Retry-After fills the bucket: its clock stands still while it is full, so that measurements hold.

    Weak spots. A limit of a few requests a minute has too few requests to learn from. A bucket of one or two
    requests is full between any two probes. Other users of the quota look like a limit that moves.

    Args:
        uniform: Randomness for the times of probes.
        spending: The books of what was sent and let in.
    """

    def __init__(self, uniform: Uniform, spending: Spending) -> None:
        self.phase = Phase.OFF
        self.estimate = 0.0
        self.latency_s = 0.3
        self.refusal_s = 0.05
        self._uniform, self._books, self._units = uniform, spending, UnitChooser()
        self._sharing = Sharing()
        self._anchor: Mark | None = None
        self._last: Mark | None = None
        self._base: Mark | None = None
        self._gain = 0.0
        self._measured, self._proofs, self._before_probe = 0, 0, 0.0
        self._offset = 0.0
        self._burst = 0.0
        self._first: Epoch | None = None
        self._credit, self._credit_at = 0.0, 0.0
        self._probe_at = self._climb_at = math.inf
        self._bound_at = -math.inf
        self._purse = 0.0
        self._full_s = 0.0

    @property
    def unit(self) -> Unit:
        """What the quota counts."""
        return self._units.unit

    @property
    def pace(self) -> float:
        """Units a second; infinity while no quota is known."""
        if self.phase is Phase.OFF:
            return math.inf
        return self.estimate * {Phase.PROBE: 1 + self._gain, Phase.HOLD: HOLD}.get(self.phase, 1.0)

    @property
    def is_sure(self) -> bool:
        """Whether the estimate rests on enough requests."""
        return self.phase is not Phase.OFF and self._measured >= ENOUGH

    # ---- the door

    def wait(self, now: float, cost: float) -> float:
        """Return seconds until the pace lets a request of so many units go; 0 if now."""
        if self.phase is Phase.OFF:
            return 0.0
        if self.phase is Phase.HOLD and now >= self._probe_at:
            self._ask_for_more(now)
        elif self.phase is Phase.CLIMB and now >= self._climb_at:
            self._climb(now)
        elif self.phase is Phase.SHARE:
            self._grow(now)
        self._refill(now)
        missing = min(cost, self._most_credit()) - self._credit
        if missing <= 0:
            return 0.0
        self._bound_at = now
        return missing / self.pace + 1e-6

    def on_send(self, now: float, cost: float) -> None:
        """Spend pace; notice when more went through than the estimate allows."""
        if self.phase is Phase.OFF:
            return
        self._purse = min(PURSE, self._purse + REFUSED_SHARE)
        self._refill(now)
        self._credit -= cost
        if self.phase is Phase.PROBE and self.level(now) <= -BEYOND * self._mean:
            self._raise(now)

    def _refill(self, now: float) -> None:
        self._credit = min(self._most_credit(), self._credit + (now - self._credit_at) * self.pace)
        self._credit_at = now

    def _most_credit(self) -> float:
        """Units of unused pace that may be made up for: after a pause the bucket holds them surely."""
        least = max(1.5 * self._mean, CATCH_UP_S * self.pace)
        return max(least, min(0.5 * self._burst, self.estimate)) if self.is_sure else least

    @property
    def _mean(self) -> float:
        return self._books.mean[self.unit]

    def level(self, now: float) -> float:
        """Return what the bucket holds according to the estimate: refill less what was let in since empty."""
        if self._last is None:
            return 0.0
        used = self._books.accepted[self.unit] - self._last.accepted[self.unit]
        return self.estimate * (now - self._full_s - self._last.at) - used - self._offset

    # ---- asking for more

    def _ask_for_more(self, now: float) -> None:
        self._probe(GAIN - 1)
        self._offset += max(0.0, self.level(now) - 5 * self.estimate)

    def _raise(self, now: float) -> None:
        self._proofs += 1
        if self._proofs <= (1 if self.is_sure else UNSURE_PROOFS):
            self.estimate *= SOFT if self.is_sure else SOFT**2
            self._offset += max(0.0, self.level(now) - HEADROOM_S * self.estimate)
            self._gain = min(2 * self._gain, GAIN - 1)
            return
        self.estimate *= 1 + self._gain
        self._begin_climb(now)

    def _begin_climb(self, now: float) -> None:
        self.phase, self._offset = Phase.CLIMB, 0.0
        self._last = self._anchor = self._base = Mark(now - self._full_s, self._books.accepted)
        self._plan_climb(now)

    def _climb(self, now: float) -> None:
        if now < self._bound_at + 1.0:
            self.estimate *= GAIN
        self._plan_climb(now)

    def _plan_climb(self, now: float) -> None:
        self._climb_at = now + max(0.4, 0.5 * self.latency_s, self.refusal_s, 4 * self._mean / self.estimate)

    def _grow(self, now: float) -> None:
        if now < self._bound_at + 1.0:
            self.estimate *= self._sharing.grow(now, self.estimate / self._mean)
        if not self._sharing.is_on:
            self._probe(GAIN - 1)

    # ---- refusals

    def note_first(self, mark: Mark) -> None:
        """Remember a refusal that something else was made responsible for: it may be an anchor later."""
        self._first = mark.since(self._books.start())
        self._anchor = self._last = self._base = mark

    def adopt(self, now: float, estimate: float) -> None:
        """Pace at an estimate from elsewhere and measure anew."""
        self._guess(now, Mark(now - self._full_s, self._books.accepted), estimate)

    def on_pause(self, pause_s: float) -> None:
        """Stop the bucket's clock for the part of a silence in which the bucket is full.

        The first epoch of all let in the bucket's size and what it refilled meanwhile.
        """
        if self.phase is Phase.OFF or self._first is None:
            return
        first = self._first.accepted[self.unit]
        size = max(0.5 * first, first - self.estimate * self._first.span_s)
        self._full_s += max(0.0, pause_s - size / self.estimate)

    def on_refused(self, now: float, mark: Mark) -> None:
        """Learn from the first refused request of an episode.

        Args:
            now: When the refusal was heard, seconds.
            mark: The refused request's.
        """
        anchor, last = self._anchor, self._last
        if self._first is None:
            self._first = mark.since(self._books.start())
        mark = Mark(mark.at - self._full_s, mark.accepted)
        if anchor is None or last is None:
            self._guess(now, mark, 0.9 * self._books.recent_rate(now, self.unit, more_s=0.5))
            return
        epoch, whole = mark.since(self._base or last), mark.since(anchor)
        was, rate = self.phase, whole.rate(self.unit)
        surprise = self._measured > 0 and was is not Phase.CLIMB and self._is_surprise(epoch)
        if self._measured and was in {Phase.HOLD, Phase.PROBE} and (surprise or epoch.requests >= FEW):
            self._sharing.vote(now, 1.0 if surprise else 0.5 if was is Phase.HOLD else -0.5)
        self._last = mark
        if epoch.requests >= FEW or was is not Phase.HOLD:
            self._base = mark
        if was is Phase.OFF:
            self._start(now, mark, whole)
        elif self._sharing.is_on:
            self._yield(now, epoch)
        elif whole.requests < FEW:
            bound = rate * (1 + 2 / whole.requests) if whole.requests else math.inf
            self.estimate = min(SHRINK * self.estimate, bound)
            self._probe(GUESS_GAIN)
        elif was is Phase.CLIMB:
            self._guess(now, mark, max(0.7 * self.estimate, min(rate, self.estimate)))
        elif surprise:
            self._guess(now, mark, min(FALL * self.estimate, epoch.rate(self.unit)))
        else:
            self._measure(now, whole, epoch, was)
        self._offset = 0.0
        self.estimate = max(self.estimate, self._mean * LEAST_PER_S)
        self._credit, self._credit_at = 0.0, now

    def _yield(self, now: float, epoch: Epoch) -> None:
        """Share the quota: cut, and grow from there."""
        self._units.note(epoch)
        if self._units.decide():
            self.estimate = epoch.rate(self.unit)
        self.estimate *= self._sharing.hit(now)
        self.phase = Phase.SHARE

    def _is_surprise(self, epoch: Epoch) -> bool:
        """Return whether the model still saw units in the bucket."""
        used = epoch.accepted[self.unit]
        level = self.estimate * epoch.span_s - used - self._offset
        return level > self._mean * BEYOND * (1 + self._books.size_spread) + SLACK * used

    def _start(self, now: float, mark: Mark, whole: Epoch) -> None:
        if whole.requests >= FEW and whole.span_s <= FRESH_S:
            self._measured = whole.requests
            self.estimate = whole.rate(self.unit)
            self._learn_burst()
            self._probe(2 / whole.requests)
            return
        guess = 0.9 * self._books.recent_rate(now, self.unit, more_s=0.5)
        if whole.requests and whole.span_s <= FRESH_S:
            guess = min(guess, whole.rate(self.unit) * (1 + 2 / whole.requests))
        anchor = self._anchor
        self._guess(now, mark, guess)
        if whole.span_s <= FRESH_S:
            self._anchor = anchor

    def _guess(self, now: float, mark: Mark, estimate: float) -> None:
        """Pace at a guess; not so fast that many are refused before the first refusal is heard."""
        self.estimate = max(1e-3, min(estimate, 2 * self._mean / self.refusal_s))
        self._anchor = self._last = self._base = mark
        self._measured = 0
        self._credit, self._credit_at = 0.0, now
        self._probe(GUESS_GAIN)

    def _probe(self, gain: float) -> None:
        self.phase, self._gain = Phase.PROBE, clamp(gain, 0.03, GAIN - 1)
        self._proofs, self._before_probe = 0, self.estimate

    def _measure(self, now: float, whole: Epoch, epoch: Epoch, was: Phase) -> None:
        rate = whole.rate(self.unit)
        only_up = was is Phase.PROBE and self._measured >= ENOUGH
        self.estimate = max(self._before_probe, rate) if only_up else rate
        self._measured = whole.requests
        self._learn_burst()
        self._units.note(epoch)
        self._switch_unit(whole)
        if whole.requests < ENOUGH:
            self._probe(2 / whole.requests)
            return
        if whole.requests > LONG and epoch.requests >= ENOUGH:
            self._anchor = self._last
        self.phase = Phase.HOLD
        self._plan_probe(now)

    def _plan_probe(self, now: float) -> None:
        per_s = self.estimate / self._mean
        period = clamp(PROBE_EVERY / math.sqrt(per_s), PROBE_SOONEST_S, PROBE_LATEST_S)
        period = max(period, PROBE_LATENCIES * self.latency_s)
        period *= IN_DEBT if self._purse < 0 else IN_CREDIT
        self._probe_at = now + period * (0.75 + 0.5 * self._uniform())

    def _switch_unit(self, whole: Epoch) -> None:
        if self._units.decide():
            self.estimate = whole.rate(self.unit)
            self._learn_burst()

    def _learn_burst(self) -> None:
        """What the very first epoch let in beyond the refill was the bucket's size."""
        if self._first is not None:
            self._burst = max(0.0, self._first.accepted[self.unit] - self.estimate * self._first.span_s)

    def note_size(self, flight: Flight) -> None:
        """Take the size of a refused request: buckets of tokens refuse big ones more often."""
        self._purse = max(-PURSE, self._purse - 1)
        self._units.note_refused(flight.cost.tokens / max(self._books.mean.tokens, 1e-9))
