"""What runs do at present, and how fast they were: the part of the front page that whoever is on call looks at."""

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import APIRouter, Request, Response
from psycopg import AsyncConnection

from era_ingest.pipelines.speeds import Speed, Window, read_speeds
from era_ingest.service.pages.charts import Chart, draw_latency, draw_texts
from era_ingest.service.pages.reading import reading
from era_ingest.service.pages.rendering import render
from era_ingest.service.parts import parts_of
from era_ingest.store.counters import LiveRun, live_runs

router = APIRouter(include_in_schema=False)


class Span(StrEnum):
    """How far back the pictures go."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"

    @property
    def window(self) -> Window:
        """The same for the database."""
        return Window[self.name]


@dataclass(frozen=True, slots=True)
class SpeedView:
    """What the part shows.

    Attributes:
        span: How far back.
        live: Runs at work.
        speeds: Steps of time in which anything was embedded.
        texts: The picture of what was embedded.
        latency: The picture of latency.
    """

    span: Span
    live: list[LiveRun]
    speeds: list[Speed]
    texts: Chart
    latency: Chart

    def total(self, name: str) -> float:
        """Sum one figure of the steps, such as ``texts``."""
        return sum(float(getattr(speed, name)) for speed in self.speeds)


async def view_speed(conn: AsyncConnection[Any], span: Span | None) -> SpeedView:
    """Return what the part shows; without a span, the shortest that holds anything."""
    now = time.time()
    for chosen in [span] if span else list(Span):
        span, speeds = chosen, await read_speeds(conn, chosen.window, now=now)
        if speeds:
            break
    assert span is not None
    return SpeedView(
        span=span,
        live=await live_runs(conn),
        speeds=speeds,
        texts=draw_texts(speeds, span.window, now),
        latency=draw_latency(speeds, span.window, now),
    )


@router.get("/speed")
async def speed_piece(request: Request, span: Span | None = None) -> Response:
    """Show the part by itself."""
    async with reading(parts_of(request)) as conn:
        speed = await view_speed(conn, span)
    return render(request, "pieces/speed.html", speed=speed)
