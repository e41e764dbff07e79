"""Runs that use the same endpoint with the same key share its limit through the database.

They find each other by a hash of endpoint, model and key, in the database that they load into. Runs that load
into different databases do not know of each other: each then learns from refusals as best it can.
"""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from era_ingest.clients.http_backend import HttpEmbedder
from era_ingest.clients.sharing import sharing
from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.sharer import Sharer
from era_ingest.errors import StoreUnavailableError
from era_ingest.store import boards

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator

    from era_ingest.clients.backend import Embedder
    from era_ingest.core.limiter.board import Grant, Report
    from era_ingest.core.limiter.contract import Limiter
    from era_ingest.store.database import Database


@asynccontextmanager
async def sharing_limiter(
    limiter: Limiter, embedder: Embedder, database: Database, *, rng: random.Random
) -> AsyncIterator[Limiter]:
    """Yield a controller that shares its endpoint's limit with other runs, where that makes sense.

    Only the adaptive controller before a server on the network does; any other is yielded as it is.
    """
    if not isinstance(limiter, AdaptiveLimiter) or not isinstance(embedder, HttpEmbedder):
        yield limiter
        return
    async with shared(Sharer(limiter, uniform=rng.random), embedder.endpoint.limit_key, database) as sharer:
        yield sharer


@asynccontextmanager
async def shared(sharer: Sharer, key: str, database: Database) -> AsyncIterator[Sharer]:
    """Keep a controller on the board of a key for the length of a context.

    Args:
        sharer: The controller.
        key: Names the endpoint and the account; see ``Endpoint.limit_key``.
        database: Where the board lies.
    """
    name = uuid.uuid4().hex

    async def visit(report: Report) -> Grant:
        return await boards.visit(database, key, lambda now, board: board.exchange(now, name, report))

    async with AsyncExitStack() as stack:
        with suppress(StoreUnavailableError):
            if await boards.look(database, key):
                sharer.join()
        stack.push_async_callback(_leave, sharer, name, key, database)
        await stack.enter_async_context(sharing(sharer, visit))
        yield sharer


async def _leave(sharer: Sharer, name: str, key: str, database: Database) -> None:
    """Leave the share to the others at once; without this they would find out within seconds."""
    if sharer.has_joined:
        with suppress(StoreUnavailableError):
            await boards.visit(database, key, lambda _, board: board.leave(name))
