"""The bars: servers drawn from seeds that the design never saw, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import median
from typing import TYPE_CHECKING

import pytest

from era_ingest.bench.controller import (
    CONTROLLERS,
    Row,
    build_table,
    plot_table,
    run_family,
    run_random,
    run_table,
)
from era_ingest.bench.simulation.families import FAMILIES
from era_ingest.bench.simulation.scenario import run_oracle
from era_ingest.bench.simulation.wider import WIDER

if TYPE_CHECKING:
    from pathlib import Path

    from era_ingest.bench.simulation.bars import Family
    from era_ingest.bench.simulation.scenario import Scenario

ADAPTIVE = CONTROLLERS["adaptive"]
SEED = 5000
SHORT_S = 120.0


def named(name: str) -> Family:
    """Return one family."""
    return next(family for family in FAMILIES if family.name == name)


def shortened(family: Family) -> Family:
    """Return the family with runs of two minutes at most, where nothing happens late and learning is quick.

    What takes seconds a round trip is held to a bar over 300 s: its start weighs more in less.
    """
    if any(slow in family.name for slow in ("window", "no headers", "2.5 s")):
        return family

    def draw(rng: Random) -> Scenario:
        scenario = family.draw(rng)
        late = any(change > 0 for change in scenario.changes)
        return scenario if late else replace(scenario, duration_s=min(SHORT_S, scenario.duration_s))

    return replace(family, draw=draw)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_family_is_starved_or_pestered(family: Family) -> None:
    """One server of each row, mostly two minutes: nine tenths of what is possible, few refusals."""
    (outcome,) = run_family(shortened(family), ADAPTIVE, [SEED])
    assert outcome.goodput >= min(0.9, family.bar.goodput - 0.03)
    assert outcome.refused <= 0.08
    assert outcome.fairness >= 0.5
    assert outcome.probes_per_s <= 1


MENDED = ("wrong Retry-After", "tokens not shown", "only on refusals")
"""Servers far beyond the table's that once starved the controller or were pestered by it."""


@pytest.mark.parametrize("name", MENDED)
def test_strange_servers_are_served_too(name: str) -> None:
    """Three servers of a kind: the middle one gives what is possible, and refuses little."""
    (family,) = (family for family in WIDER if name in family.name)
    outcomes = run_family(shortened(family), ADAPTIVE, range(SEED, SEED + 3))
    assert median(outcome.goodput for outcome in outcomes) >= 0.9
    assert median(outcome.refused for outcome in outcomes) <= 0.03


def test_a_crowd_that_spends_a_window_starves_nobody() -> None:
    """Twelve clients, ten seconds a window: one took it for its own, was refused, and never tried its turn again."""
    (family,) = (family for family in WIDER if "many clients" in family.name)
    (outcome,) = run_family(shortened(family), ADAPTIVE, [9807])
    assert outcome.fairness >= 0.98
    assert outcome.refused <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_most_servers_of_a_row_hold_its_bar(family: Family) -> None:
    """Five servers at full length: the median holds goodput and refusals, three in five the whole bar."""
    row = Row(family.name, "adaptive", family.bar, run_family(family, ADAPTIVE, range(SEED, SEED + 5)))
    assert row.median("goodput") >= family.bar.goodput
    assert row.passed >= 3, [family.bar.missed(outcome) for outcome in row.outcomes]


@pytest.mark.parametrize(
    "name", ["one worker", "fixed window, bare", "hard cap, bare", "2 clients, no headers"]
)
def test_an_oracle_shows_that_a_bar_is_within_reach(name: str) -> None:
    """It is never refused, keeps every means busy, and takes turns with its like."""
    family = named(name)
    scenario = replace(family.draw(Random(SEED)), duration_s=70.0)
    assert not family.bar.missed(run_oracle(scenario, SEED))


@pytest.mark.slow
def test_nine_of_ten_random_servers_pass() -> None:
    """Goodput 0.90, refusals 2 %, p95 three times (a GPU: ten)."""
    row = run_random(range(SEED, SEED + 50), ADAPTIVE)
    assert row.passed >= 45


def test_the_same_seed_gives_the_same_outcome() -> None:
    """To the digit."""
    family = shortened(named("quota without headers"))
    assert run_family(family, ADAPTIVE, [7]) == run_family(family, ADAPTIVE, [7])


def test_the_adaptive_controller_beats_the_latency_rule_on_a_slow_wide_server() -> None:
    """There the rule starves."""
    family = named("2.5 s, wide")
    (rule,) = run_family(shortened(family), CONTROLLERS["latency rule"], [SEED])
    (adaptive,) = run_family(shortened(family), ADAPTIVE, [SEED])
    assert rule.goodput < 0.3
    assert adaptive.goodput > 0.85


def test_the_table_can_be_printed_and_drawn(tmp_path: Path) -> None:
    """A row for each family and controller, and a picture of them."""
    families = [shortened(named("one worker"))]
    seen: list[Row] = []
    rows = run_table([SEED], families=families, on_row=seen.append)
    assert len(rows) == len(CONTROLLERS) == len(seen)
    assert build_table(rows).row_count == len(rows)
    plot_table(rows, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5_000
