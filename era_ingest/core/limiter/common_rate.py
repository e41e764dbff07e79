"""Common rate: what the refusals of all runs on one key together teach about its quota."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from era_ingest.core.limiter.flight import Spend, Unit, clamp
from era_ingest.core.limiter.spending import Epoch
from era_ingest.core.limiter.units import UnitChooser

ASK_S: Final = 0.5
"""Runs that share come by as often as this, seconds."""
UNSURE_ASK_S: Final = 0.25
"""... while the rate is not sure as often as this: all are to hear of a refusal at once."""
HOLD: Final = 0.99
"""Share of the learned limit to pace at between probes."""
GAIN: Final = 0.06
"""How far above it a probe goes."""
GUESS_GAIN: Final = 0.1
"""The same above a guess."""
STEP: Final = 1.2
"""What a climb multiplies the pace by, each ``ASK_S`` or ``SOME`` requests..."""
FIRST_STEP: Final = 1.4
"""... and the first one, before anything was measured."""
SOME: Final = 4
HELD_S: Final = 1.0
"""A guess that was not refused for so long, and ``FEW`` requests, is climbed from."""
FEW: Final = 8
"""Requests below which an epoch measures nothing."""
ENOUGH: Final = 40
"""Requests that make a measurement good to 2.5 %."""
SETTLED: Final = 80
"""... and to hold still: before, each measurement is followed by a probe."""
LONG: Final = 400
"""Requests after which the oldest refusal is forgotten as the anchor."""
BEYOND: Final = 4.0
"""Requests beyond the model that prove the limit higher, or lower."""
ERRORS: Final = 2.0
"""A measurement from n requests is right to so many n-ths; half a probe's gain is granted to it at most."""
SLACK: Final = 0.05
"""Relative error of the model that is no surprise."""
FIRST: Final = 0.6
"""What is left of the first guess when it is refused."""
FALL: Final = 0.7
"""What is left of the rate when the limit has fallen."""
OVERSHOT: Final = 0.5
"""A climb ends at this share of the pace at least, and ``SHRINK`` at most."""
SHRINK: Final = 0.8
"""What is left of a guess that is refused before it measured anything."""
REFUSED_SHARE: Final = 0.003
"""Each request that is let in earns so much of a refusal..."""
PROBE_AT: Final = 1.5
"""... and with so many saved up, the limit is probed."""
PAUSE_REQUESTS: Final = 3.0
"""After a refusal nobody sends for so many requests' refill: room for all that comes a little early."""
PAUSE_MOST_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.5
RESTED: Final = 0.1
"""If nobody sent for more than this share of a measurement, the bucket may have been full meanwhile."""
ROUNDED_S: Final = 1.0
"""A Retry-After up to this may be a fraction rounded up to whole seconds."""
MOST_EPOCHS: Final = 8
LEAST_PER_S: Final = 1e-6
ONE: Final = Spend(1.0, 1.0)


class Phase(StrEnum):
    """What the rate is doing."""

    NONE = "none"
    """Not known: everybody is on their own."""
    CLIMB = "climb"
    HOLD = "hold"
    PROBE = "probe"


class Mark(NamedTuple):
    """A moment at which the server's bucket was empty (seconds), and what had been let in by then."""

    at: float
    accepted: Spend

    def until(self, later: Mark) -> Epoch:
        """Return what lies between two marks."""
        return Epoch(max(later.at - self.at, 1e-3), later.accepted.minus(self.accepted))


@dataclass(slots=True)
class CommonRate:
    """Learns a bucket's refill from the refusals of all its users together.

    Formula. The runs together are one client that knows exactly what was let in: between two refusals the
    server let in what it refilled, so ``accepted / elapsed`` is its rate. *Climb*: from half the runs' own
    estimates by a fifth each half second until refused; that ends at a guess. *Probe*: a little more (10 % on
    a guess, 6 % later) until refused, which is a measurement, or until more was let in than the rate explains;
    then climb. *Hold*: 0.99 of the measured rate.

    State. The rate, the refusals that anchor its measurement, and the last measurements, which also tell
    requests from tokens.

    Defaults. A probe is made when its refusals are earned, 3 of a thousand requests. Refusals of one volley
    count as one. A first refusal is obeyed as its Retry-After says; later ones of a second or less, which may
    be rounded up, for three requests' refill.

    Weak spots. A limit that rises is found at the next probe. Fixed windows are paced evenly, at the mean of
    the windows seen.

    Attributes:
        mean: Mean cost of a request.
        last: The last refusal, and what had been let in by then.
        anchor: The one from which the rate is measured.
        measured: Requests that the rate rests on; 0: it is a guess.
        silent_until: Nobody sends until then, seconds.
        heard_until: Refused requests sent before belong to the last refusal's volley, seconds.
    """

    phase: Phase = Phase.NONE
    unit: Unit = Unit.REQUESTS
    rate: float = 0.0
    mean: Spend = ONE
    anchor: Mark | None = None
    last: Mark | None = None
    before: float = 0.0
    gain: float = GAIN
    measured: int = 0
    purse: float = 0.0
    silent_until: float = 0.0
    heard_until: float = 0.0
    climb_at: float = 0.0
    rest_s: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def pace(self) -> float:
        """Units a second that all runs together may send; infinite while no rate is known."""
        if self.phase is Phase.NONE:
            return math.inf
        return self.rate * {Phase.PROBE: 1 + self.gain, Phase.HOLD: HOLD}.get(self.phase, 1.0)

    @property
    def is_sure(self) -> bool:
        """Whether the rate rests on enough requests."""
        return self.measured >= ENOUGH and self.phase is not Phase.CLIMB

    @property
    def asks_in_s(self) -> float:
        """How often runs that share come by, seconds."""
        return ASK_S if self.is_sure else UNSURE_ASK_S

    @property
    def unit_cost(self) -> float:
        """Units of a mean request."""
        return self.mean[self.unit]

    def adopt(self, rate: float, unit: Unit) -> None:
        """Take over what a run that is alone has found out by itself; 0: nothing."""
        self.phase = Phase.HOLD if rate > 0 else Phase.NONE
        self.rate, self.unit, self.measured = rate, unit, 0
        self.anchor = self.last = None
        self.epochs = []

    def begin(self, now: float, rate: float, unit: Unit) -> None:
        """Climb from a rate."""
        self.phase, self.rate, self.unit, self.climb_at = Phase.CLIMB, rate, unit, now + ASK_S

    def move_on(self, now: float, accepted: Spend, *, is_used: bool) -> None:
        """Climb, or probe, or see that a probe has proved the limit higher.

        Args:
            now: Seconds.
            accepted: What was let in by now.
            is_used: Whether any run would have sent more.
        """
        if now < self.silent_until:
            return
        if self.phase is Phase.HOLD and self.purse >= PROBE_AT:
            self.phase, self.before, self.gain = Phase.PROBE, self.rate, GAIN
        elif self._is_unrefuted(now, accepted):
            self.begin(now, self.rate, self.unit)
        elif self.phase is Phase.PROBE and self._is_proved_low(now, accepted):
            self.anchor = self.last = Mark(now, accepted)
            self.rest_s = 0.0
            self.begin(now, self.rate * (1 + self.gain), self.unit)
        elif self.phase is Phase.CLIMB and now >= self.climb_at:
            step = STEP if self.epochs else FIRST_STEP
            self.rate *= step if is_used else 1.0
            self.climb_at = now + max(ASK_S, SOME * self.unit_cost / self.rate)

    def _is_unrefuted(self, now: float, accepted: Spend) -> bool:
        """Return whether a guess has held so long that it is too low, or about right: go on climbing."""
        if self.phase is not Phase.PROBE or self.measured or self.last is None:
            return False
        return now > self.silent_until + HELD_S and accepted.requests - self.last.accepted.requests >= FEW

    def _is_proved_low(self, now: float, accepted: Spend) -> bool:
        """Return whether more was let in than the rate explains, the error of its measurement included."""
        if self.last is None:
            return False
        used = accepted[self.unit] - self.last.accepted[self.unit]
        error = min(ERRORS / self.measured, self.gain / 2) * used if self.measured else 0.0
        return used - self.rate * (now - self.last.at) > BEYOND * self.unit_cost + error

    def on_refused(self, now: float, mark: Mark, retry_after_s: float | None) -> None:
        """Learn from a refusal; those of one volley count as one.

        Args:
            now: When it was told, seconds.
            mark: When the refused request went, and what had been let in by then.
            retry_after_s: What the server asks for, seconds.
        """
        if mark.at <= self.heard_until:
            return
        pause = PAUSE_REQUESTS * self.unit_cost / max(self.rate, LEAST_PER_S)
        if self.last is None or self.anchor is None:
            self._guess(FIRST * self.rate, anchor=mark)
            pause = max(FIRST_PAUSE_S, retry_after_s or 0.0)
        else:
            self._measure(self.anchor, self.last, mark)
            pause = min(PAUSE_MOST_S, max(pause, 0.0 if self.is_sure else UNSURE_ASK_S))
            if retry_after_s is not None and retry_after_s > ROUNDED_S:
                pause = max(pause, retry_after_s)
        if self.anchor is mark:
            self.rest_s = pause if pause > UNSURE_ASK_S else 0.0
        self.rate = max(self.rate, LEAST_PER_S)
        self.last, self.silent_until, self.heard_until = mark, now + pause, now + self.asks_in_s

    def _guess(self, rate: float, *, anchor: Mark) -> None:
        """Pace a little above a guess, until that is refused or proved too low."""
        self.phase, self.rate, self.gain = Phase.PROBE, rate, GUESS_GAIN
        self.before, self.measured, self.anchor = 0.0, 0, anchor

    def _measure(self, anchor: Mark, last: Mark, mark: Mark) -> None:
        epoch, whole = last.until(mark), anchor.until(mark)
        rate = whole.rate(self.unit)
        if whole.requests < FEW:
            self._guess(SHRINK * self.rate, anchor=anchor)
        elif self.phase is Phase.CLIMB or self.rest_s > RESTED * whole.span_s:
            self._guess(clamp(rate, OVERSHOT * self.rate, SHRINK * self.rate), anchor=mark)
        elif self.phase is Phase.HOLD and self.measured and self._is_surprise(epoch):
            fallen = FALL * self.rate
            rate = min(fallen, epoch.rate(self.unit)) if epoch.requests >= FEW else fallen
            self._guess(rate, anchor=mark)
        else:
            self._take(epoch, whole, last)

    def _is_surprise(self, epoch: Epoch) -> bool:
        """Return whether the model still saw units in the bucket."""
        used = epoch.accepted[self.unit]
        return self.rate * epoch.span_s - used > BEYOND * self.unit_cost + SLACK * used

    def _take(self, epoch: Epoch, whole: Epoch, last: Mark) -> None:
        """Believe a measurement; a probe's may only raise what was known well."""
        was = self.unit
        self._choose_unit(epoch)
        rate = whole.rate(self.unit)
        if self.phase is Phase.PROBE and self.measured >= ENOUGH and self.unit is was:
            rate = max(rate, self.before)
        self.rate = self.before = rate
        self.measured = whole.requests
        self.phase = Phase.HOLD if self.measured >= SETTLED else Phase.PROBE
        self.gain = clamp(2 / self.measured, GAIN, GUESS_GAIN)
        if self.measured > LONG and epoch.requests >= ENOUGH:
            self.anchor, self.rest_s = last, 0.0

    def _choose_unit(self, epoch: Epoch) -> None:
        self.epochs = [*self.epochs, epoch][-MOST_EPOCHS:]
        chooser = UnitChooser()
        chooser.unit = self.unit
        whole = Epoch(
            sum(one.span_s for one in self.epochs),
            Spend(*(sum(one.accepted[unit] for one in self.epochs) for unit in Unit)),
        )
        for one in self.epochs:
            chooser.note(one, whole)
        chooser.decide()
        self.unit = chooser.unit
