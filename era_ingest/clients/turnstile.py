"""The way from the limiter's decision to a request that goes: one waiter asks, the others stand in line.

The limit is a number in the limiter; nothing here counts permits, so that a limit may rise and fall under
the waiters. Whoever is first in line asks the gate, and asks again after every event, or when the time that
the gate named has passed. An idle turnstile costs nothing.

A crash embeds twice what is sent and not durable yet. So that this is no more than the limiter lets be in flight,
replies that are not durable yet count like requests in flight. What they wait for may be a question to the server
itself: such a question passes the others.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.limiter import NO_HINTS, FailureKind, Limiter, ServerHints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONGEST_WAIT_S = 60.0
"""The gate is asked again after so long, whatever it said."""
IDLE_WAIT_S = 1.0
"""The same where nothing is in flight, so that no event can come."""
LEAST_AT_RISK = 2
"""Batches sent and not durable that are always allowed: one at the server, one at the database."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A request's leave to go.

    Attributes:
        ticket: The limiter's name for it.
        sent_at: When it went, seconds on the turnstile's clock.
        in_flight: Requests in flight then, itself included.
        limit: Requests that the limiter allowed then.
    """

    ticket: int
    sent_at: float
    in_flight: int
    limit: float


class Turnstile:
    """Lets requests go when the limiter says so, in the order in which they came.

    Args:
        limiter: Decides.
        clock: Seconds on a monotonic clock.
        sleep: Waits for seconds of that clock.

    Attributes:
        in_flight: Requests out at present.
        uncommitted: Says how many replies are not durable yet; whoever commits them calls ``wake``.
    """

    def __init__(
        self, limiter: Limiter, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._limiter = limiter
        self._clock = clock
        self._sleep = sleep
        self._first_in_line = asyncio.Lock()
        self._events: set[asyncio.Future[None]] = set()
        self.in_flight = 0
        self.uncommitted: Callable[[], int] = lambda: 0

    @property
    def limit(self) -> float:
        """Requests that the limiter allows at present."""
        return self._limiter.state(self._clock()).limit

    async def enter(self, cost: float, *, ahead: bool = False) -> Admission:
        """Wait for leave to send a request.

        Args:
            cost: What it costs, tokens, >= 0.
            ahead: Replies wait for its answer before they can become durable: it stands in no line, and what is not
                durable does not hold it.
        """
        if ahead:
            return await self._ask_gate(cost, held=False)
        async with self._first_in_line:
            return await self._ask_gate(cost, held=True)

    async def _ask_gate(self, cost: float, *, held: bool) -> Admission:
        while True:
            now = self._clock()
            wait_s = self._limiter.gate(now, cost)
            if held and self._is_held(now):
                wait_s = LONGEST_WAIT_S  # a commit, which wakes us, comes first
            elif wait_s <= 0:
                ticket = self._limiter.on_send(now, cost)
                self.in_flight += 1
                return Admission(ticket, now, self.in_flight, self._limiter.state(now).limit)
            await self._next_event(min(wait_s, LONGEST_WAIT_S if self.in_flight else IDLE_WAIT_S))

    def succeed(self, admission: Admission, hints: ServerHints, cost: float | None) -> float:
        """Tell the limiter of a good reply; return its latency, seconds."""
        now = self._leave()
        self._limiter.on_success(now, admission.ticket, hints=hints, cost=cost)
        return now - admission.sent_at

    def fail(self, admission: Admission, kind: FailureKind, hints: ServerHints = NO_HINTS) -> None:
        """Tell the limiter of a failure."""
        self._limiter.on_failure(self._leave(), admission.ticket, kind, hints=hints)

    def cancel(self, admission: Admission) -> None:
        """Tell the limiter that a request's outcome will never be known."""
        self._limiter.on_cancel(self._leave(), admission.ticket)

    def wake(self) -> None:
        """Let the first in line ask again: something became durable."""
        for event in self._events:
            _set(event)

    def _is_held(self, now: float) -> bool:
        """Say whether as much is sent and not durable as the limiter lets be in flight, and a commit is due."""
        uncommitted = self.uncommitted()
        at_risk = max(LEAST_AT_RISK, math.ceil(self._limiter.state(now).limit))
        return uncommitted > 0 and self.in_flight + uncommitted >= at_risk

    def _leave(self) -> float:
        """Take a request out; wake the first in line (it runs after the limiter was told)."""
        self.in_flight -= 1
        self.wake()
        return self._clock()

    async def _next_event(self, wait_s: float) -> None:
        """Wait for the next reply or failure, at most so many seconds."""
        event = asyncio.get_running_loop().create_future()
        self._events.add(event)
        timer = asyncio.ensure_future(self._sleep(wait_s))
        timer.add_done_callback(lambda _: _set(event))
        try:
            await event
        finally:
            self._events.discard(event)
            timer.cancel()


def _set(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)
