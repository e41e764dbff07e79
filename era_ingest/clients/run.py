"""One run of the client: the tasks between the source and the writer, and how they end.

Three ways to end. *The source is dry*: the last batches are delivered and committed. *The server stops us* (a
wrong key, no quota, away for too long), or the budget does: nothing new is sent, requests in flight are
finished and committed, then the error is raised. *Cancellation, or an error of the source or the writer*:
requests in flight are given up, and what is finished is committed.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from era_ingest.clients.delivery import Delivery
from era_ingest.clients.server_check import ServerCheck
from era_ingest.errors import BudgetExceededError, EraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from era_ingest.clients.committer import Committer
    from era_ingest.clients.exchange import Exchange
    from era_ingest.clients.feed import BatchFeed, TextItem
    from era_ingest.clients.size_check import SizeCheck
    from era_ingest.clients.turnstile import Admission, Turnstile
    from era_ingest.core.batching import Batch, LimitLearner
    from era_ingest.core.retry import Backoff


class EmbeddingRun:
    """Runs once.

    Args:
        feed: Packs batches.
        turnstile: Gives leave to send.
        exchange: Asks the server.
        committer: Makes replies durable.
        size: Tells vectors of another model.
        learner: Learns what a request may carry.
        backoff: Delays between repeats.
        slack_batches: Batches that may wait to be repeated or committed while new ones are sent, >= 1.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        *,
        feed: BatchFeed,
        turnstile: Turnstile,
        exchange: Exchange,
        committer: Committer,
        size: SizeCheck,
        learner: LimitLearner,
        backoff: Backoff,
        slack_batches: int,
        clock: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._turnstile = turnstile
        self._exchange = exchange
        self._committer = committer
        self._learner = learner
        self._backoff = backoff
        self._slack_batches = slack_batches
        self._clock = clock
        self._check = ServerCheck(exchange, clock)
        self._size = size
        self._changed = asyncio.Event()
        self._deliveries = 0
        self._unsent: set[Admission] = set()
        self._pumping = True
        self._feeders: list[asyncio.Task[None]] = []
        self._stopped_by: EraError | None = None

    async def run(self) -> None:
        """Embed everything; see ``EmbeddingClient.embed_all``."""
        self._committer.on_progress = self._progressed
        self._turnstile.uncommitted = lambda: self._size.waiting + self._committer.waiting
        self._exchange.on_resume = self._changed.set
        committing = asyncio.create_task(self._committer.run())
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_watch(committing))
                self._feeders = [
                    group.create_task(self._feed.pull()),
                    group.create_task(self._pump(group)),
                ]
        except BaseExceptionGroup as errors:
            failure = _flatten(errors)
        except asyncio.CancelledError as cancelled:
            failure = cancelled
        self._committer.close()
        lost = await _end(committing)
        failure = failure or self._stopped_by
        if failure is not None:
            if lost is not None and lost is not failure:
                failure.add_note(f"What was finished could not be committed: {type(lost).__name__}: {lost}")
            raise failure

    async def _pump(self, group: asyncio.TaskGroup) -> None:
        """Send batch after batch, each in a task of its own, as there is room and leave."""
        try:
            while (batch := await self._feed.next_batch()) is not None:
                await self._room()
                admission = await self._exchange.admit(batch)
                self._deliveries += 1
                self._unsent.add(admission)
                task = group.create_task(self._deliver(batch, admission))
                task.add_done_callback(partial(self._delivered, admission))
        except BudgetExceededError as error:
            self._stop(error)
        finally:
            self._pumping = False
            self._end_if_done()

    async def _room(self) -> None:
        """Wait until few enough batches wait to be repeated or committed."""
        while self._deliveries - self._turnstile.in_flight + self._committer.waiting >= self._slack_batches:
            self._changed.clear()
            await self._changed.wait()

    def _progressed(self) -> None:
        """Make room: something became durable."""
        self._changed.set()
        self._turnstile.wake()

    async def _deliver(self, batch: Batch[TextItem], admission: Admission) -> None:
        delivery = Delivery(
            self._exchange,
            self._check,
            self._size,
            self._committer,
            self._learner,
            self._backoff,
            self._clock,
        )
        self._unsent.discard(admission)
        try:
            await delivery.deliver(batch, admission)
        except EraError as error:
            self._stop(error)

    def _delivered(self, admission: Admission, _: object) -> None:
        """Make room; a task that was cancelled before it began has not told the limiter."""
        if admission in self._unsent:
            self._unsent.discard(admission)
            self._exchange.withdraw(admission)
        self._deliveries -= 1
        self._feed.restrict(self._learner.limits)
        self._changed.set()
        self._end_if_done()

    def _stop(self, error: EraError) -> None:
        """Send nothing more; requests in flight go on."""
        if self._stopped_by is None:
            self._stopped_by = error
            self._exchange.stop()
            for feeder in self._feeders:
                feeder.cancel()

    def _end_if_done(self) -> None:
        if not self._pumping and self._deliveries == 0:
            self._committer.close()


async def _watch(committing: asyncio.Task[None]) -> None:
    """Pass on what ends the committer, without ending it when cancelled."""
    await asyncio.shield(committing)


async def _end(committing: asyncio.Task[None]) -> BaseException | None:
    """Wait until what is finished is durable; return what prevented it. A second cancellation ends it."""
    try:
        await asyncio.wait([committing])
    except asyncio.CancelledError:
        committing.cancel()
        raise
    return None if committing.cancelled() else committing.exception()


def _flatten(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error of a group; of several the first, with the others as notes."""
    leaves = list(_leaves(errors))
    for other in leaves[1:]:
        leaves[0].add_note(f"At the same time: {type(other).__name__}: {other}")
    return leaves[0]


def _leaves(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
