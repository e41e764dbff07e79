"""The way between a run's controller and the board that it shares with others; idle until there is reason.

Nothing is asked before the first refusal without headers, or while nobody else uses the key: an idle task.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from era_ingest.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from era_ingest.core.limiter.board import Grant, Report
    from era_ingest.core.limiter.sharer import Sharer

    Visit = Callable[[Report], Awaitable[Grant]]


@asynccontextmanager
async def sharing(
    sharer: Sharer, visit: Visit, *, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[None]:
    """Keep a controller and its board in touch for the length of a context.

    Args:
        sharer: The controller.
        visit: Takes a report to the board and brings the grant back; a ``TransientError`` means that the
            board is away, and is tried again later.
        clock: Seconds on the clock that the controller is driven by.
    """
    task = asyncio.create_task(_keep_in_touch(sharer, visit, clock))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_in_touch(sharer: Sharer, visit: Visit, clock: Callable[[], float]) -> None:
    due = asyncio.Event()
    sharer.on_due = due.set
    while True:
        wait_s = sharer.ask_at - clock()
        if wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                    await due.wait()
            due.clear()
            continue
        try:
            grant = await visit(sharer.report(clock()))
        except TransientError:
            sharer.miss(clock())
        else:
            sharer.apply(clock(), grant)
