"""Patience with the database: what is transient is tried again for a while."""

from __future__ import annotations

import asyncio
import random
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import psycopg
from psycopg import errors as pg

from era_ingest.errors import EraError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

_TRANSIENT = (
    StoreUnavailableError,
    psycopg.OperationalError,  # the connection broke, the server restarts, disk full, out of memory
    psycopg.InterfaceError,  # the connection is closed
    pg.DeadlockDetected,
    pg.SerializationFailure,
    pg.LockNotAvailable,
    pg.ReadOnlySqlTransaction,
)
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


def patient(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a coroutine function patient with the database: see ``retry_transient``.

    What it does must be one whole transaction, or several that may each be done again.
    """

    @wraps(work)
    async def patiently(*arguments: P.args, **named: P.kwargs) -> T:
        return await retry_transient(lambda: work(*arguments, **named))

    return patiently


async def retry_transient(
    work: Callable[[], Awaitable[T]],
    *,
    budget_s: float = 60.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Return what ``work`` returns; on a transient error of the database do it again.

    ``work`` must be one whole transaction, so that doing it again is safe. Pauses double from 0.05 s to 2 s,
    with full jitter.

    Args:
        work: Makes a fresh attempt at each call.
        budget_s: How long to go on, seconds.
        sleep: Injected by tests.

    Raises:
        StoreUnavailableError: The budget is spent; it carries the last cause.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + budget_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await work()
        except _TRANSIENT as error:
            if loop.time() + pause_s > give_up_at:
                raise StoreUnavailableError(
                    f"Nothing could be written for {budget_s:.0f} s: {_cause(error)} What was committed is safe; "
                    "run `era doctor`, then run the same command again."
                ) from error
            await sleep(random.uniform(0, pause_s))  # noqa: S311 - jitter, no secret
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)


def _cause(error: Exception) -> str:
    """Return what went wrong in a sentence: our own errors' message, the first line of a driver's."""
    if isinstance(error, EraError):
        return error.message
    lines = str(error).strip().splitlines()
    return f"{lines[0] if lines else repr(error)}."
