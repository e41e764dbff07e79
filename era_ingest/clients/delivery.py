"""One batch to its end: every text of it is embedded, or known to be the cause of a failure.

A batch that is refused (400, 413, 422, 424), or fails again and again while the server answers others, is
sent in halves, down to the texts that cause it: one poison text in 64 costs 13 requests and saves 63. A text
alone is given up only once the server has answered something else in the meantime; if it has not, a plain
sentence is tried, and if that fails too, it is the server and not the text.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from era_ingest.clients.committer import Committer, Finished, Refused
from era_ingest.clients.exchange import Answer, Exchange
from era_ingest.errors import (
    ConfigurationError,
    EraError,
    RequestRejectedError,
    RequestTooLargeError,
    ResponseMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.clients.feed import TextItem
    from era_ingest.clients.server_check import ServerCheck
    from era_ingest.clients.size_check import SizeCheck
    from era_ingest.clients.turnstile import Admission
    from era_ingest.core.batching import Batch, LimitLearner
    from era_ingest.core.retry import Backoff

MOST_REFUSALS_IN_A_ROW = 16
"""More than one poison text causes in the largest batch; then a plain sentence is tried before halving."""
ODD_STATUS = 424
"""TEI's "the backend failed": mostly the input, sometimes the machine."""
_FAILURES_OF_BATCH = {"odd": 2, "transient": 3}
"""After so many failures in a row the texts of a batch are suspected. Of its parts after one."""
_FAILURES_OF_TEXT = {"odd": 6, "transient": 6}
"""The same for a text alone: chance must not put it aside."""


class Delivery:
    """Brings one batch to its end.

    Args:
        exchange: Asks the server.
        check: Tells a bad text from a bad server.
        size: Tells vectors of another model.
        committer: Takes what is finished.
        learner: Learns what a request may carry.
        backoff: Delays between repeats.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        exchange: Exchange,
        check: ServerCheck,
        size: SizeCheck,
        committer: Committer,
        learner: LimitLearner,
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self._exchange = exchange
        self._check = check
        self._size = size
        self._committer = committer
        self._learner = learner
        self._backoff = backoff
        self._clock = clock
        self._first_failure = float("inf")
        self._suspects: deque[Refused] = deque()

    async def deliver(self, batch: Batch[TextItem], admission: Admission) -> None:
        """Send the batch, whole or in parts, until every text of it is settled.

        Raises:
            ConfigurationError: A person must mend something; or the server refuses everything.
            TransientError: The server is away for longer than the budget allows.
        """
        await self._settle(batch, admission, patient=True)
        await self._judge_suspects(most=0)

    async def _settle(
        self, batch: Batch[TextItem], admission: Admission | None = None, *, patient: bool
    ) -> bool:
        """Settle a batch; return True if the server took all of it in one request.

        Args:
            batch: What to send.
            admission: Leave to send it, where it was given already.
            patient: False for parts of a batch that is under suspicion: one more failure, and it is halved.
        """
        failures = 0
        failed_at = float("inf")
        while True:
            outcome = await self._exchange.ask(batch, admission)
            admission = None
            if isinstance(outcome, Answer):
                outcome = await self._size.confirmed(outcome)
            if isinstance(outcome, Answer):
                self._accept(batch, outcome)
                return True
            failures += 1
            since = min(failed_at, self._clock())
            failed_at = self._clock()
            self._first_failure = min(self._first_failure, failed_at)
            if await self._is_to_blame(batch, outcome, failures, since=since, patient=patient):
                await self._split_or_suspect(batch, outcome)
                return False
            await self._exchange.back_off(self._backoff, failures - 1)

    def _accept(self, batch: Batch[TextItem], answer: Answer) -> None:
        self._learner.accepted(batch)
        hashes = tuple(sized.item.content_hash for sized in batch.items)
        tokens = batch.tokens if answer.reply.tokens is None else answer.reply.tokens
        self._committer.put(Finished(hashes, answer.reply.vectors, tokens))

    async def _is_to_blame(
        self, batch: Batch[TextItem], error: EraError, failures: int, *, since: float, patient: bool
    ) -> bool:
        """Return True once a batch has failed often enough, while the server answered others ``since``.

        A refusal is the server's own word, and needs no more, unless everything is refused lately.

        Raises:
            ConfigurationError: The server answers even a plain sentence wrongly.
        """
        kind = _kind(error)
        if kind == "rejected" and self._exchange.refused_in_a_row <= MOST_REFUSALS_IN_A_ROW:
            return True
        enough = _FAILURES_OF_TEXT if len(batch) == 1 else _FAILURES_OF_BATCH
        if failures < enough.get(kind, 0) and (patient or len(batch) == 1):
            return False
        failure = await self._check.failure_since(since, self._backoff)
        if failure is not None and _kind(failure) != "transient":
            raise _blame_server(failure)
        return failure is None

    async def _split_or_suspect(self, batch: Batch[TextItem], error: EraError) -> None:
        if len(batch) == 1:
            self._suspects.append(Refused(batch.items[0].item, error))
            await self._judge_suspects(most=1)
            return
        whole = [await self._settle(half, patient=False) for half in batch.halves()]
        if all(whole) and _kind(error) == "rejected":
            self._learner.too_large(batch, named=isinstance(error, RequestTooLargeError))
        await self._judge_suspects(most=1)

    async def _judge_suspects(self, *, most: int) -> None:
        """Refuse the texts under suspicion, if the server answered others since; leave ``most`` undecided.

        Raises:
            ConfigurationError: The server refuses even a plain sentence, or answers it wrongly.
            TransientError: The server is away.
        """
        if not self._suspects:
            return
        if self._exchange.last_success < self._first_failure:
            if len(self._suspects) <= most:
                return
            failure = await self._check.failure_since(self._first_failure, self._backoff)
            if failure is not None:
                raise _blame_server(failure)
        while self._suspects:
            self._committer.put(self._suspects.popleft())


def _kind(error: EraError) -> str:
    """Return how soon a failure speaks against the texts: ``rejected``, ``odd`` or ``transient``."""
    if isinstance(error, ResponseMismatchError):
        return "odd"
    if isinstance(error, RequestRejectedError):
        return "odd" if error.status == ODD_STATUS else "rejected"
    return "transient"


def _blame_server(failure: EraError) -> EraError:
    """Return the error that stops the run after a plain sentence failed too."""
    if _kind(failure) == "transient":
        return failure
    return ConfigurationError(
        f"{failure.message} Even a plain sentence fails, so it is not the texts: check ERA_EMBED_MODEL, "
        "ERA_EMBED_DIMENSIONS and ERA_EMBED_URL."
    )
