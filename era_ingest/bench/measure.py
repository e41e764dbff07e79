"""Figures of repeated runs: medians, paired ratios, and their picture."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over the runs of a benchmark, in the order of the runs; at least one.

    Attributes:
        values: The figure of each run.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the runs."""
        return statistics.median(self.values)

    def over(self, other: Series) -> float:
        """Return the median of the runs' ratios to another figure of the same runs.

        The ratios are taken run by run: what slowed the machine down for a while slowed both.
        """
        return statistics.median(
            mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of it."""
        return {
            "median": round(self.median, _DIGITS),
            "runs": [round(value, _DIGITS) for value in self.values],
        }


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What a benchmark found.

    Attributes:
        name: Its command.
        workload: What was done, by name: counts and sizes.
        figures: Figures by name; the unit is the name's suffix.
        ratios: Ratios by name, dimensionless.
        load_average: The machine's load average over the last minute, at the end; a busy machine misleads.
    """

    name: str
    workload: Mapping[str, Any]
    figures: Mapping[str, Series]
    ratios: Mapping[str, float]
    load_average: float

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "bench": self.name,
            "workload": dict(self.workload),
            "figures": {name: series.as_dict() for name, series in self.figures.items()},
            "ratios": {name: round(ratio, _DIGITS) for name, ratio in self.ratios.items()},
            "load_average": round(self.load_average, 2),
            "cores": os.cpu_count(),
        }


def load_average() -> float:
    """Return the machine's load average over the last minute."""
    return os.getloadavg()[0]


def build_tables(found: Benchmark) -> list[Table]:
    """Return figures and ratios as tables for a terminal."""
    from rich.table import Table

    workload = ", ".join(f"{name} {value}" for name, value in found.workload.items())
    figures = Table("figure", "median", "least", "greatest", title=f"{found.name}: {workload}")
    for name, series in found.figures.items():
        figures.add_row(name, *(f"{x:,.3f}" for x in (series.median, min(series.values), max(series.values))))
    return [figures, build_ratio_table(found)]


def build_ratio_table(found: Benchmark) -> Table:
    """Return the ratios as a table for a terminal."""
    from rich.table import Table

    table = Table("ratio", "median", title=f"load average {found.load_average:.1f}")
    for name, ratio in found.ratios.items():
        table.add_row(name, f"{ratio:.2f}")
    return table


def plot_seconds(found: Benchmark, path: Path) -> None:
    """Draw the medians of all figures in seconds, with each run as a dot (PNG or SVG by the suffix)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {name: series for name, series in found.figures.items() if name.endswith("_s")}
    figure = Figure(figsize=(9, 0.45 * len(shown) + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    places = range(len(shown))
    axis.barh(places, [series.median for series in shown.values()], 0.7, alpha=0.6)
    for place, series in zip(places, shown.values(), strict=True):
        axis.plot(series.values, [place] * len(series.values), "k.", markersize=4)
    axis.set_yticks(places, [name.removesuffix("_s").replace("_", " ") for name in shown])
    axis.invert_yaxis()
    axis.set_xlabel("seconds")
    axis.set_title(f"era bench {found.name}: medians, and every run")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)


def collect(runs: Sequence[Mapping[str, float]]) -> dict[str, Series]:
    """Return the figures of several runs, each a mapping of the same names, as series."""
    return {name: Series(tuple(run[name] for run in runs)) for name in runs[0]}
