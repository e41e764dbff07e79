"""Which books a run is at work on, so that runs at the same time do not pay for the same texts.

An economy, not a safety: two runs may load one book at once and come to the same. A claim is an advisory lock of a
session of its own; it ends with the run, however that ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.store.database import Database

MAX_CLAIMS = 1_000
"""Books claimed at a time, at most: the server's lock table has room for some thousands. The rest goes unclaimed."""
_LOCKS = 0x65726108
"""First key of the advisory locks of books at work."""


class Claims:
    """The claims of one run.

    Args:
        db: The database; one connection beside the pool's is opened with the first claim.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._session: psycopg.AsyncConnection[Any] | None = None
        self._held: set[str] = set()
        self._broken = False

    async def take(self, slugs: Sequence[str]) -> set[str]:
        """Claim books; return those that this run may work on now.

        Where the database does not answer, all of them: what follows will say so.
        """
        room = max(0, MAX_CLAIMS - len(self._held))
        asked = list(slugs[:room])
        if self._broken or not asked:
            return set(slugs)
        try:
            if self._session is None:
                self._session = await self._db.open_session()
            cursor = await self._session.execute(
                """
                select slug from unnest(%s::text[]) as s (slug)
                where pg_try_advisory_lock(%s, hashtext(slug))
                """,
                (asked, _LOCKS),
            )
            taken = {str(row[0]) for row in await cursor.fetchall()}
        except (psycopg.Error, EraError):
            self._broken = True
            return set(slugs)
        self._held |= taken
        return taken | set(slugs[room:])

    async def give(self, slug: str) -> None:
        """Let others have a book."""
        if slug not in self._held or self._session is None or self._broken:
            return
        self._held.discard(slug)
        try:
            await self._session.execute("select pg_advisory_unlock(%s, hashtext(%s))", (_LOCKS, slug))
        except psycopg.Error:
            self._broken = True

    async def aclose(self) -> None:
        """Give everything back."""
        if self._session is not None:
            await self._session.close()
