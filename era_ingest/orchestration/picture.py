"""A picture of one run: latency and concurrency over time, as an image inside Markdown."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from era_ingest.pipelines.report import Sample

MIN_SAMPLES = 8
"""Fewer requests make no picture: a table says it better, and matplotlib takes half a second to load."""
_LATENCY, _IN_FLIGHT, _LIMIT = "#3b6fb6", "#d9822b", "#8a8f98"


def draw_run(samples: Sequence[Sample]) -> str | None:
    """Return Markdown with a PNG (some 30 kB) of latency and requests in flight; None for too few requests.

    Args:
        samples: Requests of the run, in any order.
    """
    if len(samples) < MIN_SAMPLES:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(samples, key=lambda sample: sample.at_s)
    figure = Figure(figsize=(8, 4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_latency(above, ordered)
    _draw_concurrency(below, ordered)
    image = BytesIO()
    figure.savefig(image, format="png")
    data = base64.b64encode(image.getvalue()).decode()
    return f"![latency and requests in flight over the run](data:image/png;base64,{data})"


def _draw_latency(axes: Axes, samples: Sequence[Sample]) -> None:
    axes.scatter(
        [sample.at_s for sample in samples],
        [sample.latency_s * 1000 for sample in samples],
        s=6,
        alpha=0.6,
        color=_LATENCY,
        linewidths=0,
    )
    axes.set_ylabel("latency, ms")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)


def _draw_concurrency(axes: Axes, samples: Sequence[Sample]) -> None:
    at = [sample.at_s for sample in samples]
    in_flight = [sample.in_flight for sample in samples]
    axes.step(at, [sample.limit for sample in samples], where="post", color=_LIMIT, label="allowed")
    axes.scatter(at, in_flight, s=6, color=_IN_FLIGHT, linewidths=0, label="in flight")
    axes.set_ylabel("requests")
    axes.set_xlabel("seconds since the run began")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(loc="best", fontsize=8, frameon=False)
