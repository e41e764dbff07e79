"""Does what the service needs answer? Asked seldom, however often somebody wants to know."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

KEPT_S = 1.0
"""How long an answer is kept, seconds: `/readyz` needs no token, and must not be a way to keep the database busy."""
TIMEOUT_S = 5.0


class Readiness:
    """Asks the parts, one round at a time.

    Args:
        checks: By name, what raises where a part does not answer.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], Awaitable[None]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._clock = clock
        self._turn = asyncio.Lock()
        self._states: dict[str, str] = {}
        self._until = float("-inf")

    async def states(self) -> dict[str, str]:
        """Return ``ok`` or ``unavailable`` by part."""
        async with self._turn:
            if self._clock() >= self._until:
                asked = [_state(check()) for check in self._checks.values()]
                self._states = dict(zip(self._checks, await asyncio.gather(*asked), strict=True))
                self._until = self._clock() + KEPT_S
            return self._states


async def _state(check: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await check
    except (EraError, TimeoutError):
        return "unavailable"
    return "ok"
