"""Observations of a run while it works: few at first, ever fewer later, so that a day's run has a bounded number."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.pipelines.report import Progress

FIRST_AFTER_S = 5.0
GROWTH = 1.3
"""Each pause is so many times the one before: a run of an hour has some 22 observations, one of a day 34."""


class Observer:
    """Writes how far a run is, as observations of ``embeddings``; call it as often as you like.

    An observation is a blocking write to Dagster's storage, some 10 ms.

    Args:
        log: What writes an event, such as ``context.log_event``.
        clock: Monotonic, seconds.
    """

    def __init__(
        self, log: Callable[[dg.AssetObservation], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._clock = clock
        self._pause_s = FIRST_AFTER_S
        self._next = clock() + self._pause_s

    def __call__(self, progress: Progress) -> None:
        """Take a picture of the run; write it if enough time has gone by."""
        now = self._clock()
        if now < self._next:
            return
        self._pause_s *= GROWTH
        self._next = now + self._pause_s
        self._log(build_observation(progress))


def build_observation(progress: Progress) -> dg.AssetObservation:
    """Return what a person wants to know of a run that is on its way."""
    limiter = progress.limiter
    metadata: dict[str, float | str] = {
        "share done": round(progress.share, 4),
        "books done": f"{progress.books_done:,} of {progress.books_total:,}",
        "texts done": progress.texts_done,
        "texts to do": f"{'' if progress.reading_done else 'about '}{progress.texts_expected:,}",
        "texts a second": round(progress.texts_per_s, 1),
        "requests": progress.requests,
        "refused by rate limits": progress.rate_limited,
        "tokens": progress.tokens,
        "seconds so far": round(progress.elapsed_s, 1),
    }
    if progress.cost is not None:
        metadata["cost"] = progress.cost
    if progress.seconds_left is not None:
        metadata["seconds left, about"] = round(progress.seconds_left)
    if limiter is not None:
        metadata["requests in flight"] = limiter.in_flight
        metadata["requests allowed"] = round(limiter.limit, 1)
        metadata["held by"] = limiter.held_by or "nothing"
    return dg.AssetObservation("embeddings", metadata=metadata)
