"""Speed over time, as it is read back: what runs counted, in the minute in which they did."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.increments import Beat, Series
from era_ingest.pipelines.speeds import Window, read_speeds
from era_ingest.pipelines.telemetry import HELD, LATENCY, REMEMBERED, REQUESTS, TEXTS
from era_ingest.store import counters, schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from psycopg import AsyncConnection

    from era_ingest.store.database import Database

AMOUNTS = {
    Series.of(TEXTS, model="m"): 640.0,
    Series.of(TEXTS, model="n"): 60.0,
    Series.of(HELD, by="pipe"): 3.0,
    Series.of(HELD, by="nothing"): 4.0,
    Series.of(REQUESTS, model="m", outcome="ok"): 10.0,
    Series.of(REQUESTS, model="m", outcome="rate_limited"): 2.0,
    Series.of(REQUESTS, model="m", outcome="timeout"): 1.0,
    Series.of(f"{LATENCY}_bucket", model="m", le="0.1"): 9.0,
    Series.of(f"{LATENCY}_bucket", model="m", le="0.25"): 1.0,
    Series.of("era_rows_written_total"): 700.0,
}


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection to a database of this version's schema."""
    await schema.migrate(database)
    async with database.connection() as opened:
        yield opened


async def add(conn: AsyncConnection[Any], number: int, writer: uuid.UUID) -> None:
    beat = Beat(number, AMOUNTS)
    await counters.add(conn, writer=writer, run_id="r", beat=beat, state=None, remembered=REMEMBERED)


async def test_what_runs_count_is_found_again_in_its_time(conn: AsyncConnection[Any]) -> None:
    """Of two runs together, each addition once though it was sent twice; nothing of other counters."""
    one, two = uuid.uuid4(), uuid.uuid4()
    for number, writer in ((1, one), (1, two), (2, two), (2, two)):
        await add(conn, number, writer)
    (speed,) = await read_speeds(conn, Window.WEEK, now=time.time())
    assert (speed.texts, speed.busy_s, speed.requests) == (2_100, 21.0, 30)
    assert (speed.rate_limited, speed.failed) == (6, 3)
    assert speed.p50_s == pytest.approx(0.05 + 0.05 * 5 / 9)
    assert speed.p95_s == pytest.approx(0.1 + 0.15 * 0.5)
    assert speed.at.timestamp() <= time.time() < speed.at.timestamp() + Window.WEEK.step_s
    names = await (await conn.execute("select distinct name from era.counter_history")).fetchall()
    assert {name for (name,) in names} == set(REMEMBERED)


async def test_what_is_over_is_not_shown_and_in_the_end_forgotten(conn: AsyncConnection[Any]) -> None:
    """An hour ago is not in the hour, but in the day; after eight days the next run that begins sweeps it away."""
    await add(conn, 1, uuid.uuid4())
    await conn.execute("update era.counter_history set minute = minute - interval '61 minutes'")
    now = time.time()
    assert await read_speeds(conn, Window.HOUR, now=now) == []
    assert [speed.texts for speed in await read_speeds(conn, Window.DAY, now=now)] == [700]
    await conn.execute("update era.counter_history set minute = minute - interval '8 days'")
    await add(conn, 1, uuid.uuid4())
    oldest = await (await conn.execute("select min(minute) from era.counter_history")).fetchone()
    assert oldest is not None
    assert oldest[0] > datetime.fromtimestamp(now - 300, UTC)
