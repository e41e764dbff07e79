"""One question to the server and its answer: taking turns, sitting out "slow down", knowing when to stop.

Refusals for speed (429) and waiting for a turn are no failures of a text: the question is asked again, as
often as it takes. What bounds it is time without any good answer, over all requests: ``retry_budget_s``, four
times as much where the server only says "slow down", and at most ``START_BUDGET_S`` while no connection was
ever made.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.clients.stats import EmbeddingStats, LatencySample
from era_ingest.core.limiter import NO_HINTS, FailureKind, ServerHints
from era_ingest.core.retry import Backoff, RetryBudget
from era_ingest.errors import (
    ConfigurationError,
    EraError,
    PermanentError,
    RateLimitedError,
    ResponseMismatchError,
    TransientError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterator

    from era_ingest.clients.backend import Embedder, Reply
    from era_ingest.clients.feed import TextItem
    from era_ingest.clients.purse import Purse
    from era_ingest.clients.turnstile import Admission, Turnstile
    from era_ingest.core.batching import Batch
    from era_ingest.core.tokens import TokenEstimator

START_BUDGET_S = 60.0
"""How long to wait for a server that was never reached: a wrong URL should not take a quarter of an hour."""
REFUSAL_FACTOR = 4.0
_AFTER_REFUSAL = Backoff(base_s=0.01, cap_s=0.1)
"""The limiter paces what follows a refusal; this only keeps one that does not from hammering."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good reply and when it came, seconds on the client's clock."""

    reply: Reply
    at: float


class Exchange:
    """Asks the server, through the turnstile; calls ``on_resume`` when a task has waited to ask again.

    ``last_success`` is the time of the last good answer, ``refused_in_a_row`` counts refused inputs since.

    Args:
        embedder: The backend.
        turnstile: Gives leave to send.
        purse: Gives leave to spend.
        estimator: Corrects its estimates by what the server counts.
        stats: Counts.
        clock: Seconds on a monotonic clock.
        sleep: Waits for seconds of that clock.
        rng: For jitter.
        retry_budget_s: Seconds without a good answer after which everything stops.
    """

    def __init__(
        self,
        embedder: Embedder,
        turnstile: Turnstile,
        purse: Purse,
        estimator: TokenEstimator,
        stats: EmbeddingStats,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
        retry_budget_s: float,
    ) -> None:
        self._embedder = embedder
        self._turnstile = turnstile
        self._purse = purse
        self._set_aside: dict[Admission, float] = {}
        self._estimator = estimator
        self._stats = stats
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._started = clock()
        self._outage = RetryBudget(retry_budget_s)
        self._refusal = RetryBudget(retry_budget_s * REFUSAL_FACTOR)
        self._start = RetryBudget(min(retry_budget_s, START_BUDGET_S))
        self._reached = False
        self._stopping = False
        self._waiting: set[asyncio.Task[object]] = set()
        self.on_resume: Callable[[], None] = lambda: None
        self.last_success = float("-inf")
        self.refused_in_a_row = 0

    def stop(self) -> None:
        """Send nothing more: tasks that wait to ask are cancelled; those whose answer is due go on."""
        self._stopping = True
        for task in self._waiting:
            task.cancel()

    async def admit(self, batch: Batch[TextItem], *, ahead: bool = False) -> Admission:
        """Wait for leave to spend a batch's tokens and to send it; ``ahead`` as ``Turnstile.enter`` has it.

        Raises:
            BudgetExceededError: The tokens of the run do not suffice for it.
        """
        amount = await self._purse.take(batch.tokens)
        try:
            admission = await self._turnstile.enter(batch.tokens, ahead=ahead)
        except asyncio.CancelledError:
            self._purse.settle(amount, estimated=0.0)
            raise
        self._set_aside[admission] = amount
        return admission

    async def admit_again(self, batch: Batch[TextItem], *, ahead: bool = False) -> Admission:
        """Do as ``admit`` for what was sent before; ``stop`` ends the waiting."""
        with self._waits():
            admission = await self.admit(batch, ahead=ahead)
        self._stats.retries += 1
        return admission

    def withdraw(self, admission: Admission, estimated: float = 0.0) -> None:
        """Give back leave to send; a request whose outcome will never be known cost its estimate."""
        self._turnstile.cancel(admission)
        self._settle(admission, estimated)

    def _settle(self, admission: Admission, estimated: float, counted: float | None = None) -> None:
        self._purse.settle(self._set_aside.pop(admission), estimated=estimated, counted=counted)

    async def ask(
        self, batch: Batch[TextItem], admission: Admission | None = None, *, ahead: bool = False
    ) -> Answer | EraError:
        """Send a batch until it is answered with anything but "slow down".

        Args:
            batch: What to send.
            admission: Leave to send it, where it was given already.
            ahead: Replies wait for the answer before they can become durable: it goes before the others.

        Returns:
            The answer, or the TransientError or PermanentError of one failed request.

        Raises:
            ConfigurationError: A person must mend something.
            BudgetExceededError: The tokens of the run do not suffice to send it again.
            TransientError: Nothing was answered for as long as the budget allows.
        """
        refusals = 0
        while True:
            if admission is None:
                admission = await self.admit_again(batch, ahead=ahead)
            outcome = await self._send(batch, admission)
            if not isinstance(outcome, RateLimitedError):
                return outcome
            admission = None
            await self.back_off(_AFTER_REFUSAL, refusals)
            refusals += 1

    async def back_off(self, backoff: Backoff, failures: int) -> None:
        """Wait before a request is repeated; ``failures`` counts those before this one, >= 0."""
        await self.pause(backoff.delay_s(failures, self._rng.random()))

    async def pause(self, seconds: float) -> None:
        """Wait; ``stop`` ends it."""
        with self._waits():
            await self._sleep(seconds)

    @contextmanager
    def _waits(self) -> Iterator[None]:
        """Note that the current task waits to ask, so that ``stop`` can end it."""
        if self._stopping:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)
            self.on_resume()

    async def _send(self, batch: Batch[TextItem], admission: Admission) -> Answer | EraError:
        self._stats.requests += 1
        settled = False
        try:
            reply = await self._embedder.embed([sized.item.text for sized in batch.items])
            settled = True
            return self._note_success(batch, admission, reply)
        except ConfigurationError:
            settled = True
            self._stats.count_failure(FailureKind.REJECTED)
            self._turnstile.fail(admission, FailureKind.REJECTED)
            self._settle(admission, 0.0)
            raise
        except (TransientError, PermanentError) as error:
            settled = True
            self._settle(admission, batch.tokens if may_cost(error) else 0.0)
            self._note_failure(admission, error)
            return error
        finally:
            if not settled:
                self._stats.cancelled += 1
                self.withdraw(admission, batch.tokens)

    def _note_success(self, batch: Batch[TextItem], admission: Admission, reply: Reply) -> Answer:
        cost = None if reply.tokens is None else float(reply.tokens)
        latency_s = self._turnstile.succeed(admission, reply.hints, cost)
        self._settle(admission, batch.tokens, cost)
        self._stats.latency.add(latency_s)
        sent_s = admission.sent_at - self._started
        self._stats.samples.add(LatencySample(sent_s, latency_s, admission.in_flight, admission.limit))
        if reply.tokens is not None:
            self._estimator.observe(batch.tokens / self._estimator.ratio, reply.tokens)
        for budget in (self._outage, self._refusal, self._start):
            budget.succeed()
        self._reached = True
        self.refused_in_a_row = 0
        self.last_success = self._clock()
        return Answer(reply, self.last_success)

    def _note_failure(self, admission: Admission, error: EraError) -> None:
        kind = classify(error)
        self._stats.count_failure(kind)
        self._turnstile.fail(admission, kind, hints_of(error))
        self._reached = self._reached or kind is not FailureKind.CONNECTION
        now = self._clock()
        if kind is FailureKind.RATE_LIMITED:
            self._stats.rate_limited += 1
            self._outage.succeed()
            if self._refusal.fail(now):
                raise _give_up(error, self._refusal.budget_s)
        elif kind is FailureKind.REJECTED:
            self.refused_in_a_row += 1
        else:
            budget = self._outage if self._reached else self._start
            if budget.fail(now):
                raise _give_up(error, budget.budget_s)


def classify(error: EraError) -> FailureKind:
    """Return what a failure means for flow control."""
    if isinstance(error, RateLimitedError):
        return FailureKind.RATE_LIMITED
    if isinstance(error, UpstreamTimeoutError):
        return FailureKind.TIMEOUT
    if isinstance(error, UpstreamUnavailableError) and error.status is None:
        return FailureKind.CONNECTION
    if isinstance(error, TransientError):
        return FailureKind.SERVER_ERROR
    return FailureKind.REJECTED


def may_cost(error: EraError) -> bool:
    """Say whether a failed request may have been worked on, and so be charged; refusals are not."""
    return isinstance(error, UpstreamTimeoutError | ResponseMismatchError)


def hints_of(error: EraError) -> ServerHints:
    """Return the hints that came with a failure."""
    hints = getattr(error, "hints", None)
    return hints if isinstance(hints, ServerHints) else NO_HINTS


def _give_up(error: EraError, budget_s: float) -> EraError:
    """Return the same error, saying that nothing more is tried."""
    text = f"{error.message} Given up after {budget_s:g} s without a good answer (ERA_EMBED_RETRY_BUDGET_S)."
    if isinstance(error, RateLimitedError):
        return RateLimitedError(text, retry_after_s=error.retry_after_s)
    status = error.status if isinstance(error, UpstreamUnavailableError) else None
    return UpstreamUnavailableError(text, status=status)
