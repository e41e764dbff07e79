"""Drought: a spell in which nothing is let in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight

ALONE_FROM: Final = 2
"""Refusals in a row from which requests go one at a time."""
SHARE: Final = 0.3
SOONEST_S: Final = 0.25
LATEST_S: Final = 5.0
LATE_S: Final = 0.01


class Drought:
    """Counts refusals in a row, and asks ever more rarely, one request at a time.

    Formula. The n-th question comes after 0.3 of the time that the drought has lasted, between 0.25 and 5 s.
    A request was let in when it is answered well, but also, long before that on a slow server, when it is not
    refused within three times the time that refusals take. A refusal of a request sent before the last
    refusal was heard is the same refusal.

    State. Refusals in a row, when the first of them was sent, and the first request sent after the last one.
    """

    def __init__(self) -> None:
        self.length = 0
        self.since = 0.0
        self._heard_at = -math.inf
        self._asked_at: float | None = None
        self._asked_ticket = 0

    def wait(self, now: float, refusal_s: float) -> float:
        """Return seconds until the question that is out counts as let in; 0 if none is."""
        if self._asked_at is None or self.length < ALONE_FROM:
            return 0.0
        return max(0.0, self._asked_at + 3 * refusal_s + LATE_S - now)

    def is_old(self, flight: Flight) -> bool:
        """Return whether the request was sent before the last refusal was heard."""
        return flight.sent_at <= self._heard_at

    def on_send(self, flight: Flight) -> None:
        """Note a request that goes out."""
        if self.length and self._asked_at is None:
            self._asked_at, self._asked_ticket = flight.sent_at, flight.ticket

    def on_refused(self, now: float, flight: Flight) -> None:
        """Note a new refusal; call `ended_by` first."""
        self._heard_at, self._asked_at = now, None
        self.length += 1
        if self.length == 1:
            self.since = flight.sent_at

    def pause(self, now: float, since: float = math.inf) -> float:
        """Return seconds until the next question; of one that cannot end soon after ``since``, it is later."""
        return clamp(SHARE * (now - min(self.since, since)), SOONEST_S, LATEST_S)

    def on_lost(self, flight: Flight) -> None:
        """Note a request that brought no answer."""
        if flight.ticket == self._asked_ticket:
            self._asked_at = None

    def ended_by(self, refused: Flight) -> float | None:
        """Return what `end` does if a request sent before this refused one was let in, else None."""
        if self._asked_at is None or self.is_old(refused) or refused.ticket == self._asked_ticket:
            return None
        return self._end()

    def ended_at(self, now: float, refusal_s: float) -> float | None:
        """Return what `end` does if the question that is out was not refused in time, else None."""
        if self._asked_at is None or now < self._asked_at + 3 * refusal_s + LATE_S:
            return None
        return self._end()

    def answered(self, flight: Flight) -> float | None:
        """Return what `end` does if this reply ends the drought, else None."""
        return self._end() if self.length and not self.is_old(flight) else None

    def _end(self) -> float | None:
        """End the drought; return when the first request was let in, None if it was no real drought."""
        asked_at, was = self._asked_at, self.length
        self.length, self._asked_at = 0, None
        return asked_at if was >= ALONE_FROM else None
