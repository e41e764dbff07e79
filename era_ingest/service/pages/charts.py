"""Two pictures, as geometry: what was embedded when, and how long the embedder took. The template draws them as SVG.

Only rectangles, in a box of 1,000 by 100 that the page stretches as it likes; what is written beside it is HTML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from era_ingest.pipelines.speeds import Window, begin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from era_ingest.pipelines.speeds import Speed

WIDTH: Final = 1_000.0
HEIGHT: Final = 100.0
_GAP = 0.2
"""Share of a step that is left free between two bars."""
_MARK = 2.0
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; y is from above."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Step:
    """What is drawn of one step of time.

    Attributes:
        x: Where it begins.
        width: Its width.
        speed: What happened in it.
        boxes: What is drawn.
    """

    x: float
    width: float
    speed: Speed
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture.

    Attributes:
        steps: Steps of time in which anything happened.
        top: Value at its upper edge.
        times: When it begins, its middle, and its end, for people.
    """

    steps: tuple[Step, ...]
    top: float
    times: tuple[str, str, str]


def draw_texts(speeds: Sequence[Speed], window: Window, now: float) -> Chart:
    """Return the picture of texts embedded in each step; a mark above where requests were refused or failed."""
    top = nice_top(max((speed.texts for speed in speeds), default=0))

    def boxes(speed: Speed, x: float, width: float) -> list[Box]:
        height = HEIGHT * speed.texts / top
        drawn = [Box(x, HEIGHT - height, width, height, "fill")]
        if speed.rate_limited or speed.failed:
            drawn.append(Box(x, 0, width, 2 * _MARK, "hurt"))
        return drawn

    return _draw(speeds, window, now, top, boxes)


def draw_latency(speeds: Sequence[Speed], window: Window, now: float) -> Chart:
    """Return the picture of the latency of good requests: from the median to the 95th percentile; milliseconds."""
    top = nice_top(max((1000 * (speed.p95_s or 0) for speed in speeds), default=0))

    def boxes(speed: Speed, x: float, width: float) -> list[Box]:
        if speed.p50_s is None or speed.p95_s is None:
            return []
        low, high = (HEIGHT * 1000 * value / top for value in (speed.p50_s, speed.p95_s))
        return [
            Box(x, HEIGHT - high, width, high - low, "fill"),
            Box(x, min(HEIGHT - low, HEIGHT - _MARK), width, _MARK, "mark"),
        ]

    return _draw(speeds, window, now, top, boxes)


def nice_top(value: float) -> float:
    """Return a round number that is no less; 1 at least."""
    if value <= 1:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(scale * factor for factor in _NICE if scale * factor >= value)


def _draw(
    speeds: Sequence[Speed],
    window: Window,
    now: float,
    top: float,
    boxes: Callable[[Speed, float, float], list[Box]],
) -> Chart:
    begin = begin_of(window, now)
    width = WIDTH * window.step_s / window.length_s
    steps = []
    for speed in speeds:
        x = WIDTH * (speed.at.timestamp() - begin) / window.length_s
        drawn = boxes(speed, x + width * _GAP / 2, width * (1 - _GAP))
        steps.append(Step(x, width, speed, tuple(drawn)))
    form = "%a %d" if window is Window.WEEK else "%H:%M"
    at = (begin, begin + window.length_s // 2, begin + window.length_s)
    first, middle, last = (datetime.fromtimestamp(second, UTC).strftime(form) for second in at)
    return Chart(tuple(steps), top, (first, middle, last))
