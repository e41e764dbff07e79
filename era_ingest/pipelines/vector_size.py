"""How long the vectors of a model are that no text has asked yet: a book without texts can be the first of a model."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

from era_ingest.clients.size_check import mismatch
from era_ingest.core.retry import Backoff, RetryBudget
from era_ingest.errors import TransientError

if TYPE_CHECKING:
    from era_ingest.clients.backend import Embedder, Reply

PROBE_TEXTS: Final = ("dimensions", "another text")
_BACKOFF: Final = Backoff()


async def find_vector_size(embedder: Embedder, retry_budget_s: float) -> int:
    """Return the size on which two replies of the embedder agree; what is transient is tried again.

    Args:
        embedder: Gets the size as its own.
        retry_budget_s: How long failures may last without a success between them, seconds.

    Raises:
        ResponseMismatchError: The two replies have different sizes.
        TransientError: The budget is spent; the last failure.
        ConfigurationError: A person must mend something.
    """
    if embedder.dimensions is None:
        sizes = [int((await _ask(embedder, text, retry_budget_s)).vectors.shape[1]) for text in PROBE_TEXTS]
        if len(set(sizes)) > 1:
            raise mismatch(*sizes)
        embedder.dimensions = sizes[0]
    return embedder.dimensions


async def _ask(embedder: Embedder, text: str, retry_budget_s: float) -> Reply:
    budget = RetryBudget(retry_budget_s)
    retries = 0
    while True:
        try:
            return await embedder.embed([text])
        except TransientError as error:
            if budget.fail(time.monotonic()):
                raise
            asked_s = getattr(error, "retry_after_s", None) or 0.0
            await asyncio.sleep(asked_s + _BACKOFF.delay_s(retries, random.random()))  # noqa: S311 - jitter
            retries += 1
