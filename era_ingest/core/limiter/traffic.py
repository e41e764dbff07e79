"""Traffic: the requests on their way, and which of them keep the server busy."""

from __future__ import annotations

import math
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import LATENCY_GUESS_S

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight

BEHIND_LATENCIES: Final = 10.0
BEHIND_LEAST_S: Final = 0.5
"""A request hangs once one that was sent so much later has been answered: latencies, seconds at least."""
MOST_HUNG: Final = 512
"""So many requests are given up as load at most: what is sent in vain has a bound, whatever the server does."""


class Traffic:
    """Knows what is on its way, and leaves out of the load what hangs.

    Formula. A server that answers what was sent 10 latencies later, and half a second at least, is well and has lost
    the request, or let it starve: until the client's time limit ends it, it takes no place. While nothing is answered
    at all, nothing hangs: the server may just be slow. But everything in flight may also be lost; so after as long a
    silence one more may go to ask, the next after twice as long, and so on.

    State. The requests that count as load, in the order of sending, those that hang (at most 512), when something was
    sent or answered last, and how many questions went since the last answer.

    Weak spot. What hangs may still keep one of the server's workers busy; the pipe then sees fewer of them.
    """

    def __init__(self) -> None:
        self._loading: dict[int, Flight] = {}
        self._hung: dict[int, Flight] = {}
        self._look_at = self._stirred_at = 0.0
        self._behind_s = math.inf
        self._questions = 0

    def __len__(self) -> int:
        """Return all requests on their way."""
        return len(self._loading) + len(self._hung)

    @property
    def load(self) -> int:
        """Requests that keep the server busy."""
        return len(self._loading)

    def start(self, flight: Flight) -> None:
        """Take in a request that goes out."""
        self._loading[flight.ticket] = flight
        if self.question_in(flight.sent_at) <= 0:
            self._questions += 1
        self._stirred_at = flight.sent_at

    def question_in(self, now: float) -> float:
        """Return seconds until one more request may go though all places are taken; infinity before any answer."""
        return self._stirred_at + self._behind_s * 2.0**self._questions - now

    def land(self, ticket: int) -> tuple[Flight, bool]:
        """Take a request out; say whether it hung: its failure then tells nothing new."""
        hung = self._hung.pop(ticket, None)
        return (self._loading.pop(ticket), False) if hung is None else (hung, True)

    def give_up_all(self) -> None:
        """Count nothing that is out as load: the server was down when it went."""
        self._hung |= self._loading
        self._loading.clear()

    def answered(self, now: float, flight: Flight, latency_s: float | None) -> list[Flight]:
        """Note an answer; return what hangs from now on, because this request has overtaken it by far."""
        self._stirred_at, self._questions = now, 0
        self._behind_s = max(BEHIND_LEAST_S, BEHIND_LATENCIES * (latency_s or LATENCY_GUESS_S))
        if now < self._look_at:
            return []
        self._look_at = now + self._behind_s / 8
        room = MOST_HUNG - len(self._hung)
        behind = takewhile(lambda one: one.sent_at < flight.sent_at - self._behind_s, self._loading.values())
        hung = list(islice(behind, max(0, room)))
        for one in hung:
            self._hung[one.ticket] = self._loading.pop(one.ticket)
        return hung
