"""Quota: what the rate-limit headers say is left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from era_ingest.core.limiter.flight import LATENCY_GUESS_S, Flight, Unit, clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.contract import ServerHints

FRONT: Final = 8.0
"""A window is spent at this multiple of the even pace, falling as it empties."""
AHEAD: Final = 2.0
"""Latencies by which others' use is anticipated: headers are that old."""
SHARED_RESERVE: Final = 0.1
ALONE_RESERVE: Final = 0.04
"""Share of a bucket at which a client settles: when others use it too, and when not."""
ALONE: Final = 0.9
"""Share of the refill that is free: above it nobody else uses the bucket."""
WINDOW_SCORE: Final = 0.1
"""Score above which it is a window."""
PAIR_S: Final = 0.2
"""Headers closer in time than this tell only jitter about the refill, seconds."""
TRUST_S: Final = 1.0
"""How long the drift is extrapolated after the last header, seconds."""
ASK_S: Final = 1.0
"""After so long without a header, and two requests' refill, one request goes to ask, seconds."""
STALE_S: Final = 60.0
"""After so long without a header or a request, one goes to ask, whatever the last header said, seconds."""
LEFT: Final = 0.015
"""Share of a window worth asking for, when the guess at others' use says that nothing is left."""
CALM, CAREFUL = 10.0, 40.0
"""A window is spent no faster than in so many latencies: others do not see sooner what we have spent."""
EVEN: Final = 0.95
"""A window that is over before its headers arrive is spent at this share of its mean pace ..."""
SHORT_AFTER: Final = 5
"""... once its length was seen in so many pairs of headers."""
COARSE_S: Final = 1.0
"""Resets that never exceed this whole second are rounded, and say nothing about a refill."""
SHORT: Final = 3.0
"""Latencies within which a bucket that is no more of use fills."""
EMPTY: Final = 3.0
"""Requests below which a quota may be what refuses."""
MISSED: Final = 3
"""Good replies in a row without headers after which those of refusals are not believed."""
CATCH_UP_S: Final = 0.05
"""How much lateness of the sender is made up for, seconds."""


class Reading(NamedTuple):
    """A header as it stood when its request went out.

    Attributes:
        at: When the request went, seconds.
        remaining: Units left.
        full_at: When the quota is full again: a window's end is constant, a bucket's moves.
        own: What we had sent by then, units.
    """

    at: float
    remaining: float
    full_at: float
    own: float


class Quota:
    """Mirrors one ``x-ratelimit-*`` dimension and spends in proportion to what is left.

    Formula. ``level = remaining - own sends since + drift``, where drift (refill less other clients' use) is
    learned from pairs of headers. A window (its end stays where it is) is spent at ``8 * level / time left``,
    at most a tenth of the level a latency (a fortieth until two pairs of headers were seen) or what is even
    until its end: eight clients that begin together must not be faster than their headers;
    a bucket refills at ``r = (limit - remaining) / reset`` and is spent at ``r * level / reserve`` with
    ``reserve = max(10 % of the limit, 3 r latency, two requests)``, at most half the limit. The level is thus
    a price that every client reads alike: shares come out equal without a word, and the bucket never runs
    dry.

    State. The level and its time, the learned refill or window's end, a score of which of the two it is.

    A window shorter than ten latencies, or a bucket that fills within three, has changed before much can be
    heard of it: it is spent evenly, at 95 % of its mean pace, and refusals there are for `Refusals` to learn
    from. Headers without a reset, or with none but whole seconds of 1, are not believed.

    A header is believed for 60 s: then one request goes to ask again, whatever reset it named. When only the
    guess at others' use says that a window is empty, one asks each second. A refusal is this quota's if less
    than 10 % of it, or three requests, is left; others are for `Refusals` to learn from. After three good
    replies without headers those of refusals are not believed: nobody would correct them.

    Defaults. Alone (drift above 0.9 r) the reserve is 4 %. Negative or missing figures are no information.

    Weak spots. A new window is known only by the clock, and the first header comes one latency after the
    start. Headers rounded to whole units make a tiny bucket coarse.

    Args:
        unit: Requests or tokens.
    """

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.limit = math.inf
        self.level = math.inf
        self.refill = 0.0
        self._ends_at, self._width_s = 0.0, 0.0
        self._window_score = 0.0
        self._drift = 0.0
        self._at = self._heard_at = self._sent_at = self._next_at = 0.0
        self._mean_cost = 1.0
        self._own = 0.0
        self._last: Reading | None = None
        self._pair: Reading | None = None
        self._pairs = 0
        self._missed = 0

    @property
    def is_known(self) -> bool:
        """Whether a header has been seen."""
        return self.limit < math.inf

    @property
    def is_window(self) -> bool:
        """Whether it looks like a window rather than a bucket."""
        return self._window_score > WINDOW_SCORE

    def wait(self, now: float, cost: float, latency_s: float | None) -> float:
        """Return seconds until ``cost`` units may be spent; 0 if now."""
        if not self.is_known or now >= max(self._heard_at, self._sent_at) + STALE_S:
            return 0.0
        self._advance(now)
        cost = min(cost, self.limit)
        if self.level < cost and not self._is_short(latency_s):
            return self._wait_for(now, cost)
        pace = self.pace(now, latency_s)
        return max(0.0, self._next_at - now) if 0 < pace < math.inf else 0.0

    def pace(self, now: float, latency_s: float | None) -> float:
        """Return the units a second that may be spent now; infinity if nothing bounds it."""
        if not self.is_known:
            return math.inf
        latency = latency_s or LATENCY_GUESS_S
        if self._is_short(latency):
            return EVEN * (self.limit / self._width_s if self.is_window else self.refill)
        level = max(0.0, self.level)
        if self.is_window:
            round_trips = CALM if self._pairs > 1 else CAREFUL
            left_s = self._ends_at - now
            return level / max(0.5, left_s / FRONT, min(round_trips * latency, left_s))
        ahead = AHEAD * latency * min(0.0, self._drift)
        level = min(level, max(self.level + ahead, self._mean_cost))
        if self.refill <= 0:
            return math.inf
        share = ALONE_RESERVE if self._drift > ALONE * self.refill else SHARED_RESERVE
        round_trip = 3 * self.refill * latency
        reserve = max(share * self.limit, round_trip, 2 * self._mean_cost)
        return self.refill * level / min(reserve, 0.5 * self.limit)

    def on_send(self, now: float, flight: Flight, latency_s: float | None) -> None:
        """Spend a request's cost."""
        self._sent_at = now
        cost = flight.cost[self.unit]
        self._own = flight.sent_before[self.unit] + cost
        self._mean_cost += 0.05 * (cost - self._mean_cost)
        if not self.is_known:
            return
        pace = self.pace(now, latency_s)
        if 0 < pace < math.inf:
            self._next_at = max(now - CATCH_UP_S, self._next_at) + cost / pace
        self.level -= cost

    def _is_short(self, latency_s: float | None) -> bool:
        """Return whether it is full again before much can be heard of it."""
        latency = latency_s or LATENCY_GUESS_S
        if self._pairs <= SHORT_AFTER:
            return False
        if self.is_window:
            return self._width_s < CALM * latency
        return self.limit < SHORT * latency * self.refill

    def explains(self, latency_s: float | None) -> bool:
        """Return whether a refusal may be this quota's: little is left of it, as far as known."""
        if self._is_short(latency_s):
            return False
        return self.is_known and self.level < max(EMPTY * self._mean_cost, SHARED_RESERVE * self.limit)

    def on_refused(self) -> None:
        """Note a 429 in spite of the headers: nothing is left, whatever the mirror says."""
        if self.is_known:
            self.level = min(self.level, 0.5 * self._mean_cost)

    def on_hints(self, now: float, flight: Flight, hints: ServerHints, *, refused: bool = False) -> None:
        """Take the headers of a reply; good replies without them mean that there is no mirror to be had."""
        limit, remaining, reset_s = _figures(self.unit, hints)
        is_coarse = reset_s is None or max(self._width_s, reset_s) == COARSE_S
        if limit is None or remaining is None or limit <= 0 or remaining < 0 or is_coarse:
            self._missed += not refused
            if self._missed >= MISSED:
                self.limit = self.level = math.inf
            return
        if refused and self._missed >= MISSED:
            return
        self._missed = 0 if not refused else self._missed
        own = flight.sent_before[self.unit] + flight.cost[self.unit]
        reset_s = max(reset_s or 0.0, 0.0)
        reading = Reading(flight.sent_at, remaining, flight.sent_at + reset_s, own)
        if self._last is not None and reading.at <= self._last.at:
            return
        self._last, self.limit = reading, limit
        self._learn_drift(reading)
        if reset_s > 0 and remaining < limit and not self.is_window:
            refill = (limit - remaining) / reset_s
            self.refill += (0.3 if self.refill else 1.0) * (refill - self.refill)
        self._drift = min(self._drift, 0.0 if self.is_window else self.refill)
        self._ends_at = reading.full_at
        self._width_s = max(self._width_s, reset_s)
        self.level = remaining - (self._own - own)
        self._at = self._heard_at = reading.at
        self._advance(now)

    def _learn_drift(self, reading: Reading) -> None:
        pair = self._pair
        if pair is None:
            self._pair = reading
            return
        span = reading.at - pair.at
        if span < PAIR_S:
            return
        self._pair = reading
        if reading.remaining - pair.remaining >= 0.3 * self.limit:
            return
        stays = abs(reading.full_at - pair.full_at) < 0.3 * span
        self._window_score += 0.3 * ((1.0 if stays else -1.0) - self._window_score)
        drift = (reading.remaining - pair.remaining + reading.own - pair.own) / span
        self._pairs += 1
        self._drift += max(min(1.0, span), 1 / self._pairs) * (drift - self._drift)

    def _advance(self, now: float) -> None:
        """Let the mirror drift to ``now``; a window that ended is full again."""
        trusted = self._heard_at + TRUST_S
        drifted = self.level + self._drift * max(0.0, min(now, trusted) - min(self._at, trusted))
        self.level = max(drifted, min(self.level, 0.0))
        self._at = now
        if self.is_window and now > self._ends_at:
            self.level, self._next_at = self.limit, now
            self._ends_at = now + self._width_s
        self.level = min(self.level, self.limit)

    def _heard_left(self) -> float:
        """Return what the last header left to us, without a guess at what others have used since."""
        return -math.inf if self._last is None else self._last.remaining - (self._own - self._last.own)

    def _wait_for(self, now: float, cost: float) -> float:
        if self.is_window:
            worth_asking = self._heard_left() >= max(cost, LEFT * self.limit)
            ask_at = max(self._heard_at, self._sent_at) + ASK_S if worth_asking else math.inf
            return max(0.0, min(self._ends_at + 0.02, ask_at) - now)
        if self.refill <= 0:
            return ASK_S
        silent_until = max(self._heard_at, self._sent_at) + max(ASK_S, 2 * cost / self.refill)
        return max(0.0, min(clamp((cost - self.level) / self.refill, 0.01, 1.0), silent_until - now))


def _figures(unit: Unit, hints: ServerHints) -> tuple[float | None, float | None, float | None]:
    if unit is Unit.REQUESTS:
        return hints.limit_requests, hints.remaining_requests, hints.reset_requests_s
    return hints.limit_tokens, hints.remaining_tokens, hints.reset_tokens_s
