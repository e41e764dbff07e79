"""What pages are made of: figures as people read them, pictures as geometry, quantiles from a histogram."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from era_ingest.clients.stats import LATENCY_BOUNDS_S, LatencyHistogram
from era_ingest.pipelines.speeds import Speed, Window, begin_of, quantile
from era_ingest.service.pages import charts, rendering
from era_ingest.service.pages.door import own_path
from era_ingest.service.pages.paging import Pager
from era_ingest.service.pages.reading import DomainCounts
from era_ingest.store import browsing

NOW = 1_790_000_030.0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (7_320, "2 h 2 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_spans_of_time_are_two_units_at_most(seconds: float | None, shown: str) -> None:
    assert rendering.show_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3_599, "59 min ago"),
        (7_200, "2 h ago"),
        (100_000, "yesterday"),
        (200_000, "2 days ago"),
        (30 * 86_400, "2026-08-22"),
    ],
)
def test_moments_are_told_by_how_long_ago_they_were(seconds: float, shown: str) -> None:
    assert rendering.show_ago(datetime.fromtimestamp(NOW - seconds, UTC), NOW) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.1234, "0.123"), (12.34, "12.3"), (1234.5, "1,234"), (0, "0")]
)
def test_measured_figures_have_three_digits(value: float, shown: str) -> None:
    assert rendering.show_figure(value) == shown


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (1.01, 2), (240, 250), (251, 500), (5_000, 5_000), (9_999, 10_000)]
)
def test_the_top_of_a_picture_is_a_round_number(value: float, top: float) -> None:
    assert charts.nice_top(value) == top


@pytest.mark.parametrize("window", list(Window))
def test_a_picture_ends_with_the_step_that_holds_the_present(window: Window) -> None:
    """Its steps are whole, and begin where the clock's do."""
    begin = begin_of(window, NOW)
    assert begin % window.step_s == 0
    assert window.length_s % window.step_s == 0
    assert begin + window.length_s - window.step_s <= NOW < begin + window.length_s
    assert begin_of(window, begin) == begin - window.length_s + window.step_s


def test_pictures_stay_in_their_box() -> None:
    """Bars of a full window, one of them of nothing: all within 1,000 by 100, the highest at its value."""
    begin = begin_of(Window.HOUR, NOW)
    speeds = [
        Speed(
            datetime.fromtimestamp(begin + 60 * n, UTC), texts=n, requests=n, p50_s=0.001 * n, p95_s=0.002 * n
        )
        for n in range(60)
    ]
    texts, latency = (
        charts.draw_texts(speeds, Window.HOUR, NOW),
        charts.draw_latency(speeds, Window.HOUR, NOW),
    )
    assert (texts.top, latency.top) == (100, 200)
    for chart in (texts, latency):
        assert len(chart.steps) == 60
        for box in (box for step in chart.steps for box in step.boxes):
            assert box.x >= 0
            assert box.x + box.width <= charts.WIDTH
            assert box.y >= 0
            assert box.y + box.height <= charts.HEIGHT
    assert texts.steps[-1].boxes[0].height == pytest.approx(59)
    bad = charts.draw_texts([Speed(speeds[0].at, texts=1, rate_limited=1)], Window.HOUR, NOW)
    assert [box.kind for box in bad.steps[0].boxes] == ["fill", "hurt"]
    assert charts.draw_latency([Speed(speeds[0].at, texts=1)], Window.HOUR, NOW).steps[0].boxes == ()


def test_quantiles_lie_in_the_bucket_of_what_they_stand_for() -> None:
    """Of a thousand known latencies, as exactly as the buckets allow."""
    histogram = LatencyHistogram()
    latencies = sorted(0.004 * 1.009**n for n in range(1_000))
    for latency in latencies:
        histogram.add(latency)
    for share in (0.5, 0.95, 1.0):
        found, true = quantile(histogram.counts, share), latencies[int(share * 1_000) - 1]
        bounds = (0.0, *LATENCY_BOUNDS_S)
        lower = max(bound for bound in bounds if bound < true)
        upper = next((bound for bound in bounds if bound >= true), LATENCY_BOUNDS_S[-1])
        assert found is not None
        assert lower <= found <= upper
    assert quantile([0] * len(histogram.counts), 0.5) is None
    assert quantile([0] * len(LATENCY_BOUNDS_S) + [3], 0.5) == LATENCY_BOUNDS_S[-1]


@pytest.mark.parametrize("path", ["/", "/books?q=a%20b&page=2", "/search?q=%2f%2fx"])
def test_ways_back_stay_here(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path", ["//x", "/\\x", "http://x", "x", "", "/a\nb", "/a b", "/a\\b", "/" + "x" * 5_000]
)
def test_ways_elsewhere_lead_to_the_front_page(path: str) -> None:
    assert own_path(path) == "/"


def test_a_pager_knows_its_neighbours() -> None:
    """The first page has none before it, the last none after it; empty bounds are left out of their addresses."""
    first, last = (Pager("/books", {"q": "a&b", "x": ""}, number, 50, 101) for number in (1, 3))
    assert (first.first, first.last, first.previous_url, first.next_url) == (
        1,
        50,
        None,
        "/books?q=a%26b&page=2",
    )
    assert (last.first, last.last, last.previous_url, last.next_url) == (
        101,
        101,
        "/books?q=a%26b&page=2",
        None,
    )


async def test_domains_are_counted_again_only_after_a_change_and_not_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counting that takes a second is done every twenty seconds at most, and never for nothing."""
    now, counted, version = [0.0], [0], [(1, 1)]

    async def count(_: object) -> list[object]:
        now[0] += 1.0
        counted[0] += 1
        return []

    async def look(_: object) -> tuple[int, int]:
        return version[0]

    monkeypatch.setattr(browsing, "count_domains", count)
    monkeypatch.setattr(browsing, "corpus_version", look)
    counts = DomainCounts(clock=lambda: now[0])

    async def ask_at(second: float) -> int:
        now[0] = second
        await counts.get(None)  # type: ignore[arg-type]
        return counted[0]

    assert await ask_at(0) == 1
    version[0] = (1, 2)
    assert await ask_at(15) == 1
    assert await ask_at(22) == 2
    assert await ask_at(100) == 2
