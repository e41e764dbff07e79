"""Programs side by side: a row each in the table, a bar each in the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from rich.table import Table

    from era_ingest.bench.measure import Benchmark

_STAGES = {"": "ingest", "unchanged_": "again, unchanged", "changed_": "again, about 1 % changed"}


def programs_of(found: Benchmark) -> list[str]:
    """Return the names of the compared programs, the bound first."""
    return [name.removesuffix("_peak_mb") for name in found.figures if name.endswith("_peak_mb")]


def build_program_table(found: Benchmark) -> Table:
    """Return medians, a row a program, the fastest first.

    Beside wall and CPU seconds stand their ratios over the bound; beside the seconds of ingesting again the
    texts that the server was asked for.
    """
    from rich.table import Table

    table = Table("program", title=f"medians of {found.workload['runs']} runs; x: over the bound")
    for column in ("wall s", "CPU s", "inner s", "peak MB", "again: s, texts", "1 % changed: s, texts"):
        table.add_column(column, justify="right")
    for name in sorted(programs_of(found), key=lambda one: found.figures[f"{one}_wall_s"].median):
        median = {key: found.figures[f"{name}_{key}"].median for key in _figures_of(found, name)}
        wall, cpu = (found.ratios.get(f"{name}_{what}_over_bound", 1.0) for what in ("wall", "cpu"))
        table.add_row(
            name,
            f"{median['wall_s']:.2f} {wall:5.1f}x",
            f"{median['cpu_s']:.2f} {cpu:5.1f}x",
            f"{median['inner_s']:.2f}" if "inner_s" in median else "",
            f"{median['peak_mb']:,.0f}",
            f"{median['unchanged_wall_s']:.2f} {median['unchanged_texts']:6,.0f}",
            f"{median['changed_wall_s']:.2f} {median['changed_texts']:6,.0f}",
        )
    return table


def plot_programs(found: Benchmark, path: Path) -> None:
    """Draw the wall time of each program in each stage, with its ratio over the bound (PNG or SVG by the suffix).

    Bars are medians, dots are runs.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = programs_of(found)
    figure = Figure(figsize=(12, 0.5 * len(names) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (stage, title) in zip(
        figure.subplots(1, len(_STAGES), sharey=True), _STAGES.items(), strict=True
    ):
        _draw(axis, found, names, stage)
        axis.set_title(title)
    workload = found.workload
    figure.suptitle(
        f"era bench {found.name}: {workload['texts']:,} {workload['workload']}, "
        f"server {workload['request_ms']:g} ms + {workload['text_ms']:g} ms a text; wall over bound"
    )
    figure.savefig(path, dpi=120)


def _figures_of(found: Benchmark, name: str) -> list[str]:
    start = f"{name}_"
    return [key.removeprefix(start) for key in found.figures if key.startswith(start)]


def _draw(axis: Axes, found: Benchmark, names: list[str], stage: str) -> None:
    series = [found.figures[f"{name}_{stage}wall_s"] for name in names]
    places = range(len(names))
    axis.barh(places, [one.median for one in series], 0.7, alpha=0.6)
    for place, one in zip(places, series, strict=True):
        axis.plot(one.values, [place] * len(one.values), "k.", markersize=4)
        axis.annotate(
            f"{one.over(series[0]):.1f}x",
            (max(one.values), place),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axis.margins(x=0.25)
    axis.set_yticks(places, names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel("seconds")
    axis.grid(axis="x", alpha=0.3)
