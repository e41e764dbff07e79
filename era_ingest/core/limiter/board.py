"""Board: the pace that several runs on one key share where the server's headers do not tell it.

A board is a small value that lies in one place (a row of the database). Runs come by twice a second, say what
they sent and what was refused, and take their share of the pace along. It is pure: whoever holds the row calls
`exchange` and stores what came of it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from era_ingest.core.limiter.flight import NOTHING, Spend, Unit, clamp
from era_ingest.core.limiter.spending import Epoch
from era_ingest.core.limiter.units import UnitChooser

if TYPE_CHECKING:
    from collections.abc import Mapping

ASK_S: Final = 0.5
"""Runs that share come by as often as this, seconds."""
CLIMB_ASK_S: Final = 0.25
"""... while the rate is not sure as often as this: all are to hear of a refusal at once..."""
ALONE_ASK_S: Final = 1.0
"""... and one that is alone."""
GONE_S: Final = 4.0
"""Who has not come by for so long is gone, and its share is free, seconds."""
HOLD: Final = 0.99
"""Share of the learned limit to pace at between probes."""
GAIN: Final = 0.06
"""How far above it a probe goes."""
GUESS_GAIN: Final = 0.1
"""The same above a guess."""
STEP: Final = 1.2
"""What a climb multiplies the pace by, each ``ASK_S`` or ``FEW`` requests."""
SEED: Final = 0.5
"""A climb begins at so much of what the runs' own estimates add up to."""
FEW: Final = 8
"""Requests below which an epoch measures nothing."""
ENOUGH: Final = 40
"""Requests that make a measurement good to 2.5 %."""
LONG: Final = 400
"""Requests after which the oldest refusal is forgotten as the anchor."""
BEYOND: Final = 4.0
"""Requests beyond the model that prove the limit higher, or lower."""
SLACK: Final = 0.05
"""Relative error of the model that is no surprise."""
FIRST: Final = 0.6
"""What is left of the first guess when it is refused."""
FALL: Final = 0.7
"""What is left of the estimate when the limit has fallen."""
OVERSHOT: Final = 0.5
"""A climb ends at this share of the pace at least, and ``SHRINK`` at most."""
SHRINK: Final = 0.8
"""What is left of a guess that is refused before it measured anything."""
REFUSED_SHARE: Final = 0.004
"""Each request that is let in earns so much of a refusal..."""
PROBE_AT: Final = 1.5
"""... and with so many saved up, the limit is probed."""
DEBT: Final = -1.5
PAUSE_REQUESTS: Final = 3.0
"""After a refusal nobody sends for so many requests' refill: room for all that comes a little early."""
PAUSE_MOST_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.5
RESTED: Final = 0.1
"""If nobody sent for more than this share of a measurement, the bucket may have been full meanwhile."""
ROUNDED_S: Final = 1.0
"""A Retry-After up to this may be a fraction rounded up to whole seconds."""
MOST_EPOCHS: Final = 8


class Phase(StrEnum):
    """What the board is doing."""

    NONE = "none"
    """No rate is known: everybody is on their own."""
    CLIMB = "climb"
    HOLD = "hold"
    PROBE = "probe"


class Mark(NamedTuple):
    """A moment at which the server's bucket was empty (seconds), and what had been let in by then."""

    at: float
    accepted: Spend


@dataclass(frozen=True, slots=True)
class Report:
    """What a run says when it comes by.

    Attributes:
        accepted: What it sent since it last came by, less what was refused.
        refusals: Seconds since each refused request of that time went out.
        is_hungry: Whether it would have sent more.
        own_rate: Units a second that it found out by itself; 0: it knows of no rate.
        own_unit: Of that rate.
        retry_after_s: The longest that a refusal asked to wait, seconds.
    """

    accepted: Spend = NOTHING
    refusals: tuple[float, ...] = ()
    is_hungry: bool = True
    own_rate: float = 0.0
    own_unit: Unit = Unit.REQUESTS
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What it takes along.

    Attributes:
        others: Runs that were here lately, without this one.
        pace: Units a second that this run may send; infinite: no rate is known, each is on its own.
        unit: Of the pace.
        starts_s: It may send from so many seconds on.
        asks_in_s: It is to come by again after so many seconds.
    """

    others: int
    pace: float
    unit: Unit
    starts_s: float
    asks_in_s: float


@dataclass(frozen=True, slots=True)
class Member:
    """A run on the board: when it was last here and comes again, whether it wants more, what it uses.

    It sends its share from ``starts_at`` on.
    """

    seen_at: float
    starts_at: float
    asks_in_s: float
    is_hungry: bool
    share: float
    used: float


@dataclass(frozen=True, slots=True)
class Board:
    """What all runs on one key know together.

    Formula. The runs together are one client that knows exactly what was let in: between two refusals the
    server let in what it refilled, so ``accepted / elapsed`` is its rate. *Climb*: from half the runs' own
    estimates by a fifth each half second until refused. *Hold*: 0.99 of the rate, each hungry run an equal
    part of what the others leave. *Probe*: 6 % more until refused, or until more was let in than the rate
    explains (then climb); a probe is made when its refusals are earned, 4 of a thousand requests.

    State. The runs, the rate, the refusals that anchor the measurement, what was let in. A newcomer starts
    when all others have been here and know of it, so that the shares never add up to more than the pace.

    Defaults. Twice a second; gone after 4 s.

    Weak spots. A limit that rises is found at the next probe. Fixed windows are paced evenly, at the mean of
    windows seen. Caps on requests in flight are not shared.
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    phase: Phase = Phase.NONE
    unit: Unit = Unit.REQUESTS
    rate: float = 0.0
    mean: Spend = Spend(1.0, 1.0)
    accepted: Spend = NOTHING
    anchor: Mark | None = None
    last: Mark | None = None
    before: float = 0.0
    gain: float = GAIN
    measured: int = 0
    purse: float = 0.0
    silent_until: float = -math.inf
    heard_until: float = -math.inf
    climb_at: float = 0.0
    epochs: tuple[Epoch, ...] = ()
    rest_s: float = 0.0

    # ---- the door

    def exchange(self, now: float, name: str, report: Report) -> tuple[Board, Grant]:
        """Take a run's report and give it its share.

        Args:
            now: Seconds of the board's own clock.
            name: The run's.
            report: Since the run last came by.

        Returns:
            The board afterwards, and what the run may do.
        """
        board = self._without_gone(now)._with_report(now, name, report)
        others = len(board.members) - 1
        if others == 0:
            board = board._adopt(report)
        elif name not in self.members:
            board = board._welcome(now, report)
        elif board.phase is Phase.NONE and report.own_rate > 0:
            board = board._begin(now, report, SEED * report.own_rate * len(board.members))
        for age_s in sorted(report.refusals, reverse=True):
            board = board._refused(now, now - age_s, report.retry_after_s)
        if others and board.phase is not Phase.NONE:
            board = board._move_on(now)
        return board._give(now, name, others)

    def look(self, now: float) -> bool:
        """Return whether runs are here that share, so that it is worth coming by."""
        return bool(self._without_gone(now).members) and self.phase is not Phase.NONE

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
        """How often runs come by that share, seconds."""
        return ASK_S if self.is_sure else CLIMB_ASK_S

    # ---- who is here

    def _without_gone(self, now: float) -> Board:
        here = {name: one for name, one in self.members.items() if one.seen_at > now - GONE_S}
        return replace(self, members=here) if len(here) < len(self.members) else self

    def _with_report(self, now: float, name: str, report: Report) -> Board:
        count = report.accepted.requests
        mean = self.mean
        if count >= 1:
            weight = max(min(1.0, count / max(1.0, self.accepted.requests + count)), min(0.5, 0.02 * count))
            tokens = report.accepted.tokens / count
            mean = Spend(1.0, max(1e-6, mean.tokens + weight * (tokens - mean.tokens)))
        was = self.members.get(name)
        span = now - was.seen_at if was else 0.0
        used = report.accepted[self.unit] / span if span > 0.05 else was.used if was else 0.0
        starts_at = was.starts_at if was else now
        member = Member(now, starts_at, ASK_S, report.is_hungry, was.share if was else 0.0, used)
        return replace(
            self,
            members={**self.members, name: member},
            accepted=self.accepted.plus(report.accepted),
            mean=mean,
            purse=min(PROBE_AT, self.purse + REFUSED_SHARE * count),
        )

    def _give(self, now: float, name: str, others: int) -> tuple[Board, Grant]:
        me = self.members[name]
        share = self._share(name) if others else math.inf
        starts_s = 0.0
        if share < math.inf:
            if self.silent_until > now:
                place = sorted(self.members).index(name)
                starts_s = self.silent_until - now + place * self.mean[self.unit] / self.pace
            if me.share <= 0:
                known_to_all = max(o.seen_at + o.asks_in_s for n, o in self.members.items() if n != name)
                starts_s = max(starts_s, known_to_all - now)
        asks_in_s = self.asks_in_s if others else ALONE_ASK_S
        kept = replace(
            me,
            starts_at=now + starts_s if starts_s > 0 else me.starts_at,
            asks_in_s=asks_in_s,
            share=share if share < math.inf else 0.0,
        )
        board = replace(self, members={**self.members, name: kept})
        return board, Grant(others, share, self.unit, starts_s, asks_in_s)

    def _share(self, name: str) -> float:
        """Return units a second: what those leave who need less is divided among the others."""
        if self.phase is Phase.NONE:
            return math.inf
        left, takers = self.pace, len(self.members)
        wants = {
            other: math.inf if one.is_hungry else 1.3 * one.used + 2 * self.mean[self.unit] / GONE_S
            for other, one in self.members.items()
        }
        for other in sorted(wants, key=wants.__getitem__):
            part = min(wants[other], left / takers)
            if other == name:
                return max(part, left / takers) if math.isinf(wants[other]) else part
            left, takers = left - part, takers - 1
        raise AssertionError(name)

    def _accepted_at(self, now: float) -> Spend:
        """Return what was let in by ``now``, as far as it was told or can be expected."""
        amount = self.accepted[self.unit]
        for one in self.members.values():
            amount += min(one.share, one.used if not one.is_hungry else one.share) * max(
                0.0, min(now - max(one.seen_at, one.starts_at), ASK_S)
            )
        if self.unit is Unit.REQUESTS:
            more = amount - self.accepted.requests
            return Spend(amount, self.accepted.tokens + more * self.mean.tokens)
        more = amount - self.accepted.tokens
        return Spend(self.accepted.requests + more / self.mean.tokens, amount)

    # ---- the rate

    def _adopt(self, report: Report) -> Board:
        """Take over what a run that is alone has found out by itself."""
        if report.own_rate <= 0:
            return replace(self, phase=Phase.NONE, anchor=None, last=None, measured=0)
        return replace(
            self,
            phase=Phase.HOLD,
            rate=report.own_rate,
            unit=report.own_unit,
            anchor=None,
            last=None,
            measured=0,
            epochs=(),
        )

    def _welcome(self, now: float, report: Report) -> Board:
        """Take in a newcomer: what the runs knew before they knew of each other may be parts of the limit."""
        if self.phase is Phase.NONE:
            return self._begin(now, report, SEED * report.own_rate) if report.own_rate > 0 else self
        if self.measured or (report.own_rate and report.own_unit is not self.unit):
            return self
        return self._begin(now, report, self.rate + SEED * report.own_rate)

    def _begin(self, now: float, report: Report, rate: float) -> Board:
        """Share from now on: climb from this rate."""
        unit = report.own_unit if self.phase is Phase.NONE else self.unit
        return replace(self, phase=Phase.CLIMB, rate=rate, unit=unit, climb_at=now + ASK_S)

    def _move_on(self, now: float) -> Board:
        """Climb, or probe, or see that a probe has proved the limit higher."""
        if now < self.silent_until:
            return self
        if self.phase is Phase.HOLD and self.purse >= PROBE_AT:
            return replace(self, phase=Phase.PROBE, before=self.rate, gain=GAIN)
        if self.phase is Phase.PROBE and self._level(now) < -BEYOND * self.mean[self.unit]:
            here = Mark(now, self._accepted_at(now))
            rate = self.rate * (1 + self.gain)
            return replace(self, phase=Phase.CLIMB, rate=rate, anchor=here, last=here, climb_at=now + ASK_S)
        if self.phase is Phase.CLIMB and now >= self.climb_at:
            wait = max(ASK_S, FEW * self.mean[self.unit] / self.rate)
            is_used = any(one.is_hungry for one in self.members.values())
            return replace(self, rate=self.rate * (STEP if is_used else 1.0), climb_at=now + wait)
        return self

    def _level(self, now: float) -> float:
        """Return what the server's bucket holds according to the rate, in units."""
        if self.last is None:
            return 0.0
        used = self._accepted_at(now)[self.unit] - self.last.accepted[self.unit]
        return self.rate * (now - self.last.at) - used

    def _refused(self, now: float, at: float, retry_after_s: float | None) -> Board:
        """Learn from a refused request that went at ``at``; those of one volley count as one."""
        board = replace(self, purse=max(DEBT, self.purse - 1))
        if at <= self.heard_until or board.phase is Phase.NONE or len(board.members) < 2:
            return board
        mark = Mark(at, board._accepted_at(at))
        pause = PAUSE_REQUESTS * board.mean[board.unit] / max(board.rate, 1e-6)
        if board.last is None or board.anchor is None:
            board = board._guess(mark, FIRST * board.rate, anchor=mark)
            pause = max(FIRST_PAUSE_S, retry_after_s or 0.0)
        else:
            board = board._measured_by(mark)
            pause = min(PAUSE_MOST_S, max(pause, 0.0 if board.is_sure else CLIMB_ASK_S))
            if retry_after_s is not None and retry_after_s > ROUNDED_S:
                pause = max(pause, retry_after_s)
        rest_s = board.rest_s if board.anchor is not mark else pause if pause > CLIMB_ASK_S else 0.0
        return replace(board, last=mark, silent_until=now + pause, heard_until=now + board.asks_in_s, rest_s=rest_s)

    def _guess(self, mark: Mark, rate: float, *, anchor: Mark) -> Board:
        """Pace at a guess, a little above it, until refused or proved too low: then it is a measurement."""
        return replace(self, rate=rate, phase=Phase.PROBE, gain=GUESS_GAIN, before=0.0, measured=0, anchor=anchor)

    def _measured_by(self, mark: Mark) -> Board:
        assert self.last is not None
        assert self.anchor is not None
        epoch, whole = _between(self.last, mark), _between(self.anchor, mark)
        if whole.requests < FEW:
            return self._guess(mark, SHRINK * self.rate, anchor=self.anchor)
        if self.phase is Phase.CLIMB or self.rest_s > RESTED * whole.span_s:
            return self._guess(mark, clamp(whole.rate(self.unit), OVERSHOT * self.rate, SHRINK * self.rate), anchor=mark)
        level = self.rate * epoch.span_s - epoch.accepted[self.unit]
        margin = BEYOND * self.mean[self.unit] + SLACK * epoch.accepted[self.unit]
        if self.phase is Phase.HOLD and self.measured and level > margin:
            rate = min(FALL * self.rate, epoch.rate(self.unit)) if epoch.requests >= FEW else FALL * self.rate
            return self._guess(mark, rate, anchor=mark)
        board = self._with_epoch(epoch)
        rate = whole.rate(board.unit)
        if self.phase is Phase.PROBE and self.measured >= ENOUGH and board.unit is self.unit:
            rate = max(rate, self.before)
        forget = whole.requests > LONG and epoch.requests >= ENOUGH
        return replace(
            board,
            rate=max(rate, 1e-6),
            phase=Phase.HOLD if whole.requests >= ENOUGH else Phase.PROBE,
            gain=clamp(2 / whole.requests, GAIN, GUESS_GAIN),
            before=rate,
            measured=whole.requests,
            anchor=self.last if forget else self.anchor,
        )

    def _with_epoch(self, epoch: Epoch) -> Board:
        """Keep a measurement; choose the unit by what they say together."""
        epochs = (*self.epochs, epoch)[-MOST_EPOCHS:]
        chooser = UnitChooser()
        chooser.unit = self.unit
        for one in epochs:
            chooser.note(one)
        chooser.decide()
        return replace(self, epochs=epochs, unit=chooser.unit)

    # ---- the row

    def as_dict(self) -> dict[str, Any]:
        """Return the board as JSON holds it."""
        found = asdict(self)
        for name in ("silent_until", "heard_until"):
            found[name] = max(found[name], -1e300)
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Board:
        """Return the board that was stored; an empty one for what is not understood."""
        try:
            return cls(
                **{
                    **found,
                    "members": {name: Member(**one) for name, one in found["members"].items()},
                    "phase": Phase(found["phase"]),
                    "unit": Unit(found["unit"]),
                    "mean": Spend(*found["mean"]),
                    "accepted": Spend(*found["accepted"]),
                    "anchor": _mark(found["anchor"]),
                    "last": _mark(found["last"]),
                    "epochs": tuple(Epoch(span, Spend(*spent)) for span, spent in found["epochs"]),
                }
            )
        except (KeyError, TypeError, ValueError):
            return cls()


def _mark(found: Any) -> Mark | None:
    return None if found is None else Mark(found[0], Spend(*found[1]))


def _between(earlier: Mark, later: Mark) -> Epoch:
    return Epoch(max(later.at - earlier.at, 1e-3), later.accepted.minus(earlier.accepted))


