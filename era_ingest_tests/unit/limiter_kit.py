"""What the limiter's tests share: flights, and a plain loop in virtual time."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, ServerHints
from era_ingest.core.limiter.flight import NOTHING, Flight, Spend

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.core.limiter.contract import Limiter


def half() -> float:
    """No randomness at all."""
    return 0.5


_tickets = itertools.count(1)


def flight(sent_at: float, *, load: int = 1, tokens: float = 100.0, before: Spend = NOTHING) -> Flight:
    """Return a request that goes out."""
    return Flight(next(_tickets), sent_at, Spend(1.0, tokens), load, before)


@dataclass
class Loop:
    """Sends whenever the limiter lets it; ``serve`` says when each request is answered, and how.

    ``serve(now, in_flight)`` returns seconds until the answer, a failure or None, and hints.
    """

    limiter: Limiter
    serve: Callable[[float, int], tuple[float, FailureKind | None, ServerHints]]
    now: float = 0.0
    sent: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    most_in_flight: int = 0

    def run(self, until: float) -> None:
        """Let it happen."""
        order = itertools.count()
        answers: list[tuple[float, int, int, FailureKind | None, ServerHints]] = []
        while self.now < until:
            wait = self.limiter.gate(self.now, 100.0)
            if wait <= 0:
                self.most_in_flight = max(self.most_in_flight, len(answers) + 1)
                ticket = self.limiter.on_send(self.now, 100.0)
                self.sent.append(self.now)
                delay, failure, hints = self.serve(self.now, len(answers) + 1)
                heapq.heappush(answers, (self.now + delay, next(order), ticket, failure, hints))
                continue
            due = answers[0][0] if answers else math.inf
            assert min(due, self.now + wait) < math.inf, "nothing will ever happen again"
            self.now = min(due, self.now + wait)
            if due <= self.now:
                _, _, ticket, failure, hints = heapq.heappop(answers)
                self._answer(ticket, failure, hints)

    def _answer(self, ticket: int, failure: FailureKind | None, hints: ServerHints) -> None:
        if failure is None:
            self.served.append(self.now)
            self.limiter.on_success(self.now, ticket, hints=hints)
            return
        self.refused.append(self.now)
        self.limiter.on_failure(self.now, ticket, failure, hints=hints)


def served_in(seconds: float) -> tuple[float, None, ServerHints]:
    """Return a good answer."""
    return seconds, None, NO_HINTS


def refused_in(seconds: float, retry_after_s: float | None = None) -> tuple[float, FailureKind, ServerHints]:
    """Return a 429."""
    return seconds, FailureKind.RATE_LIMITED, ServerHints(retry_after_s=retry_after_s)
