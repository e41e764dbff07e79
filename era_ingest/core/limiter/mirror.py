"""Mirror: what one ``x-ratelimit-*`` dimension holds now, from what its headers said and we have sent since."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from era_ingest.core.limiter.flight import clamp

WINDOW_SCORE: Final = 0.1
"""Score above which it is a window."""
PAIR_S: Final = 0.2
"""Headers closer in time than this tell only jitter, seconds."""
TURNED: Final = 0.3
"""Share of the limit that comes back at once only when a window turns."""
MOST_COMPANY: Final = 16.0
FIRST_COMPANY: Final = 8.0
"""Clients that are reckoned with until the headers show how many there are ..."""
PRIOR: Final = 2.0
"""... which weighs as much as so many requests of our own."""
MEMORY: Final = 24.0
"""Requests of our own over which the others' are compared with them."""


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


class Mirror:
    """Knows what is left of a quota between two headers, other clients' use included.

    Formula. ``level = remaining - company * own sends since + refill * time since``. ``company`` is what all
    clients together send for each unit of ours, measured between pairs of headers over our last two dozen
    requests. Whoever reads the same headers does as we do, at the same time: when all have been silent, none
    is, and when we begin, so do they. An extrapolated rate of their use would be wrong by the whole of it then.

    State. The last reading, the learned refill or the window's end and width, a score of which of the two it
    is, and the company (1 to 16; 8 until known).

    Weak spot. Others that do not obey headers are seen only in the readings themselves.

    Attributes:
        limit: Units when full; infinite until a header was seen.
        refill: Units a second; 0 for a window.
        ends_at: When the window ends, seconds.
        width_s: The longest reset that was seen, seconds.
        pairs: Pairs of headers that were compared.
        own: What we have sent in all, units.
        last: The last reading, or the turn of a window, or a refusal.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self.refill = 0.0
        self.ends_at = self.width_s = 0.0
        self.pairs = 0
        self.own = 0.0
        self.last: Reading | None = None
        self._pair: Reading | None = None
        self._window_score = 0.0
        self._ours, self._others = 0.0, 0.0
        self._mean_cost = 1.0

    @property
    def is_known(self) -> bool:
        """Whether a header has been seen, and is believed."""
        return self.limit < math.inf

    @property
    def is_window(self) -> bool:
        """Whether it looks like a window rather than a bucket."""
        return self._window_score > WINDOW_SCORE

    @property
    def company(self) -> float:
        """Clients on this quota, ourselves included, as if all sent as much as we: 1 to 16."""
        prior = PRIOR * self._mean_cost
        others = self._others + (FIRST_COMPANY - 1) * prior * self._doubt
        return clamp(1 + others / max(self._ours + prior * self._doubt, 1e-9), 1.0, MOST_COMPANY)

    @property
    def _doubt(self) -> float:
        """Return what is left of the first guess: it is forgotten as what we send is compared."""
        return math.exp(-self._ours / (4 * self._mean_cost))

    def forget(self) -> None:
        """Believe the headers no more."""
        self.limit = math.inf

    def level(self, now: float) -> float:
        """Return the units that are left at ``now``; below 0 if more was sent than there was."""
        last = self._turned(now)
        if last is None:
            return math.inf
        level = last.remaining - self.company * (self.own - last.own) + self.refill * (now - last.at)
        return min(level, self.limit)

    def heard_left(self) -> float:
        """Return what the last header left to us, without a guess at what others have used since."""
        return -math.inf if self.last is None else self.last.remaining - (self.own - self.last.own)

    def on_send(self, own: float, mean_cost: float) -> None:
        """Note what we have sent in all, and the units of a mean request."""
        self.own, self._mean_cost = own, mean_cost

    def on_refused(self, now: float, left: float) -> None:
        """Note that at most so much is left, whatever the headers said."""
        if self.last is not None and self.level(now) > left:
            self.last = Reading(now, left, self.ends_at, self.own)

    def read(self, reading: Reading, limit: float) -> bool:
        """Take a header; return whether it is newer than the last."""
        if self.last is not None and reading.at <= self.last.at:
            return False
        reset_s = reading.full_at - reading.at
        self.limit = limit
        self._compare(reading)
        if self.is_window:
            self.refill = 0.0
        elif reset_s > 0 and reading.remaining < limit:
            refill = (limit - reading.remaining) / reset_s
            self.refill += (0.3 if self.refill else 1.0) * (refill - self.refill)
        self.last, self.ends_at = reading, reading.full_at
        self.width_s = max(self.width_s, reset_s)
        return True

    def _compare(self, reading: Reading) -> None:
        """Learn from two headers whether it is a window, and what others used between them."""
        pair = self._pair
        if pair is not None and reading.at - pair.at < PAIR_S:
            return
        self._pair = reading
        if pair is None or reading.remaining - pair.remaining >= TURNED * self.limit:
            return
        span = reading.at - pair.at
        stays = abs(reading.full_at - pair.full_at) < 0.3 * span
        self._window_score += 0.3 * ((1.0 if stays else -1.0) - self._window_score)
        self.pairs += 1
        ours = reading.own - pair.own
        if ours <= 0 or reading.remaining >= self.limit:
            return
        kept = math.exp(-ours / (MEMORY * self._mean_cost))
        back = 0.0 if self.is_window else self.refill * span
        used = pair.remaining - reading.remaining + back
        self._ours = kept * self._ours + ours
        self._others = max(0.0, kept * self._others + used - ours)

    def _turned(self, now: float) -> Reading | None:
        """Return the last reading; a window that ended is full again."""
        if self.last is not None and self.is_window and now > self.ends_at:
            self.last = Reading(self.ends_at, self.limit, self.ends_at + self.width_s, self.own)
            while now > self.ends_at:
                self.ends_at += self.width_s
        return self.last
