"""Board: who is there on one key, what was let in, and each run's share of the common rate.

A board is a small value that lies in one place (a row of the database). Runs come by twice a second, say what
they sent and what was refused, and take their share of the pace along. It is pure: whoever holds the row calls
`exchange` and stores what became of the board.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from era_ingest.core.limiter.common_rate import (
    ASK_S,
    PROBE_AT,
    REFUSED_SHARE,
    CommonRate,
    Mark,
    Phase,
)
from era_ingest.core.limiter.flight import NOTHING, Spend, Unit
from era_ingest.core.limiter.spending import Epoch

if TYPE_CHECKING:
    from collections.abc import Mapping

ALONE_ASK_S: Final = 1.0
"""A run that is alone comes by as often as this, seconds."""
GONE_S: Final = 4.0
"""Who has not come by for so long is gone, and its share is free, seconds."""
SEED: Final = 0.5
"""A climb begins at so much of what the runs' own estimates add up to."""
DEBT: Final = -1.5
"""Refusals beyond the earned ones, at most, that later requests have to earn."""
MORE: Final = 1.3
"""A run that did not use its share gets so many times what it used."""


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
    """A run on the board.

    Attributes:
        seen_at: When it was last here, seconds.
        asks_in_s: It comes again so many seconds later.
        starts_at: It sends its share from then on, seconds.
        is_hungry: Whether it wants more.
        share: Units a second that it was given; 0: none yet.
        used: Units a second that it used lately.
    """

    seen_at: float
    asks_in_s: float
    starts_at: float
    is_hungry: bool
    share: float = 0.0
    used: float = 0.0

    def sent_since(self, now: float) -> float:
        """Return the units that it has probably sent since it was last here."""
        pace = self.share if self.is_hungry else min(self.share, self.used)
        return pace * max(0.0, min(now - max(self.seen_at, self.starts_at), ASK_S))


@dataclass(slots=True)
class Board:
    """What all runs on one key know together.

    Each hungry run gets an equal part of the pace that the others leave. A newcomer starts when all others
    have been here and know of it, so that the shares never add up to more than the pace; after a refusal the
    runs start one after another, so that their requests do not come in volleys.

    Attributes:
        members: The runs by name.
        accepted: What was let in, as far as it was told.
        common: The rate, and how it is learned.
    """

    members: dict[str, Member] = field(default_factory=dict)
    accepted: Spend = NOTHING
    common: CommonRate = field(default_factory=CommonRate)

    def exchange(self, now: float, name: str, report: Report) -> Grant:
        """Take a run's report and give it its share.

        Args:
            now: Seconds of the board's own clock.
            name: The run's.
            report: Since the run last came by.
        """
        self._forget_gone(now)
        is_new = name not in self.members
        self._note(now, name, report)
        common, is_shared = self.common, len(self.members) > 1
        if not is_shared:
            common.adopt(report.own_rate, report.own_unit)
        elif is_new or common.phase is Phase.NONE:
            self._welcome(now, report, is_new=is_new)
        common.purse = max(DEBT, common.purse - len(report.refusals))
        if is_shared and common.phase is not Phase.NONE:
            for age_s in sorted(report.refusals, reverse=True):
                at = now - age_s
                common.on_refused(now, Mark(at, self._accepted_at(at)), report.retry_after_s)
            is_used = any(one.is_hungry for one in self.members.values())
            common.move_on(now, self._accepted_at(now), is_used=is_used)
        return self._give(now, name)

    def leave(self, name: str) -> None:
        """Take a run out."""
        self.members.pop(name, None)

    def is_shared_at(self, now: float) -> bool:
        """Return whether runs are here that know a rate, so that a newcomer had better ask for a share."""
        return self.common.phase is not Phase.NONE and any(
            one.seen_at > now - GONE_S for one in self.members.values()
        )

    # ---- who is here

    def _forget_gone(self, now: float) -> None:
        self.members = {name: one for name, one in self.members.items() if one.seen_at > now - GONE_S}

    def _note(self, now: float, name: str, report: Report) -> None:
        was = self.members.get(name) or Member(now, ASK_S, now, report.is_hungry)
        span = now - was.seen_at
        used = report.accepted[self.common.unit] / span if span > 0 else was.used
        self.members[name] = replace(was, seen_at=now, is_hungry=report.is_hungry, used=used)
        self.accepted = self.accepted.plus(report.accepted)
        count = report.accepted.requests
        self.common.purse = min(PROBE_AT, self.common.purse + REFUSED_SHARE * count)
        if count >= 1:
            weight = max(min(0.5, 0.02 * count), min(1.0, count / max(1.0, self.accepted.requests)))
            tokens = self.common.mean.tokens
            tokens += weight * (report.accepted.tokens / count - tokens)
            self.common.mean = Spend(1.0, max(1e-6, tokens))

    def _welcome(self, now: float, report: Report, *, is_new: bool) -> None:
        """Climb from what the runs found out before they knew of each other: parts of the limit."""
        common = self.common
        if common.phase is Phase.NONE:
            if report.own_rate > 0:
                each = 1 if is_new else len(self.members)
                common.begin(now, SEED * report.own_rate * each, report.own_unit)
        elif not common.measured:
            more = SEED * report.own_rate if report.own_unit is common.unit else 0.0
            common.begin(now, common.rate + more, common.unit)

    def _accepted_at(self, now: float) -> Spend:
        """Return what was let in by ``now``, as far as it was told or can be expected."""
        requests = sum(one.sent_since(now) for one in self.members.values()) / self.common.unit_cost
        return self.accepted.plus(Spend(requests, requests * self.common.mean.tokens))

    # ---- shares

    def _give(self, now: float, name: str) -> Grant:
        me, common = self.members[name], self.common
        others = [one for other, one in self.members.items() if other != name]
        share = self._share(name) if others else math.inf
        starts_s = 0.0
        if share < math.inf:
            if common.silent_until > now:
                place = sorted(self.members).index(name)
                starts_s = common.silent_until - now + place * common.unit_cost / common.pace
            if me.share <= 0:
                starts_s = max(starts_s, *(one.seen_at + one.asks_in_s - now for one in others))
        asks_in_s = common.asks_in_s if others else ALONE_ASK_S
        self.members[name] = replace(
            me,
            asks_in_s=asks_in_s,
            starts_at=now + starts_s if starts_s > 0 else me.starts_at,
            share=share if share < math.inf else 0.0,
        )
        return Grant(len(others), share, common.unit, starts_s, asks_in_s)

    def _share(self, name: str) -> float:
        """Return units a second: what those leave who need less is divided among the others."""
        if self.common.phase is Phase.NONE:
            return math.inf
        left, takers = self.common.pace, len(self.members)
        least = 2 * self.common.unit_cost / GONE_S
        wants = {
            other: math.inf if one.is_hungry else MORE * one.used + least
            for other, one in self.members.items()
        }
        for other in sorted(wants, key=wants.__getitem__):
            part = min(wants[other], left / takers)
            if other == name:
                break
            left, takers = left - part, takers - 1
        return part

    # ---- the row

    def as_dict(self) -> dict[str, Any]:
        """Return the board as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Board:
        """Return the board that was stored; an empty one for what another version wrote."""
        try:
            common = found["common"]
            return cls(
                {name: Member(**one) for name, one in found["members"].items()},
                Spend(*found["accepted"]),
                CommonRate(
                    **{
                        **common,
                        "phase": Phase(common["phase"]),
                        "unit": Unit(common["unit"]),
                        "mean": Spend(*common["mean"]),
                        "anchor": _mark(common["anchor"]),
                        "last": _mark(common["last"]),
                        "epochs": [Epoch(span, Spend(*spent)) for span, spent in common["epochs"]],
                    }
                ),
            )
        except (KeyError, TypeError, ValueError):
            return cls()


def _mark(found: Any) -> Mark | None:
    return None if found is None else Mark(found[0], Spend(*found[1]))
