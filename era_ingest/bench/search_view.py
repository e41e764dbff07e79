"""What `era bench search` found, as tables and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from era_ingest.bench.search import SearchFound

BAR_MS = 20.0
"""What the 95th percentile is to stay below."""


def build_tables(found: SearchFound) -> list[Table]:
    """Return a row a size and filter, and what the load tool said."""
    from rich.table import Table

    title = f"search: {found.dimensions} dimensions, ms; load average {found.load_average:.1f}"
    table = Table("rows", "filter", title=title)
    for column in ("store p50", "p95", "HTTP p50", "p95", "recall@10"):
        table.add_column(column, justify="right")
    http = {(row.rows, row.filter): row for row in found.rows if row.way == "http"}
    for row in found.rows:
        if row.way == "store":
            other = http[row.rows, row.filter]
            recall = "" if row.recall is None else f"{row.recall:.3f}"
            times = (row.p50_ms, row.p95_ms, other.p50_ms, other.p95_ms)
            table.add_row(f"{row.rows:,}", row.filter, *(f"{ms:.1f}" for ms in times), recall)
    made = Table("rows", "load s", "index s", title="before")
    for one in found.prepared:
        made.add_row(f"{one.rows:,}", f"{one.load_s:.1f}", f"{one.index_s:.1f}")
    tables = [table, made]
    if found.throughput:
        load = Table("callers", "requests a second", "p95 ms", "not 200", title="hey, one worker")
        for said in found.throughput:
            load.add_row(str(said.callers), f"{said.per_s:.0f}", f"{said.p95_ms:.1f}", str(said.refused))
        tables.append(load)
    return tables


def plot(found: SearchFound, path: Path) -> None:
    """Draw the 95th percentile of each filter over the size, through the store and over HTTP (PNG or SVG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, way in zip(figure.subplots(1, 2, sharey=True), ("store", "http"), strict=True):
        for name in dict.fromkeys(row.filter for row in found.rows):
            rows = [row for row in found.rows if (row.way, row.filter) == (way, name)]
            axis.plot([row.rows for row in rows], [row.p95_ms for row in rows], marker="o", label=name)
        axis.axhline(BAR_MS, color="black", linestyle=":", linewidth=1)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("rows")
        axis.set_title({"store": "in the process", "http": "over HTTP"}[way])
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("95th percentile, ms")
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(f"era bench search: {found.dimensions} dimensions, 10 results")
    figure.savefig(path, dpi=120)
