"""How long are the vectors of a model that nobody has used yet? What two replies agree on.

The first vectors that are stored decide a model's size for ever. A server that answers with another model now and then
(two behind one name, a fallback) must not decide it by one reply: so the first reply of all is followed by a question
more, and by others until two replies have the same size.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from era_ingest.clients.exchange import Answer, Exchange
from era_ingest.clients.server_check import PROBE_TRIES, plain_sentence
from era_ingest.errors import BudgetExceededError, ConfigurationError, EraError, ResponseMismatchError

if TYPE_CHECKING:
    from era_ingest.clients.backend import Embedder
    from era_ingest.core.retry import Backoff

AGREE = 2
MOST_SIZES = 5
"""Replies that have to agree; replies that may differ before it is hopeless."""


class SizeCheck:
    """Lets replies pass whose vectors have the model's size; finds it out where it is not known.

    Args:
        embedder: Gets the size once it is confirmed.
        exchange: Asks.
        backoff: Delays between repeats.

    Attributes:
        waiting: Replies that wait until the size is known: they are not durable, and so count as in flight.
    """

    def __init__(self, embedder: Embedder, exchange: Exchange, backoff: Backoff) -> None:
        self._embedder = embedder
        self._exchange = exchange
        self._backoff = backoff
        self._one_at_a_time = asyncio.Lock()
        self.waiting = 0

    async def confirmed(self, answer: Answer) -> Answer | EraError:
        """Return the answer if its vectors have the model's size, else why not; a failure to find out counts too.

        Raises:
            ConfigurationError: No two replies have the same size, or a person must mend something else.
        """
        size = int(answer.reply.vectors.shape[1])
        known = self._embedder.dimensions
        if known is None:
            self.waiting += 1
            try:
                async with self._one_at_a_time:
                    found = self._embedder.dimensions or await self._find_out(size)
            finally:
                self.waiting -= 1
            if isinstance(found, EraError):
                return found
            known = self._embedder.dimensions = found
        return answer if size == known else mismatch(size, known)

    async def _find_out(self, first: int) -> int | EraError:
        """Return the size on which two replies agree, of which one is there; or why none came."""
        sizes = [first]
        while sizes.count(sizes[-1]) < AGREE:
            if len(sizes) == MOST_SIZES:
                raise ConfigurationError(mismatch(*sizes).message)
            size = await self._ask_again(first)
            if isinstance(size, EraError):
                return size
            sizes.append(size)
        return sizes[-1]

    async def _ask_again(self, first: int) -> int | EraError:
        """Return the size of another reply's vectors; that of the first where there is no money left to ask."""
        failures = 0
        while True:
            try:
                outcome = await self._exchange.ask(plain_sentence(), ahead=True)
            except BudgetExceededError:
                return first
            if isinstance(outcome, Answer):
                return int(outcome.reply.vectors.shape[1])
            failures += 1
            if failures == PROBE_TRIES:
                return outcome
            await self._exchange.back_off(self._backoff, failures - 1)


def mismatch(*sizes: int) -> ResponseMismatchError:
    """Return the error that replies of one model differ in size."""
    told = ", then of ".join(f"{size:,}" for size in sizes)
    return ResponseMismatchError(
        f"The server answered with vectors of {told} dimensions: if that goes on, set ERA_EMBED_DIMENSIONS to the "
        "right size, and ask for a model that only one server has."
    )
