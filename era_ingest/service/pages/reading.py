"""The database as pages ask it: quickly, or a word that it is away."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from era_ingest.errors import StoreUnavailableError
from era_ingest.store import browsing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from psycopg import AsyncConnection

    from era_ingest.service.parts import Parts
    from era_ingest.store.browsing import DomainLine

PATIENCE_S = 5.0
"""How long a page waits for the database; programs wait longer, people reload."""
_MOST_SHARE = 20.0


@asynccontextmanager
async def reading(parts: Parts) -> AsyncIterator[AsyncConnection[Any]]:
    """Lend a connection for the length of a page.

    Raises:
        StoreUnavailableError: The database does not answer in time.
    """
    try:
        async with asyncio.timeout(PATIENCE_S), parts.services.database.connection() as conn:
            yield conn
    except TimeoutError as error:
        raise StoreUnavailableError(
            f"The database does not answer within {PATIENCE_S:.0f} seconds. Nothing is lost: `era doctor` says what "
            "is wrong; reload the page once it is back."
        ) from error


class DomainCounts:
    """The counts of all domains, counted again only once something changed.

    Counting reads every row (half a second for half a million), so that while books are loaded it is done again at
    most for a twentieth of the time.

    Args:
        clock: Monotonic, seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._version = (0, 0)
        self._lines: list[DomainLine] = []
        self._not_before = float("-inf")

    async def get(self, conn: AsyncConnection[Any]) -> list[DomainLine]:
        """Return every domain that has rows, the largest first."""
        if self._clock() < self._not_before:
            return self._lines
        version = await browsing.corpus_version(conn)
        if version != self._version:
            begun = self._clock()
            self._lines = await browsing.count_domains(conn)
            self._version, took_s = version, self._clock() - begun
            self._not_before = self._clock() + _MOST_SHARE * took_s
        return self._lines
