"""The embedding client: a stream of texts in, committed vectors out, as fast as limiter and writer allow.

    source --> BatchFeed --> pump --(Turnstile)--> deliveries, one task a batch --> Committer --> commit
               lazily        waits for room            retry, halve, suspect         one at a time

Bounds: ``READY_BATCHES`` packed ahead; as many requests in flight as the limiter allows; no new batch while
``slack_batches`` wait to be repeated or committed. A request's slot is free as soon as its reply is there; a
slow writer holds back new batches, and so the source.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from era_ingest.clients.committer import Committer
from era_ingest.clients.exchange import Exchange
from era_ingest.clients.feed import LINGER_S, BatchFeed, TextItem
from era_ingest.clients.purse import Purse
from era_ingest.clients.run import EmbeddingRun
from era_ingest.clients.size_check import SizeCheck
from era_ingest.clients.stats import EmbeddingStats
from era_ingest.clients.turnstile import Turnstile
from era_ingest.core.batching import BatchLimits, LimitLearner
from era_ingest.core.budget import FIRST_CAUTION, TokenBudget
from era_ingest.core.retry import Backoff
from era_ingest.core.tokens import TokenEstimator
from era_ingest.errors import BudgetExceededError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from era_ingest.clients.backend import Embedder
    from era_ingest.clients.committer import Commit, Refuse
    from era_ingest.core.limiter import Limiter, LimiterState
    from era_ingest.settings import Settings

__all__ = ["ClientOptions", "EmbeddingClient", "TextItem"]


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How the client goes about it.

    Attributes:
        retry_budget_s: Seconds without a good answer after which the run stops; 0: nothing is tried again.
        slack_batches: Batches that may wait to be repeated or committed while new ones are sent, >= 1.
        linger_s: How long a batch that is not full waits for more texts, seconds.
        backoff: Delays between repeats of a failed request.
        max_tokens: Tokens that the client may spend in all, > 0; infinite: no bound.
    """

    retry_budget_s: float = 900.0
    slack_batches: int = 32
    linger_s: float = LINGER_S
    backoff: Backoff = field(default_factory=Backoff)
    max_tokens: float = math.inf

    @classmethod
    def of(cls, settings: Settings) -> ClientOptions:
        """Return the options that the settings ask for."""
        return cls(settings.embed_retry_budget_s, max_tokens=settings.max_tokens)


class EmbeddingClient:
    """Embeds streams of texts through one backend under one limiter.

    Args:
        embedder: The backend; closed by its owner.
        limiter: Decides how many requests go, and how fast.
        settings: Where the options come from; None: the defaults.
        options: Win over ``settings``.
        clock: Seconds on a monotonic clock.
        sleep: Waits for seconds of that clock.
        rng: For jitter.
    """

    def __init__(
        self,
        embedder: Embedder,
        limiter: Limiter,
        *,
        settings: Settings | None = None,
        options: ClientOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if options is None:
            options = ClientOptions.of(settings) if settings else ClientOptions()
        self.embedder = embedder
        self._limiter = limiter
        self._options = options
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self._budget = TokenBudget(options.max_tokens)
        self.stats = EmbeddingStats()

    @property
    def limiter_state(self) -> LimiterState:
        """The controller's picture at present."""
        return self._limiter.state(self._clock())

    async def embed_all(
        self, texts: AsyncIterable[TextItem], *, commit: Commit, refuse: Refuse
    ) -> EmbeddingStats:
        """Embed every text; return the counts of this client so far.

        Args:
            texts: Texts, each hash once; pulled no further ahead than needed, and closed at the end.
            commit: Makes the vectors (float32 of shape (n, d), rows of length 1) of n hashes durable.
                Requests that finish together are committed together; it never runs twice at once, nor beside
                ``refuse``.
            refuse: Puts aside a text that cannot be embedded, with the reason.

        Raises:
            ConfigurationError: A person must mend something (key, quota, model, server). Requests in flight
                are finished and committed first.
            BudgetExceededError: Going on would spend more than ``max_tokens``; likewise.
            TransientError: The server was away for longer than the budget; likewise.
            BaseException: What ``texts``, ``commit`` or ``refuse`` raise, and cancellation: requests in
                flight are given up, and what is finished is committed, unless committing is what failed.
        """
        limits = BatchLimits(
            self.embedder.max_batch_texts,
            self.embedder.max_batch_bytes,
            min(self.embedder.max_batch_tokens, self._options.max_tokens / FIRST_CAUTION),
        )
        estimator = TokenEstimator()
        turnstile = Turnstile(self._limiter, clock=self._clock, sleep=self._sleep)
        exchange = Exchange(
            self.embedder,
            turnstile,
            Purse(self._budget),
            estimator,
            self.stats,
            clock=self._clock,
            sleep=self._sleep,
            rng=self._rng,
            retry_budget_s=self._options.retry_budget_s,
        )
        run = EmbeddingRun(
            feed=BatchFeed(texts, limits, estimator, sleep=self._sleep, linger_s=self._options.linger_s),
            turnstile=turnstile,
            exchange=exchange,
            committer=Committer(commit, refuse, self.stats),
            size=SizeCheck(self.embedder, exchange, self._options.backoff),
            learner=LimitLearner(limits),
            backoff=self._options.backoff,
            slack_batches=self._options.slack_batches,
            clock=self._clock,
        )
        try:
            await run.run()
        except BudgetExceededError as error:
            raise BudgetExceededError(
                f"{error.message} {self.stats.texts:,} texts were embedded and are kept. Raise "
                "ERA_EMBED_MAX_TOKENS or ERA_EMBED_MAX_COST, or run again as it is: texts that are done are "
                "not paid for again.",
                bound_tokens=error.bound_tokens,
                spent_tokens=error.spent_tokens,
            ) from error
        return self.stats
