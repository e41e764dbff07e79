"""Is it the server or the text? A plain sentence tells.

A server that hangs answers nothing for a whole time limit, also when it is long back: so a question that is out for a
while does not hold up the next one. The limiter's breaker paces them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from era_ingest.clients.exchange import Answer, Exchange
from era_ingest.clients.feed import TextItem
from era_ingest.core.batching import Batch, Sized
from era_ingest.core.tokens import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.core.retry import Backoff
    from era_ingest.errors import EraError

SENTENCE = "The quick brown fox jumps over the lazy dog."
"""What any embedding model can embed."""
PROBE_TRIES = 3
HUNG_S = 2.5
"""After so many seconds without an answer the sentence is sent again, beside the question that hangs."""


def plain_sentence() -> Batch[TextItem]:
    """Return a batch that says nothing of the books."""
    return Batch.of([Sized(TextItem(b"", SENTENCE), len(SENTENCE), estimate_tokens(SENTENCE))])


class ServerCheck:
    """Finds out whether the server answers a plain sentence; for one that asks at a time, the others hear of it.

    Args:
        exchange: Asks.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._failed_at = float("-inf")
        self._failure: EraError | None = None

    async def failure_since(self, moment: float, backoff: Backoff) -> EraError | None:
        """Return None if the server answered anything since a moment, or does so now; else its failure."""
        asked = self._clock()
        async with self._one_at_a_time:
            if self._exchange.last_success >= moment:
                return None
            if self._failed_at < asked:
                self._failure = await self._probe(moment, backoff)
                self._failed_at = self._clock()
            return self._failure

    async def _probe(self, moment: float, backoff: Backoff) -> EraError | None:
        batch = plain_sentence()
        questions: set[asyncio.Task[Answer | EraError]] = set()
        failures = 0
        try:
            while True:
                admission = await self._exchange.admit_again(batch)
                questions.add(asyncio.create_task(self._exchange.ask(batch, admission)))
                for question in await self._first_of(questions):
                    questions.discard(question)
                    outcome = question.result()
                    if isinstance(outcome, Answer):
                        return None
                    failures += 1
                    if failures == PROBE_TRIES:
                        return outcome
                    await self._exchange.back_off(backoff, failures - 1)
                if self._exchange.last_success >= moment:
                    return None
        finally:
            for question in questions:
                question.cancel()
            await asyncio.gather(*questions, return_exceptions=True)

    async def _first_of(
        self, questions: set[asyncio.Task[Answer | EraError]]
    ) -> set[asyncio.Task[Answer | EraError]]:
        """Wait until a question has an outcome, or the latest hangs; return those that have one."""
        patience = asyncio.create_task(self._exchange.pause(HUNG_S))
        try:
            await asyncio.wait({*questions, patience}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            patience.cancel()
        return {question for question in questions if question.done()}
