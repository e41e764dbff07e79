"""`era bench controller`: the adaptive controller beside simpler ones, on servers drawn from seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from era_ingest.bench.simulation.bars import RANDOM_P95, Bar, Family
from era_ingest.bench.simulation.families import ALONE, FAMILIES
from era_ingest.bench.simulation.scenario import Outcome, run_oracle, run_scenario
from era_ingest.bench.simulation.wider import WIDER
from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.aimd import Aimd
from era_ingest.core.limiter.fixed import FixedLimiter
from era_ingest.core.limiter.latency_rule import LatencyRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

    from era_ingest.core.limiter.contract import Limiter

    MakeLimiter = Callable[[Random], Limiter]

FIXED = 20
CONTROLLERS: Mapping[str, MakeLimiter] = {
    f"fixed {FIXED}": lambda _: FixedLimiter(FIXED),
    "latency rule": lambda _: LatencyRule(),
    "AIMD": lambda _: Aimd(),
    "adaptive": lambda rng: AdaptiveLimiter(uniform=rng.random),
}
"""The controllers compared, each made anew for a run."""


FIGURES = ("goodput", "refused", "p95", "recovery_s", "fairness")
"""Figures of an outcome that the table shows."""
COLUMNS = (
    ("goodput", "goodput", "{:.3f}", 1.0),
    ("429s %", "refused", "{:.2f}", 100.0),
    ("p95 x", "p95", "{:.2f}", 1.0),
    ("recovery s", "recovery_s", "{:.1f}", 1.0),
    ("Jain", "fairness", "{:.3f}", 1.0),
)
"""How the table shows them: heading, figure, form, factor."""
TABLE_TITLE = (
    "median / worst of the seeds, \\[bar]; oracle: it knows the server beforehand, where the bar was missed"
)
MORE_IS_BETTER = frozenset({"goodput", "fairness"})


@dataclass(frozen=True, slots=True)
class Row:
    """One family of servers under one controller: medians over the seeds, and how many held the bar.

    Attributes:
        oracles: What an all-knowing client reached on each of the servers where this one missed the bar.
    """

    family: str
    controller: str
    bar: Bar
    outcomes: tuple[Outcome, ...]
    oracles: tuple[Outcome, ...] = ()

    @property
    def passed(self) -> int:
        """Runs that held the bar."""
        return sum(not self.bar.missed(outcome) for outcome in self.outcomes)

    @property
    def missed(self) -> dict[str, int]:
        """In how many runs each figure fell short."""
        return dict(Counter(name for outcome in self.outcomes for name in self.bar.missed(outcome)))

    @property
    def reachable(self) -> int:
        """Of the servers where the bar was missed, those on which the oracle held it."""
        return sum(not self.bar.missed(outcome) for outcome in self.oracles)

    def median(self, figure: str) -> float:
        """Return the median of one of the outcome's figures."""
        return float(statistics.median(getattr(outcome, figure) for outcome in self.outcomes))

    def worst(self, figure: str) -> float:
        """Return the worst of one of the outcome's figures: the least, where more is better."""
        values = [float(getattr(outcome, figure)) for outcome in self.outcomes]
        return min(values) if figure in MORE_IS_BETTER else max(values)

    def as_dict(self) -> dict[str, object]:
        """Return what ``--json`` prints of it."""
        medians = {name: round(self.median(name), 4) for name in FIGURES}
        worst = {f"worst_{name}": round(self.worst(name), 4) for name in FIGURES}
        return {
            "family": self.family,
            "controller": self.controller,
            **medians,
            **worst,
            "bar": self.bar.as_dict(),
            "passed": self.passed,
            "runs": len(self.outcomes),
            "missed": self.missed,
            "oracle_passed": self.reachable,
            "oracle_runs": len(self.oracles),
            "oracle": [{name: round(getattr(one, name), 4) for name in FIGURES} for one in self.oracles],
        }


def find_families(wanted: Sequence[str]) -> tuple[Family, ...]:
    """Return the families whose name holds one of these texts; the table's if there are none."""
    if not wanted:
        return FAMILIES
    return tuple(family for family in FAMILIES + WIDER if any(text in family.name for text in wanted))


def run_family(family: Family, make: MakeLimiter, seeds: Iterable[int]) -> tuple[Outcome, ...]:
    """Run one server a seed, drawn from the family."""
    return tuple(run_scenario(family.draw(Random(f"{family.name}{seed}")), make, seed) for seed in seeds)


def _ask_oracle(family: Family, seed: int) -> Outcome:
    return run_oracle(family.draw(Random(f"{family.name}{seed}")), seed)


def run_table(
    seeds: Sequence[int],
    *,
    families: Sequence[Family] = FAMILIES,
    controllers: Mapping[str, MakeLimiter] = CONTROLLERS,
    on_row: Callable[[Row], None] | None = None,
) -> tuple[Row, ...]:
    """Run every family under every controller.

    Args:
        seeds: One server is drawn from each family a seed.
        families: Rows of the table.
        controllers: Columns.
        on_row: Called with each row when it is done, for progress.

    Returns:
        A row for each family and controller.
    """
    rows: list[Row] = []
    for family in families:
        for name, make in controllers.items():
            outcomes = run_family(family, make, seeds)
            oracles = [
                _ask_oracle(family, seed)
                for seed, outcome in zip(seeds, outcomes, strict=True)
                if family.bar.missed(outcome)
            ]
            row = Row(family.name, name, family.bar, outcomes, tuple(oracles))
            rows.append(row)
            if on_row is not None:
                on_row(row)
    return tuple(rows)


def run_random(seeds: Iterable[int], make: MakeLimiter, *, controller: str = "") -> Row:
    """Run one server a seed, drawn over all families of a single client, against the common bar.

    The p95 of families whose own bar allows more than three times (a GPU must fill its batch) is held to
    that.
    """
    outcomes: list[Outcome] = []
    for seed in seeds:
        rng = Random(f"random{seed}")
        family = rng.choice(ALONE)
        outcome = run_scenario(family.draw(rng), make, seed)
        outcomes.append(outcome.scaled(RANDOM_P95 / max(RANDOM_P95, family.p95_at_random)))
    return Row("random servers", controller, Bar(0.90, 0.02, RANDOM_P95), tuple(outcomes))


def build_table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table for a terminal."""
    from rich.table import Table

    headings = ("server", "controller", *(heading for heading, *_ in COLUMNS), "passed", "missed", "oracle")
    table = Table(*headings, title=TABLE_TITLE)
    for row in rows:
        reached = (_reached(row, figure, form, factor) for _, figure, form, factor in COLUMNS)
        missed = ", ".join(f"{name} {count}" for name, count in row.missed.items())
        table.add_row(
            row.family, row.controller, *reached, f"{row.passed}/{len(row.outcomes)}", missed, _oracle(row)
        )
    return table


def _reached(row: Row, figure: str, form: str, factor: float) -> str:
    """Return median and worst of a figure, and its bar where there is one."""
    both = f"{form.format(factor * row.median(figure))} / {form.format(factor * row.worst(figure))}"
    bar = row.bar.as_dict().get(figure)
    if bar is not None:
        return f"{both} \\[{factor * bar:g}]"
    is_idle = row.worst(figure) == (1.0 if figure in MORE_IS_BETTER else 0.0)
    return "" if is_idle else both


def _oracle(row: Row) -> str:
    """Return on how many of the servers that missed an oracle holds the bar, and its worst of what fell short."""
    if not row.oracles:
        return ""
    theirs = Row(row.family, "oracle", row.bar, row.oracles)
    worst = ", ".join(
        f"{heading} {form.format(factor * theirs.worst(figure))}"
        for heading, figure, form, factor in COLUMNS
        if figure in row.missed
    )
    return f"{row.reachable}/{len(row.oracles)}: {worst}"


def plot_table(rows: Sequence[Row], path: Path) -> None:
    """Draw goodput and 429s of every family and controller to ``path`` (PNG or SVG by its suffix)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(row.family for row in rows))
    controllers = list(dict.fromkeys(row.controller for row in rows))
    figure = Figure(figsize=(11, 0.34 * len(families) + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    height = 0.8 / len(controllers)
    for axis, figure_name, title in zip(
        panels, ("goodput", "refused"), ("share of the oracle's goodput", "share of 429s"), strict=True
    ):
        for index, name in enumerate(controllers):
            mine = [row for row in rows if row.controller == name]
            places = [families.index(row.family) + (index - len(controllers) / 2) * height for row in mine]
            axis.barh(places, [row.median(figure_name) for row in mine], height, label=name, align="edge")
        axis.set_title(title)
        axis.set_yticks(range(len(families)), families)
        axis.set_xlim(0, 1.02)
        axis.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    panels[1].legend(loc="lower right")
    figure.savefig(path, dpi=120)
