"""Cap: a server that refuses above so many requests in flight."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import LATENCY_GUESS_S, REFUSAL_GUESS_S

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight

RAISE_FIRST_S: Final = 5.0
RAISE_SHARE: Final = 1 / 16
RAISE_MOST_S: Final = 120.0
VOTES: Final = 1
VOTES_WITHIN_S: Final = 60.0
SURELY_BELOW: Final = 0.75
"""A refusal at less than this share of the cap cannot come from a cap."""


CONTRADICTED: Final = 1.15
"""Let in at so many times the load that was refused: it was no cap, but a quota that had run dry."""
DISCREDITED_S: Final = 300.0
"""For so long after that, refusals are taken for a quota at once, seconds."""


class Doubt(StrEnum):
    """How far the test of a suspected cap has come."""

    NONE = "none"
    WAITING = "waiting"
    """Nothing goes until a request has returned: then a place is free for sure."""
    READY = "ready"
    """One request may go."""
    TESTING = "testing"
    """That request is out; if it were refused, it would be known by now or soon."""


class Cap:
    """Believes in a cap while refusals come only above it.

    Formula. After a refusal at ``k`` in flight the cap is ``k - 1``. One request goes once another has
    returned: refused, there is no cap but a quota; not refused within three times the time that refusals
    take, the cap stands. Above the cap one more is tried after 15 s, doubling to 120 s while it is refused;
    accepted, the cap rises by 1, 2, 4, ... a round trip.

    State. The cap (infinite: none), the doubt about it, the next attempt to raise it.

    Defaults. Refusals a little below the cap lower it (requests on the wire are counted by us, not by the
    server); more of them within a minute than may be on the wire, and one, or one below 0.75 of it, refute it.

    Weak spot. A quota just below what the cap lets through looks like a cap until its refusals refute it.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self.doubt = Doubt.NONE
        self.refusal_s = REFUSAL_GUESS_S
        self.raising_by = 0
        self.discredited_until = -math.inf
        self._refused_load = math.inf
        self._set_at = -math.inf
        self._votes, self._votes_since = 0, 0.0
        self._deadline = 0.0
        self._latency_s = LATENCY_GUESS_S
        self._raise_at, self._raise_wait_s, self._raise_step = math.inf, RAISE_FIRST_S, 1

    @property
    def is_suspected(self) -> bool:
        """Whether a cap is believed in."""
        return self.limit < math.inf

    @property
    def allowed(self) -> float:
        """Requests that may be in flight."""
        return self.limit + self.raising_by

    def wait(self, now: float, in_flight: int) -> float:
        """Return 0 if a request may go, else seconds or infinity while the test runs."""
        if self.doubt is Doubt.WAITING:
            if in_flight > 0:
                return math.inf
            self.doubt = Doubt.READY
        if self.doubt is Doubt.TESTING:
            if now < self._deadline:
                return self._deadline - now
            self.doubt = Doubt.NONE
        return 0.0

    def suspect(self, now: float, load: int, *, test: bool) -> None:
        """Take a refusal at ``load`` in flight for a cap; ``test`` it with one request first."""
        self.limit = max(1, load - 1)
        self._set_at, self._votes, self._votes_since, self._refused_load = now, 0, now, load
        self._raise_at, self._raise_wait_s = now + RAISE_FIRST_S, RAISE_FIRST_S
        self._raise_step = self._first_step()
        self.raising_by = 0
        self.doubt = Doubt.WAITING if test else Doubt.NONE

    def on_send(self, now: float) -> None:
        """Note a request that goes out."""
        if self.doubt is Doubt.READY:
            self.doubt, self._deadline = Doubt.TESTING, now + 3 * self.refusal_s + 0.01

    def on_success(self, now: float, flight: Flight, latency_s: float) -> None:
        """Note a reply: a place is free, and perhaps the cap is higher than thought."""
        self._latency_s = latency_s
        if self.doubt is Doubt.WAITING:
            self.doubt = Doubt.READY
        if not self.is_suspected:
            return
        if flight.in_flight > CONTRADICTED * self._refused_load + 2:
            self.clear()
            self.discredited_until = now + DISCREDITED_S
        elif self.raising_by and flight.in_flight > self.limit:
            self.limit += self.raising_by
            self._raise_step, self._raise_wait_s = 2 * self._raise_step, RAISE_FIRST_S
            self.raising_by, self._raise_at = 0, now + latency_s
        elif not self.raising_by and now >= self._raise_at and flight.in_flight >= self.limit:
            self.raising_by = self._raise_step

    def on_refused(self, now: float, flight: Flight) -> bool:
        """Note a refusal; return False if it refutes the cap."""
        if flight.in_flight > self.limit or flight.sent_at <= self._set_at:
            self._refused_above(now, flight)
            return True
        if now > self._votes_since + VOTES_WITHIN_S:
            self._votes, self._votes_since = 0, now
        self._votes += 1
        sure = self.doubt is Doubt.TESTING or flight.in_flight < SURELY_BELOW * self.limit
        if sure or self._votes > VOTES + int(self._refused_load * self.refusal_s / self._latency_s):
            self.clear()
            return False
        self.limit = max(1, flight.in_flight - 1)
        self._set_at, self._refused_load = now, min(self._refused_load, flight.in_flight)
        return True

    def _refused_above(self, now: float, flight: Flight) -> None:
        if self.raising_by:
            self.raising_by, self._raise_step = 0, self._first_step()
            self._raise_wait_s = min(RAISE_MOST_S, 2 * self._raise_wait_s)
        elif flight.sent_at <= self._set_at:
            self.limit = max(1, min(self.limit, flight.in_flight - 1))
        self._raise_at = now + self._raise_wait_s

    def _first_step(self) -> int:
        return max(1, int(RAISE_SHARE * self.limit))

    def clear(self) -> None:
        """Believe in no cap."""
        self.limit, self.doubt, self.raising_by, self._raise_at = math.inf, Doubt.NONE, 0, math.inf
