"""Sharer: an adaptive controller that takes its pace from a board while other runs use the same key."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.board import Grant, Report
from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, ServerHints
from era_ingest.core.limiter.flight import NOTHING, Spend, Unit
from era_ingest.core.limiter.rate import Phase
from era_ingest.core.limiter.refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.core.limiter.adaptive import AdaptiveLimiter
    from era_ingest.core.limiter.contract import LimiterState
    from era_ingest.core.limiter.flight import Uniform

CATCH_UP_S: Final = 0.05
"""How much lateness of the sender is made up for, seconds."""
KEEP_S: Final = 5.0
"""A share holds for so long after the board was last reached; then the run is on its own again, seconds."""
AGAIN_S: Final = 5.0
"""After a failure the board is tried again so much later, seconds."""


class Sharer:
    """Wraps an adaptive controller; implements ``Limiter``.

    A run that was never refused without headers has no business with a board: nothing is asked. From the
    first such refusal on it comes by now and then, and while others do so too, the board's share replaces
    what refusals would teach this run alone (pipe, quota and breaker stay its own). When the others are gone,
    or the board is away, it goes on alone from the share that it had.

    Whoever drives it calls ``report`` once ``ask_at`` is past, takes it to the board, and brings the grant
    back to ``apply`` or says ``miss``.

    Attributes:
        ask_at: When the board is to be visited next, seconds; infinite: there is no reason to.
        on_due: Called when ``ask_at`` has come nearer.
        is_asking: Whether a report is on its way, and no grant came back yet.
        has_joined: Whether the board has ever been told of this run.

    Args:
        inner: The controller.
        uniform: Randomness of the learner that refusals teach after sharing.
    """

    def __init__(self, inner: AdaptiveLimiter, *, uniform: Uniform) -> None:
        self.inner = inner
        self.ask_at = math.inf
        self.on_due: Callable[[], None] = lambda: None
        self.has_joined = False
        self._uniform = uniform
        self._grant: Grant | None = None
        self._sent_at: dict[int, tuple[float, Spend]] = {}
        self._accepted = NOTHING
        self._refusals: list[float] = []
        self._retry_after_s: float | None = None
        self._hungry = self._waits = True
        self._heard_at = -math.inf
        self._next_at = 0.0
        self.is_asking = False

    @property
    def is_sharing(self) -> bool:
        """Whether the pace comes from the board."""
        return self._grant is not None

    # ---- the contract

    def gate(self, now: float, cost: float) -> float:
        """Return 0 if a request of this cost may go now, else seconds to wait; infinity until an event."""
        if self._grant is not None and now > self._heard_at + KEEP_S:
            self._go_alone(now)
        wait = self.inner.gate(now, cost)
        if self._grant is None:
            return wait
        turn = self._next_at - now
        self._waits = turn > wait
        self._hungry |= self._waits
        return max(wait, turn, 0.0)

    def on_send(self, now: float, cost: float) -> int:
        """Note a request that goes out now; return its ticket."""
        ticket = self.inner.on_send(now, cost)
        if self.ask_at < math.inf or self.is_asking:
            spend = Spend(1.0, cost)
            self._sent_at[ticket] = (now, spend)
            self._accepted = self._accepted.plus(spend)
            if self._grant is not None:
                self._next_at = (
                    max(self._next_at, now - CATCH_UP_S) + spend[self._grant.unit] / self._grant.pace
                )
        return ticket

    def on_success(
        self, now: float, ticket: int, *, hints: ServerHints = NO_HINTS, cost: float | None = None
    ) -> None:
        """Note a good reply."""
        self._sent_at.pop(ticket, None)
        self.inner.on_success(now, ticket, hints=hints, cost=cost)

    def on_failure(
        self, now: float, ticket: int, kind: FailureKind, *, hints: ServerHints = NO_HINTS
    ) -> None:
        """Note a failure; one for the rate is the board's to learn from while it is shared."""
        sent = self._sent_at.pop(ticket, None)
        if kind is not FailureKind.RATE_LIMITED or _shows_quota(hints):
            self.inner.on_failure(now, ticket, kind, hints=hints)
            return
        if sent is not None:
            self._accepted = self._accepted.minus(sent[1])
        if self._grant is not None:
            self.inner.on_cancel(now, ticket)
        else:
            self.inner.on_failure(now, ticket, kind, hints=hints)
        if sent is not None:
            self._refusals.append(sent[0])
        if hints.retry_after_s is not None:
            self._retry_after_s = max(self._retry_after_s or 0.0, hints.retry_after_s)
        self._ask(now)

    def on_cancel(self, now: float, ticket: int) -> None:
        """Forget a request whose outcome will never be known."""
        self._sent_at.pop(ticket, None)
        self.inner.on_cancel(now, ticket)

    def state(self, now: float) -> LimiterState:
        """Return a picture of the controller."""
        state = self.inner.state(now)
        if self._grant is None:
            return state
        per_request = self.inner.refusals.books.mean[self._grant.unit]
        held_by = "turns" if self._next_at > now and state.in_flight < state.limit else state.held_by
        return replace(state, rate_per_s=self._grant.pace / per_request, held_by=held_by)

    # ---- the board

    def join(self) -> None:
        """Ask for a share at once: others are known to be there."""
        self._ask(-math.inf)

    def _ask(self, now: float) -> None:
        """Want to come by at ``now``, or as soon as the present visit is over."""
        self.ask_at = min(self.ask_at, now)
        self.on_due()

    def report(self, now: float) -> Report:
        """Return what the board is to know; it is asked again only after ``apply`` or ``miss``."""
        self.is_asking, self.ask_at, self.has_joined = True, math.inf, True
        rate, unit = self._own_rate()
        report = Report(
            accepted=self._accepted,
            refusals=tuple(now - at for at in self._refusals),
            is_hungry=self._hungry or self._grant is None,
            own_rate=rate,
            own_unit=unit,
            retry_after_s=self._retry_after_s,
        )
        self._accepted, self._refusals, self._retry_after_s = NOTHING, [], None
        self._hungry = self._waits
        return report

    def apply(self, now: float, grant: Grant) -> None:
        """Take what the board gave."""
        self.is_asking, self._heard_at = False, now
        if math.isinf(grant.pace):
            if self._grant is not None:
                self._go_alone(now)
        else:
            self._share(now, grant)
        self.ask_at = min(self.ask_at, now + grant.asks_in_s)

    def miss(self, now: float) -> None:
        """Note that the board could not be reached."""
        self.is_asking = False
        self.ask_at = now + AGAIN_S

    def _share(self, now: float, grant: Grant) -> None:
        before = self._grant
        if before is None:
            self.inner.refusals = Refusals(self._uniform)
            self._next_at = now
        elif self._next_at > now and before.unit is grant.unit:
            self._next_at = now + (self._next_at - now) * min(1.0, before.pace / grant.pace)
        if grant.starts_s > 0:
            self._next_at = max(self._next_at, now + grant.starts_s)
        self._grant = grant

    def _go_alone(self, now: float) -> None:
        """Go on from the share that the board gave last."""
        if self._grant is not None:
            self.inner.refusals.rate.adopt(now, self._grant.pace)
        self._grant = None

    def _own_rate(self) -> tuple[float, Unit]:
        refusals = self.inner.refusals
        window, rate = refusals.window, refusals.rate
        if window is not None:
            if window.limit is None or window.length_s is None:
                return 0.0, Unit.REQUESTS
            return window.limit / window.length_s, window.unit
        return (0.0, Unit.REQUESTS) if rate.phase is Phase.OFF else (rate.estimate, rate.unit)


def _shows_quota(hints: ServerHints) -> bool:
    return hints.remaining_requests is not None or hints.remaining_tokens is not None
