"""``counters`` and ``run_meters``: what all runs counted, and how those that are at work stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from era_ingest.core.increments import Series
from era_ingest.store import history

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from uuid import UUID

    from psycopg import AsyncConnection

    from era_ingest.core.increments import Beat

LIVE_S: Final = 30.0
"""A run that was not heard of for so long is not at work any more: it was killed, or cannot reach the database."""
KEPT: Final = "1 day"
"""Runs that were not heard of for so long are swept away by the next one that begins."""


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run at work.

    Attributes:
        run_id: Its id.
        state: How it stands, as it wrote it.
    """

    run_id: str
    state: Mapping[str, Any]


async def add(
    conn: AsyncConnection[Any],
    *,
    writer: UUID,
    run_id: str,
    beat: Beat,
    state: Mapping[str, Any] | None,
    remembered: Collection[str] = (),
) -> None:
    """Add a beat to the totals, and note how the run stands; a beat that was added before changes nothing.

    One statement, so that it is one transaction. Runs that add at once wait for each other in the order of the
    counters, never both ways.

    Args:
        conn: A connection.
        writer: Who adds; one a run and attempt.
        run_id: The run.
        beat: What is added.
        state: How the run stands; None: it ends with this.
        remembered: Names of the counters of which it is kept by the minute when they grew.
    """
    if beat.number == 1:
        await conn.execute("delete from era.run_meters where touched_at < now() - %s::interval", (KEPT,))
        await history.sweep(conn)
    await conn.execute(
        """
        with mine as (
            insert into era.run_meters as m (writer, run_id, beat, state)
            values (%(writer)s, %(run_id)s, %(beat)s, %(state)s)
            on conflict (writer) do update
                set beat = excluded.beat, state = excluded.state, touched_at = clock_timestamp()
                where m.beat < excluded.beat
            returning beat),
        added as (
            select name, labels, value
            from unnest(%(names)s::text[], %(labels)s::jsonb[], %(values)s::float8[]) as t (name, labels, value)
            where exists (select from mine)),
        by_minute as (
            insert into era.counter_history as h (minute, name, labels, value)
            select date_trunc('minute', now()), name, labels, value from added where name = any(%(remembered)s)
            order by name, labels
            on conflict (minute, name, labels) do update set value = h.value + excluded.value)
        insert into era.counters as c (name, labels, value)
        select name, labels, value from added
        order by name, labels
        on conflict (name, labels) do update set value = c.value + excluded.value
        """,
        {
            "writer": writer,
            "run_id": run_id,
            "beat": beat.number,
            "state": None if state is None else Jsonb(state),
            "names": [series.name for series in beat.amounts],
            "labels": [Jsonb(dict(series.labels)) for series in beat.amounts],
            "values": list(beat.amounts.values()),
            "remembered": list(remembered),
        },
    )


async def totals(conn: AsyncConnection[Any]) -> dict[Series, float]:
    """Return what all runs counted, ever."""
    cursor = await conn.execute("select name, labels, value from era.counters")
    return {Series.of(name, **labels): float(value) for name, labels, value in await cursor.fetchall()}


async def live_runs(conn: AsyncConnection[Any]) -> list[LiveRun]:
    """Return the runs at work."""
    cursor = await conn.execute(
        "select run_id, state from era.run_meters where state is not null "
        "and touched_at > clock_timestamp() - make_interval(secs => %s) order by run_id",
        (LIVE_S,),
    )
    return [LiveRun(run_id, state) for run_id, state in await cursor.fetchall()]
