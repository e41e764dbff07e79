"""Quota: paces to what the rate-limit headers say is left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import LATENCY_GUESS_S, Flight, Unit, clamp
from era_ingest.core.limiter.mirror import Mirror, Reading
from era_ingest.core.limiter.pacer import Pacer

if TYPE_CHECKING:
    from era_ingest.core.limiter.contract import ServerHints
    from era_ingest.core.limiter.flight import Uniform

FRONT: Final = 8.0
FRONT_ALONE: Final = 32.0
"""A window is spent at this multiple of the even pace, falling as it empties; and one that is ours alone."""
ALONE_BELOW: Final = 1.15
"""Company below which nobody else uses the quota."""
SHARED: Final = (0.1, 3.0, 32.0)
ALONE: Final = (0.04, 1.0, 2.0)
"""What a bucket keeps in reserve when others use it too, and when not: share, latencies of refill, requests."""
LOW: Final = 0.1
"""Share of a quota below which it may be what refuses ..."""
ASK_S: Final = 1.0
"""After so long without a header, and two requests' refill, one request goes to ask, seconds."""
STALE_S: Final = 60.0
"""After so long without a header or a request, one goes to ask, whatever the last header said, seconds."""
LEFT: Final = 0.015
"""Share of a window worth asking for, when the guess at others' use says that nothing is left."""
CALM: Final = 8.0
"""A shared quota is spent no faster than in so many latencies, times the root of the company."""
CALM_ALONE: Final = 3.0
"""... and one that is ours alone than in so many."""
SOONEST_S: Final = 0.5
"""Or in so much, if that is more, seconds."""
EVEN: Final = 0.95
"""A window that is over before its headers arrive is spent at this share of its mean pace ..."""
SHORT_AFTER: Final = 5
"""... once its length was seen in so many pairs of headers."""
COARSE_S: Final = 1.0
"""Resets that never exceed this whole second are rounded, and say nothing about a refill."""
SHORT_WINDOW: Final = 10.0
SHORT: Final = 3.0
"""Latencies within which a window of our own is over, or one that others use too, or a bucket fills, that is no more of
use."""
EMPTY: Final = 3.0
"""... or so many requests."""
MISSED: Final = 3
"""Good replies in a row without headers after which those of refusals are not believed."""
CATCH_UP_S: Final = 0.02
"""How much lateness of the sender is made up for, seconds."""
UNEVEN: Final = 0.8
"""Gaps between requests of a shared quota vary by half of this share up and down: no volleys."""


class Quota:
    """Spends one ``x-ratelimit-*`` dimension in proportion to what is left of it.

    Formula. With the level of `Mirror`, a window is spent at ``32 * level / time left``, a bucket that refills
    at ``r`` at ``r * (level / reserve)^2`` with ``reserve = max(10 % of the limit, 3 r latency, 32 requests)``,
    at most half the limit. The level is thus a price that every client reads alike: shares come
    out equal without a word, and a bucket never runs dry. (Squared, ``n`` clients settle at ``reserve / root
    n``, and return there in half that over ``r root n``: linear in the level both would shrink with ``n``.)

    Of what a bucket holds beyond the reserve, and of a window at all, no more is spent than in ``8 root(company)``
    latencies, nor a window faster than evenly twice over: all together then take three latencies at least, and
    each hears of it in time. The root, since with the
    company itself nobody's share would ever change: who sends less sees more company.

    A window is left alone when less than one request for each of the company is left: all would send it. Gaps
    are drawn at random within 40 %, so that clients that read the same header do not send at the same instant.

    A window shorter than ten latencies, or a bucket that fills within three, has changed before much can be heard of
    it: it is spent evenly, at 95 % of its mean pace, and refusals there are for `Refusals` to learn from. A window that
    others use too only below three: the mean pace is all of theirs, not ours. Headers without a reset, or with none but
    whole seconds of 1, are not believed.

    State. The mirror, and the credit of the pace.

    Defaults. Alone (company below 1.15) the reserve is 4 %, one latency or two requests, and three latencies are
    enough to spend what is there: nothing can come in between. Negative or missing figures are no information. A
    header is believed for 60 s: then one request goes to ask again, whatever reset it named. When only the
    guess at others' use says that a window is empty, one asks each second. A refusal is this quota's if less
    than 10 % of it, or three requests, is left; others are for `Refusals` to learn from. After three good
    replies without headers those of refusals are not believed: nobody would correct them.

    Weak spots. A new window is known only by the clock, and the first header comes one latency after the
    start. Headers rounded to whole units make a tiny bucket coarse.

    Args:
        unit: Requests or tokens.
        uniform: Randomness of the gaps, in [0, 1).
    """

    def __init__(self, unit: Unit, uniform: Uniform) -> None:
        self.unit = unit
        self.mirror = Mirror()
        self._uniform, self._pacer = uniform, Pacer()
        self._heard_at = self._sent_at = 0.0
        self._mean_cost = 1.0
        self._gap = 1.0
        self._missed = 0

    @property
    def is_known(self) -> bool:
        """Whether a header has been seen."""
        return self.mirror.is_known

    @property
    def is_window(self) -> bool:
        """Whether it looks like a window rather than a bucket."""
        return self.mirror.is_window

    @property
    def refill(self) -> float:
        """Units a second that come back."""
        return self.mirror.refill

    def wait(self, now: float, cost: float, latency_s: float | None) -> float:
        """Return seconds until ``cost`` units may be spent; 0 if now."""
        if not self.is_known or now >= max(self._heard_at, self._sent_at) + STALE_S:
            return 0.0
        cost = min(cost, self.mirror.limit)
        least = self._for_all(cost) if self.is_window else cost
        if self.mirror.level(now) < least and not self._is_short(latency_s):
            return self._wait_for(now, cost)
        pace = self.pace(now, latency_s)
        if not 0 < pace < math.inf:
            return 0.0
        return min(ASK_S, self._pacer.wait(now, self._gap * cost, pace, self._most_credit(pace)))

    def pace(self, now: float, latency_s: float | None) -> float:
        """Return the units a second that may be spent now; infinity if nothing bounds it."""
        mirror, latency = self.mirror, latency_s or LATENCY_GUESS_S
        if not mirror.is_known:
            return math.inf
        if self._is_short(latency):
            return EVEN * (mirror.limit / mirror.width_s if mirror.is_window else mirror.refill)
        level = max(0.0, mirror.level(now))
        calm = CALM * math.sqrt(mirror.company) if self._is_shared else CALM_ALONE
        round_trips_s = calm * latency
        if mirror.is_window:
            left_s = mirror.ends_at - now
            return level / max(
                min(SOONEST_S, latency),
                left_s / (FRONT if self._is_shared else FRONT_ALONE),
                min(round_trips_s, left_s / 2),
            )
        if not mirror.pairs:
            return level / max(SOONEST_S, round_trips_s)
        if mirror.refill <= 0:
            return math.inf
        share, round_trips, requests = SHARED if self._is_shared else ALONE
        reserve = max(share * mirror.limit, round_trips * mirror.refill * latency, requests * self._mean_cost)
        reserve = min(reserve, 0.5 * mirror.limit)
        pace = mirror.refill * (level / reserve) ** 2
        return min(pace, mirror.refill + max(0.0, level - reserve) / round_trips_s)

    def on_send(self, now: float, flight: Flight, latency_s: float | None) -> None:
        """Spend a request's cost."""
        self._sent_at = now
        cost = flight.cost[self.unit]
        self._mean_cost += 0.05 * (cost - self._mean_cost)
        if self.is_known:
            pace = self.pace(now, latency_s)
            if 0 < pace < math.inf:
                self._pacer.spend(now, self._gap * cost, pace, self._most_credit(pace))
            self._gap = 1 + UNEVEN * (self._uniform() - 0.5) if self._is_shared else 1.0
        self.mirror.on_send(flight.sent_before[self.unit] + cost, self._mean_cost)

    def _for_all(self, cost: float) -> float:
        """Return what all spend if each that reads the same headers sends one request."""
        return cost * (self.mirror.company if self._is_shared else 1.0)

    @property
    def _is_shared(self) -> bool:
        return self.mirror.company > ALONE_BELOW

    def _most_credit(self, pace: float) -> float:
        return max(1.5 * self._mean_cost, CATCH_UP_S * pace)

    def _is_short(self, latency_s: float | None) -> bool:
        """Return whether it is full again before much can be heard of it."""
        mirror, latency = self.mirror, latency_s or LATENCY_GUESS_S
        if mirror.pairs <= SHORT_AFTER:
            return False
        if mirror.is_window:
            return mirror.width_s < (SHORT if self._is_shared else SHORT_WINDOW) * latency
        return mirror.limit < SHORT * latency * mirror.refill

    def explains(self, now: float, latency_s: float | None) -> bool:
        """Return whether a refusal may be this quota's: little is left of it, as far as known."""
        if self._is_short(latency_s) or not self.is_known:
            return False
        return self.mirror.level(now) < max(EMPTY * self._mean_cost, LOW * self.mirror.limit)

    def on_refused(self, now: float) -> None:
        """Note a 429 in spite of the headers: nothing is left, whatever the mirror says."""
        self.mirror.on_refused(now, 0.5 * self._mean_cost)

    def on_hints(self, now: float, flight: Flight, hints: ServerHints, *, refused: bool = False) -> None:
        """Take the headers of a reply; good replies without them mean that there is no mirror to be had."""
        del now
        limit, remaining, reset_s = _figures(self.unit, hints)
        is_coarse = reset_s is None or max(self.mirror.width_s, reset_s) == COARSE_S
        if limit is None or remaining is None or limit <= 0 or remaining < 0 or is_coarse:
            self._missed += not refused
            if self._missed >= MISSED:
                self.mirror.forget()
            return
        if refused and self._missed >= MISSED:
            return
        self._missed = 0 if not refused else self._missed
        own = flight.sent_before[self.unit] + flight.cost[self.unit]
        full_at = flight.sent_at + max(reset_s or 0.0, 0.0)
        if self.mirror.read(Reading(flight.sent_at, remaining, full_at, own), limit):
            self._heard_at = flight.sent_at

    def _wait_for(self, now: float, cost: float) -> float:
        mirror = self.mirror
        silent_since = max(self._heard_at, self._sent_at)
        if self.is_window:
            worth_asking = mirror.heard_left() >= max(self._for_all(cost), LEFT * mirror.limit)
            ask_at = silent_since + ASK_S if worth_asking else math.inf
            return max(0.0, min(mirror.ends_at + 0.02, ask_at) - now)
        if mirror.refill <= 0:
            return ASK_S
        silent_until = silent_since + max(ASK_S, 2 * cost / mirror.refill)
        missing = cost - mirror.level(now)
        return max(0.0, min(clamp(missing / mirror.refill, 0.01, 1.0), silent_until - now))


def _figures(unit: Unit, hints: ServerHints) -> tuple[float | None, float | None, float | None]:
    if unit is Unit.REQUESTS:
        return hints.limit_requests, hints.remaining_requests, hints.reset_requests_s
    return hints.limit_tokens, hints.remaining_tokens, hints.reset_tokens_s
