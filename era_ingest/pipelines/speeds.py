"""How fast texts were embedded, and how long the embedder took to answer, over the last hour, day or week."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from era_ingest.clients.stats import LATENCY_BOUNDS_S
from era_ingest.pipelines.telemetry import HELD, LATENCY, REQUESTS, TEXTS
from era_ingest.store import history

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from era_ingest.core.increments import Series


class Window(Enum):
    """How far back one looks, and in steps of what length; seconds both."""

    HOUR = (3_600, 60)
    DAY = (86_400, 1_200)
    WEEK = (604_800, 7_200)

    @property
    def length_s(self) -> int:
        """How far back, seconds."""
        return self.value[0]

    @property
    def step_s(self) -> int:
        """Length of a step, seconds."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Speed:
    """What was embedded in one step of time.

    Attributes:
        at: When it begins.
        texts: Texts embedded and stored.
        busy_s: Time that runs spent embedding, seconds; of several at once the sum.
        requests: Requests answered well.
        rate_limited: Requests that were told to slow down.
        failed: Requests that failed otherwise.
        p50_s: Latency that half of the good requests kept below, seconds; None: there was none.
        p95_s: Latency that all but a twentieth kept below.
    """

    at: datetime
    texts: int = 0
    busy_s: float = 0.0
    requests: int = 0
    rate_limited: int = 0
    failed: int = 0
    p50_s: float | None = None
    p95_s: float | None = None


async def read_speeds(conn: AsyncConnection[Any], window: Window, *, now: float) -> list[Speed]:
    """Return each step of a window in which anything was embedded, the earliest first.

    Args:
        conn: A connection.
        window: How far back.
        now: Seconds since 1970.
    """
    since = datetime.fromtimestamp(begin_of(window, now), UTC)
    found = await history.sums(conn, since=since, step_s=window.step_s)
    return [_speed(at, amounts) for at, amounts in sorted(found.items())]


def begin_of(window: Window, now: float) -> int:
    """Return when a window's first step begins, seconds since 1970; its last step holds the present."""
    return (int(now) // window.step_s + 1) * window.step_s - window.length_s


def _speed(at: datetime, amounts: Mapping[Series, float]) -> Speed:
    counts = [0.0] * (len(LATENCY_BOUNDS_S) + 1)
    places = {str(bound): place for place, bound in enumerate((*LATENCY_BOUNDS_S, "+Inf"))}
    outcomes: dict[str, float] = {}
    texts = busy_s = 0.0
    for series, value in amounts.items():
        labels = dict(series.labels)
        if series.name == f"{LATENCY}_bucket" and labels["le"] in places:
            counts[places[labels["le"]]] += value
        elif series.name == REQUESTS:
            outcomes[labels["outcome"]] = outcomes.get(labels["outcome"], 0.0) + value
        elif series.name == TEXTS:
            texts += value
        elif series.name == HELD:
            busy_s += value
    good, limited = outcomes.pop("ok", 0.0), outcomes.pop("rate_limited", 0.0)
    return Speed(
        at=at,
        texts=round(texts),
        busy_s=busy_s,
        requests=round(good),
        rate_limited=round(limited),
        failed=round(sum(outcomes.values())),
        p50_s=quantile(counts, 0.5),
        p95_s=quantile(counts, 0.95),
    )


def quantile(counts: Sequence[float], share: float) -> float | None:
    """Return the latency that a share of requests kept below, seconds; None where there are none.

    Estimated from a histogram as Prometheus does: evenly spread within a bucket; of the last one, which has no upper
    bound, its lower one.

    Args:
        counts: Requests in each bucket of ``LATENCY_BOUNDS_S``, the one without a bound last.
        share: 0 to 1.
    """
    wanted, below, lower = share * sum(counts), 0.0, 0.0
    if not wanted:
        return None
    for count, upper in zip(counts[:-1], LATENCY_BOUNDS_S, strict=True):
        if count and below + count >= wanted:
            return lower + (upper - lower) * (wanted - below) / count
        below, lower = below + count, upper
    return lower
