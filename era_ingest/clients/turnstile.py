"""The way from the limiter's decision to a request that goes: one waiter asks, the others stand in line.

The limit is a number in the limiter; nothing here counts permits, so that a limit may rise and fall under
the waiters. Whoever is first in line asks the gate, and asks again after every event, or when the time that
the gate named has passed. An idle turnstile costs nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.limiter import NO_HINTS, FailureKind, Limiter, ServerHints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONGEST_WAIT_S = 60.0
"""The gate is asked again after so long, whatever it said."""
IDLE_WAIT_S = 1.0
"""The same where nothing is in flight, so that no event can come."""


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
    """

    def __init__(
        self, limiter: Limiter, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._limiter = limiter
        self._clock = clock
        self._sleep = sleep
        self._first_in_line = asyncio.Lock()
        self._event: asyncio.Future[None] | None = None
        self.in_flight = 0

    @property
    def limit(self) -> float:
        """Requests that the limiter allows at present."""
        return self._limiter.state(self._clock()).limit

    async def enter(self, cost: float) -> Admission:
        """Wait for leave to send a request that costs so many tokens (>= 0)."""
        async with self._first_in_line:
            while True:
                now = self._clock()
                wait_s = self._limiter.gate(now, cost)
                if wait_s <= 0:
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

    def _leave(self) -> float:
        """Take a request out; wake the first in line (it runs after the limiter was told)."""
        self.in_flight -= 1
        if self._event is not None:
            _set(self._event)
        return self._clock()

    async def _next_event(self, wait_s: float) -> None:
        """Wait for the next reply or failure, at most so many seconds."""
        event = self._event = asyncio.get_running_loop().create_future()
        timer = asyncio.ensure_future(self._sleep(wait_s))
        timer.add_done_callback(lambda _: _set(event))
        try:
            await event
        finally:
            self._event = None
            timer.cancel()


def _set(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)
