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


class Drought:
    """Counts refusals in a row, and asks ever more rarely, one request at a time.

    Formula. The n-th question comes after 0.3 of the time that the drought has lasted, between 0.25 and 5 s.
    A refusal of a request sent before the last refusal was heard is the same refusal.

    State. Refusals in a row, when the first of them was sent, whether a question is out.
    """

    def __init__(self) -> None:
        self.length = 0
        self.since = 0.0
        self.last_asked_at = 0.0
        self._heard_at = -math.inf
        self._asking = False

    def wait(self) -> float:
        """Return infinity while a question is out, else 0."""
        return math.inf if self._asking and self.length >= ALONE_FROM else 0.0

    def is_old(self, flight: Flight) -> bool:
        """Return whether the request was sent before the last refusal was heard."""
        return flight.sent_at <= self._heard_at

    def on_send(self) -> None:
        """Note a request that goes out."""
        self._asking = self.length > 0

    def on_refused(self, now: float, flight: Flight) -> None:
        """Note a new refusal."""
        self._heard_at, self._asking = now, False
        self.length += 1
        self.last_asked_at = flight.sent_at
        if self.length == 1:
            self.since = flight.sent_at

    def pause(self, now: float) -> float:
        """Return seconds until the next question."""
        return clamp(SHARE * (now - self.since), SOONEST_S, LATEST_S)

    def on_lost(self) -> None:
        """Note that a question brought no answer."""
        self._asking = False

    def on_accepted(self, flight: Flight) -> float:
        """Note a request that was let in; return how long the drought lasted, 0 if there was none.

        The time is that between the first refusal and the sending of this request, in seconds.
        """
        if not self.length or self.is_old(flight):
            return 0.0
        lasted = flight.sent_at - self.since if self.length >= ALONE_FROM else 0.0
        self.length, self._asking = 0, False
        return lasted
