"""The adaptive controller: a request goes only when pipe, quota, refusals and breaker agree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.breaker import Breaker
from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, LimiterState, ServerHints
from era_ingest.core.limiter.flight import LATENCY_GUESS_S, NOTHING, Flight, Spend, Unit
from era_ingest.core.limiter.pipe import Pipe
from era_ingest.core.limiter.quota import Quota
from era_ingest.core.limiter.refusals import Refusals
from era_ingest.core.limiter.restraint import Restraint
from era_ingest.core.limiter.traffic import Traffic

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform
    from era_ingest.core.limiter.level import Bounds

MOST_SILENCE_S: Final = 3600.0
"""A Retry-After is obeyed up to here, seconds; the driver says so when one is that long."""


class AdaptiveLimiter:
    """Finds any server's limit and stays just under it; nothing needs tuning.

    Four learners each know one thing: `Pipe` how many requests in flight keep the server busy, `Quota` what
    headers say is left, `Refusals` what 429s without headers teach, `Breaker` whether the server is there at
    all. The wait is the longest that any of them asks for.

    Args:
        uniform: Randomness in [0, 1), such as ``random.Random().random``.
        bounds: Requests in flight: at the start, at least, at most.
    """

    def __init__(self, *, uniform: Uniform, bounds: Bounds | None = None) -> None:
        self.pipe = Pipe(uniform, bounds)
        self.quotas = (Quota(Unit.REQUESTS, uniform), Quota(Unit.TOKENS, uniform))
        self.refusals = Refusals(uniform)
        self.breaker = Breaker(uniform)
        self.restraint = Restraint()
        self._traffic = Traffic()
        self._tickets = 0
        self._sent = NOTHING
        self._silent_until = -math.inf
        self._level_before = 0.0
        self._held_by = ""

    # ---- the contract

    def gate(self, now: float, cost: float) -> float:
        """Return 0 if a request of this cost may go now, else seconds to wait; infinity until an event."""
        spend = Spend(1.0, cost)
        in_flight = self._traffic.load
        self._held_by, wait = "breaker", self.breaker.wait(now)
        if self.breaker.is_open or wait > 0:
            return wait
        waits = [("rate", max(0.0, self._silent_until - now))]
        waits.append(("pipe", self._wait_for_place(now, in_flight)))
        waits.append(("rate", self.refusals.wait(now, spend, in_flight)))
        waits.extend(("quota", q.wait(now, spend[q.unit], self.pipe.latency_s)) for q in self.quotas)
        if self.restraint.share < 1.0:
            waits.append(("rate", self.restraint.wait(now, self._requests_per_s(now))))
        self._held_by, wait = max(waits, key=lambda pair: pair[1])
        if wait <= 0:
            self._held_by = ""
        return wait

    def on_send(self, now: float, cost: float) -> int:
        """Note a request that goes out now; return its ticket."""
        self._tickets += 1
        flight = Flight(self._tickets, now, Spend(1.0, cost), self._traffic.load + 1, self._sent)
        self._traffic.start(flight)
        self._sent = self._sent.plus(flight.cost)
        flight.is_probe = self.breaker.on_send(now)
        if not flight.is_probe:
            self.pipe.on_send(flight)
        if self.restraint.share < 1.0:
            self.restraint.on_send(now, self._requests_per_s(now))
        self.refusals.on_send(now, flight)
        for quota in self.quotas:
            quota.on_send(now, flight, self.pipe.latency_s)
        return flight.ticket

    def on_success(
        self, now: float, ticket: int, *, hints: ServerHints = NO_HINTS, cost: float | None = None
    ) -> None:
        """Note a good reply. What the server counted is not used: the driver corrects its estimates."""
        del cost
        flight, _ = self._traffic.land(ticket)
        self._answered(now, flight)
        self._read(now, flight, hints)
        self.restraint.on_answer(now, flight, refused=False)
        self.pipe.on_success(now, flight)
        self.refusals.on_accepted(now, flight, self.pipe.latency_s or LATENCY_GUESS_S)
        self._obey_cap(now)

    def on_failure(
        self, now: float, ticket: int, kind: FailureKind, *, hints: ServerHints = NO_HINTS
    ) -> None:
        """Note a failure."""
        flight, was_hung = self._traffic.land(ticket)
        self.pipe.on_drop(flight)
        if kind is FailureKind.RATE_LIMITED:
            self._answered(now, flight)
            self._refused(now, flight, hints)
        elif kind is FailureKind.REJECTED:
            self._answered(now, flight)
            self._read(now, flight, hints)
            self.refusals.on_accepted(now, flight, self.pipe.latency_s or LATENCY_GUESS_S)
        else:
            self.refusals.on_lost(flight)
            if was_hung:
                return
            if self.breaker.on_failure(now, flight.sent_at, retry_after_s=_bounded(hints)):
                self._level_before = self.pipe.target
        self._obey_cap(now)

    def on_cancel(self, now: float, ticket: int) -> None:
        """Forget a request whose outcome will never be known."""
        flight, _ = self._traffic.land(ticket)
        self.pipe.on_drop(flight)
        self.refusals.on_lost(flight)
        self.breaker.on_cancel(now, flight.sent_at)

    def state(self, now: float) -> LimiterState:
        """Return a picture of the controller."""
        return LimiterState(
            limit=1.0 if self.breaker.is_open else float(self.pipe.level(now)),
            in_flight=len(self._traffic),
            rate_per_s=self._requests_per_s(now),
            held_by=self._held_by,
            breaker_open=self.breaker.is_open,
        )

    # ---- parts

    def _wait_for_place(self, now: float, in_flight: int) -> float:
        wait = self.pipe.wait(now, in_flight)
        if wait < math.inf or in_flight >= self.pipe.bounds.most:
            return wait
        return max(0.0, self._traffic.question_in(now))

    def _answered(self, now: float, flight: Flight) -> None:
        for hung in self._traffic.answered(now, flight, self.pipe.latency_s):
            self.pipe.on_drop(hung)
        if self.breaker.on_answer(flight.sent_at):
            self._traffic.give_up_all()
            self.pipe.resume(now, self._level_before)

    def _read(self, now: float, flight: Flight, hints: ServerHints, *, refused: bool = False) -> None:
        for quota in self.quotas:
            quota.on_hints(now, flight, hints, refused=refused)

    def _refused(self, now: float, flight: Flight, hints: ServerHints) -> None:
        self._read(now, flight, hints, refused=True)
        retry_after_s = _bounded(hints)
        if not self.restraint.doubts_headers(now) and any(
            quota.explains(now, self.pipe.latency_s) for quota in self.quotas
        ):
            self.refusals.books.on_returned(flight)
            for quota in self.quotas:
                quota.on_refused(now)
            silence = retry_after_s or 0.0
        else:
            suspected = self.refusals.cap.is_suspected
            silence = self.refusals.on_refused(now, flight, retry_after_s)
            if self.refusals.cap.is_suspected and (silence > 0 or not suspected):
                self.pipe.glide(now + silence, 1.0, max(0.5, self.pipe.latency_s or 0.0))
        self.restraint.on_answer(now, flight, refused=True)
        self._silent_until = max(self._silent_until, now + self.restraint.silence_s(silence))

    def _obey_cap(self, now: float) -> None:
        self.pipe.obey_ceiling(now, self.refusals.cap.allowed)

    def _requests_per_s(self, now: float) -> float | None:
        refusals = self.refusals
        source = refusals.window or refusals.rate
        paces = [source.pace / refusals.books.mean[source.unit]]
        paces.extend(
            q.pace(now, self.pipe.latency_s) / refusals.books.mean[q.unit] for q in self.quotas if q.is_known
        )
        slowest = min(paces)
        return slowest if slowest < math.inf else None


def _bounded(hints: ServerHints) -> float | None:
    """Return the Retry-After, as far as it is obeyed."""
    return None if hints.retry_after_s is None else min(hints.retry_after_s, MOST_SILENCE_S)
