"""``counter_history``: what runs added to some counters, minute by minute; written by `store.counters.add`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from era_ingest.core.increments import Series

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import AsyncConnection

KEPT: Final = "8 days"
"""Older minutes are swept away by the next run that begins."""


async def sweep(conn: AsyncConnection[Any]) -> None:
    """Forget what is older than anybody looks at."""
    await conn.execute("delete from era.counter_history where minute < now() - %s::interval", (KEPT,))


async def sums(
    conn: AsyncConnection[Any], *, since: datetime, step_s: int
) -> dict[datetime, dict[Series, float]]:
    """Return what was added in each stretch of time that anything was added in.

    Args:
        conn: A connection.
        since: The beginning of the first stretch.
        step_s: The length of each, seconds; a multiple of a minute.
    """
    cursor = await conn.execute(
        """
        select date_bin(make_interval(secs => %(step)s), minute, %(since)s) as at, name, labels, sum(value)
        from era.counter_history where minute >= %(since)s group by at, name, labels
        """,
        {"since": since, "step": step_s},
    )
    found: dict[datetime, dict[Series, float]] = {}
    for at, name, labels, value in await cursor.fetchall():
        found.setdefault(at, {})[Series.of(name, **labels)] = float(value)
    return found
