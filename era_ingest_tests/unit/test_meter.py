"""Progress that is true: shares, time left, money, and what held the flow."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from era_ingest.cli.progress import describe
from era_ingest.clients.stats import EmbeddingStats
from era_ingest.core.limiter import LimiterState
from era_ingest.pipelines.meter import Meter
from era_ingest.pipelines.report import IngestReport, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1_000_000


class Stand:
    """A meter over counts that the test sets, on a clock that it moves."""

    def __init__(self, *, price: float = 0.0) -> None:
        self.now = 0.0
        self.flow = SimpleNamespace(texts_known=0, texts_settled=0, bytes_read=0, reading_done=False)
        self.limiter = LimiterState(limit=12.0, in_flight=12, rate_per_s=None, held_by="quota")
        self.client = SimpleNamespace(stats=EmbeddingStats(), limiter_state=self.limiter)
        self.result = IngestReport()
        self.meter = Meter(
            cast("Any", self.flow),
            cast("Any", self.client),
            self.result,
            total=4,
            total_bytes=4 * MB,
            price=price,
            clock=lambda: self.now,
        )

    def at(self, now: float, **counts: Any) -> Progress:
        self.now = now
        for name, value in counts.items():
            setattr(self.flow, name, value)
        return self.meter.picture()


def test_texts_to_come_are_told_from_the_bytes_that_are_read() -> None:
    """One megabyte of four gave 100 texts: some 400 are expected, and the share is of those."""
    progress = Stand().at(1.0, bytes_read=MB, texts_known=100, texts_settled=50)
    assert progress.texts_expected == 400
    assert progress.share == pytest.approx(50 / 400)
    assert progress.seconds_left == pytest.approx(350 / 50)


def test_what_is_known_counts_once_all_is_read() -> None:
    """Nothing is guessed any more when the last book is read."""
    progress = Stand().at(2.0, bytes_read=3 * MB, texts_known=300, texts_settled=300, reading_done=True)
    assert (progress.texts_expected, progress.share, progress.seconds_left) == (300, 1.0, 0.0)


def test_books_tell_the_share_where_no_text_is_to_be_embedded() -> None:
    """A run whose texts all have vectors is as far as its books are."""
    stand = Stand()
    stand.result.books = [cast("Any", object())]
    assert stand.at(1.0, bytes_read=MB).share == 0.25


def test_money_is_told_where_the_price_is_set() -> None:
    """Tokens times price a million; nothing where nobody said a price."""
    for price, cost in ((2.0, 3.0), (0.0, None)):
        stand = Stand(price=price)
        stand.client.stats.tokens = 1_500_000
        stand.meter.summarise(stand.result)
        assert (stand.at(1.0).cost, stand.result.cost) == (cost, cost)
        assert stand.result.summary()["cost"] == cost


async def test_time_is_booked_on_what_holds_the_requests_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ticks under the quota and two free ones are told apart."""
    stand = Stand()
    stand.client.stats.requests = 1
    holders = ["quota", "quota", "quota", "", ""]

    async def tick(_: float) -> None:
        if not holders:
            raise asyncio.CancelledError
        stand.now += 0.2
        stand.client.limiter_state = replace(stand.limiter, held_by=holders.pop(0))

    monkeypatch.setattr(asyncio, "sleep", tick)
    show: Callable[[Progress], None] = lambda _progress: None  # noqa: E731 - a place to report to
    with pytest.raises(asyncio.CancelledError):
        await stand.meter.tick(show)
    held = stand.result.held_seconds
    assert held == {"quota": pytest.approx(0.6), "nothing": pytest.approx(0.4)}


def test_a_line_says_all_of_it() -> None:
    """What a person sees: books, texts, rate, who holds, refusals, tokens and money, time left."""
    progress = Progress(
        1,
        4,
        texts_done=50,
        texts_expected=4_000,
        texts_known=100,
        texts_per_s=50.0,
        rate_limited=2,
        tokens=12_000,
        cost=0.24,
        seconds_left=79.0,
        limiter=LimiterState(limit=12.0, in_flight=12, rate_per_s=None, held_by="quota"),
    )
    assert describe(progress) == (
        "1/4 books, 50/about 4,000 texts, 50 texts/s, 12/12 in flight held by quota, 2 x 429, "
        "12,000 tokens (0.24), 79 s left"
    )
