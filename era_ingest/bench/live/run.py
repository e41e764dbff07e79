"""`era bench live`: the same controllers on the same servers in real and in virtual time, side by side."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from era_ingest.bench.live.client import measure_trip, run_client
from era_ingest.bench.live.scenarios import SCENARIOS
from era_ingest.bench.measure import load_average
from era_ingest.bench.server import running_module
from era_ingest.bench.simulation.client import Machine
from era_ingest.bench.simulation.scenario import measure, run_scenario
from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.sharer import Sharer
from era_ingest.pipelines.sharing import shared
from era_ingest.store.database import Database
from era_ingest.store.schema import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from era_ingest.bench.simulation.client import Tally
    from era_ingest.bench.simulation.scenario import Outcome, Scenario
    from era_ingest.core.limiter import Limiter

    MakeLimiter = Callable[[Random], Limiter]

SIMULATED = 9
"""Runs of the simulation, of which the medians are taken."""
FIGURES = ("goodput", "refused", "p95", "fairness")
_POINTS = 100.0


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One server under one controller, really and simulated.

    Attributes:
        server: Its name.
        controller: The controller's.
        seconds: Length of each run.
        trip_ms: Way to the server and back, measured; the simulation is given it too.
        real: What the real runs came to.
        simulated: What the simulated ones did.
    """

    server: str
    controller: str
    seconds: float
    trip_ms: float
    real: tuple[Outcome, ...]
    simulated: tuple[Outcome, ...]

    def medians(self, figure: str) -> tuple[float, float]:
        """Return the medians of a figure: real, simulated."""
        real, simulated = (
            statistics.median(float(getattr(outcome, figure)) for outcome in outcomes)
            for outcomes in (self.real, self.simulated)
        )
        return real, simulated

    def points(self, figure: str) -> float:
        """Return real less simulated of a share, in points of a hundred."""
        real, simulated = self.medians(figure)
        return _POINTS * (real - simulated)

    def as_dict(self) -> dict[str, object]:
        """Return what ``--json`` prints of it."""
        figures = {name: self.medians(name) for name in FIGURES}
        return {
            "server": self.server,
            "controller": self.controller,
            "seconds": self.seconds,
            "trip_ms": round(self.trip_ms, 2),
            "runs": len(self.real),
            **{f"{name}_real": round(pair[0], 4) for name, pair in figures.items()},
            **{f"{name}_simulated": round(pair[1], 4) for name, pair in figures.items()},
            "goodput_points": round(self.points("goodput"), 2),
            "refused_points": round(self.points("refused"), 2),
        }


def find_servers(wanted: Sequence[str]) -> tuple[Scenario, ...]:
    """Return the servers whose name holds one of these texts; all if there are none."""
    return tuple(one for one in SCENARIOS if not wanted or any(text in one.name for text in wanted))


async def bench_live(
    scenarios: Sequence[Scenario],
    make: MakeLimiter,
    *,
    controller: str,
    seconds: float,
    runs: int = 1,
    together: bool = True,
    database_url: str | None = None,
    on_row: Callable[[LiveRow], None] | None = None,
) -> list[LiveRow]:
    """Run a controller before a real server of each scenario, then in the simulation.

    Args:
        scenarios: Servers; each gets a process of its own.
        make: Makes the controller anew for each run.
        controller: Its name, for the rows.
        seconds: Length of each run.
        runs: Real runs of each server, one after another.
        together: All servers side by side, each with a client of its own in this event loop.
        database_url: Where clients share; needed by scenarios whose clients do.
        on_row: Called with each row when it is done.
    """
    if database_url is not None:
        async with Database.opened(database_url, max_connections=1) as database:
            await migrate(database)
    groups = [scenarios] if together else [[one] for one in scenarios]
    rows = []
    for group in groups:
        found = await asyncio.gather(*(_run_real(one, make, seconds, runs, database_url) for one in group))
        for scenario, (trip_s, real) in zip(group, found, strict=True):
            row = _compare(scenario, make, controller, seconds, trip_s, real)
            rows.append(row)
            if on_row is not None:
                on_row(row)
    return rows


async def _run_real(
    scenario: Scenario, make: MakeLimiter, seconds: float, runs: int, database_url: str | None
) -> tuple[float, list[Outcome]]:
    """Return the measured trip in seconds, and the outcomes."""
    outcomes = []
    trips = []
    for _ in range(runs):
        with ExitStack() as stack:
            door = running_module("era_ingest.bench.live.door", scenario.name)
            url = await asyncio.to_thread(stack.enter_context, door)
            trips.append(await measure_trip(url))
            board = database_url if scenario.database_s is not None else None
            clients = (_run_client(url, make(Random()), seconds, board) for _ in range(scenario.clients))
            tallies = await asyncio.gather(*clients)
        run = replace(scenario, duration_s=seconds, machine=Machine(trip_s=trips[-1]))
        outcomes.append(measure(run, run.build(Random(0)), tallies, Random(0)))
    return statistics.median(trips), outcomes


async def _run_client(url: str, limiter: Limiter, seconds: float, database_url: str | None) -> Tally:
    """Run one client, with a database pool of its own where it shares."""
    if database_url is None or not isinstance(limiter, AdaptiveLimiter):
        return await run_client(url, limiter, seconds)
    async with (
        Database.opened(database_url, max_connections=1) as database,
        shared(Sharer(limiter, uniform=Random().random), url, database) as sharer,
    ):
        return await run_client(url, sharer, seconds)


def _compare(
    scenario: Scenario,
    make: MakeLimiter,
    controller: str,
    seconds: float,
    trip_s: float,
    real: Sequence[Outcome],
) -> LiveRow:
    run = replace(scenario, duration_s=seconds, machine=Machine(trip_s=trip_s))
    simulated = tuple(run_scenario(run, make, seed) for seed in range(SIMULATED))
    return LiveRow(scenario.name, controller, seconds, 1000 * trip_s, tuple(real), simulated)


def build_table(rows: Sequence[LiveRow]) -> Table:
    """Return the rows as a table for a terminal: real, simulated, and the difference in points."""
    from rich.table import Table

    columns = (
        "server",
        "controller",
        "goodput",
        "simulated",
        "points",
        "429s",
        "simulated",
        "p95",
        "simulated",
    )
    table = Table(*columns, "Jain", title=f"load average {load_average():.1f}")
    for row in rows:
        goodput, refused, p95, fairness = (row.medians(name) for name in FIGURES)
        table.add_row(
            row.server,
            row.controller,
            f"{goodput[0]:.3f}",
            f"{goodput[1]:.3f}",
            f"{row.points('goodput'):+.1f}",
            *(f"{100 * share:.2f} %" for share in refused),
            *(f"{multiple:.2f}x" for multiple in p95),
            f"{fairness[0]:.3f}",
        )
    return table
