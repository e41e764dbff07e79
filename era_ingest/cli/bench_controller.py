"""``era bench controller`` and ``live``: who decides how many requests go, in virtual time and in real time."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import run_async, settings_of
from era_ingest.cli.bench import PLOT, bench, print_tables

if TYPE_CHECKING:
    from pathlib import Path


@bench.command()
@click.option(
    "-n", "--seeds", "--runs", default=5, show_default=True, type=click.IntRange(1), help="Servers a family."
)
@click.option(
    "--first-seed", default=0, show_default=True, type=click.IntRange(0), help="Others draw other servers."
)
@click.option("--family", "wanted", multiple=True, help="Only families whose name holds this; repeatable.")
@click.option("--only", multiple=True, help="Only this controller, such as `adaptive`; repeatable.")
@click.option(
    "--random",
    "strangers",
    default=0,
    type=click.IntRange(0),
    help="And so many servers drawn over all families.",
)
@click.option("--plot", type=PLOT, metavar="FILE", help="Draw goodput and 429s (PNG or SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def controller(
    seeds: int,
    first_seed: int,
    wanted: tuple[str, ...],
    only: tuple[str, ...],
    strangers: int,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    """Compare the controllers with each other, in virtual time.

    Adaptive, the latency rule, AIMD and a fixed number. Servers are drawn from families (workers, quotas, caps,
    outages...), one a seed. Goodput is relative to an oracle's; the family's bar stands in brackets. `passed` counts
    the runs that held it, `missed` the figures that fell short; on those servers a client that knows everything
    beforehand runs too: `oracle` says on how many of them it held the bar, and the worst that it reached. A seed takes
    two minutes of CPU.
    """
    from era_ingest.bench import controller as bench_controller

    def say(row: bench_controller.Row) -> None:
        click.echo(f"{row.family}: {row.controller}", err=True)

    families = bench_controller.find_families(wanted)
    if not families:
        raise click.BadParameter("No family has such a name.", param_hint="--family")
    chosen = {name: make for name, make in bench_controller.CONTROLLERS.items() if not only or name in only}
    if not chosen:
        known = ", ".join(bench_controller.CONTROLLERS)
        raise click.BadParameter(f"There are: {known}.", param_hint="--only")
    drawn = range(first_seed, first_seed + seeds)
    rows = bench_controller.run_table(drawn, families=families, controllers=chosen, on_row=say)
    for name, make in chosen.items() if strangers else ():
        row = bench_controller.run_random(range(first_seed, first_seed + strangers), make, controller=name)
        rows = (*rows, row)
        say(row)
    if plot is not None:
        bench_controller.plot_table(rows, plot)
    if as_json:
        click.echo(
            json.dumps({"bench": "controller", "seeds": list(drawn), "rows": [r.as_dict() for r in rows]})
        )
    else:
        print_tables(bench_controller.build_table(rows))


@bench.command()
@click.option(
    "-n", "--runs", default=1, show_default=True, type=click.IntRange(1), help="Real runs a server."
)
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(1.0), help="Length of each."
)
@click.option("--server", "wanted", multiple=True, help="Only servers whose name holds this; repeatable.")
@click.option("--controller", "name", default="adaptive", show_default=True, help="As `controller` names it.")
@click.option("--one-by-one", is_flag=True, help="Not all servers side by side.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def live(
    ctx: click.Context,
    runs: int,
    seconds: float,
    wanted: tuple[str, ...],
    name: str,
    *,
    one_by_one: bool,
    as_json: bool,
) -> None:
    """Compare a controller in real time with its simulation.

    Over HTTP, to the same servers. Each is a process of its own; `points` is the difference of goodput in
    points of a hundred. Clients that share a limit do so in a scratch database.
    """
    from era_ingest.bench import controller as bench_controller
    from era_ingest.bench.live import run as bench_live
    from era_ingest.bench.measure import load_average
    from era_ingest.bench.scratch import scratch_database, scratch_home

    scenarios = bench_live.find_servers(wanted)
    make = bench_controller.CONTROLLERS.get(name)
    if not scenarios:
        raise click.BadParameter("No server has such a name.", param_hint="--server")
    if make is None:
        known = ", ".join(bench_controller.CONTROLLERS)
        raise click.BadParameter(f"There are: {known}.", param_hint="--controller")
    with ExitStack() as stack:
        url = None
        if any(one.database_s is not None for one in scenarios):
            _, server = stack.enter_context(scratch_home(settings_of(ctx)))
            url = stack.enter_context(scratch_database(server))
        work = bench_live.bench_live(
            scenarios,
            make,
            controller=name,
            seconds=seconds,
            runs=runs,
            together=not one_by_one,
            database_url=url,
            on_row=lambda row: click.echo(row.server, err=True),
        )
        rows = run_async(work)
    if as_json:
        found = {"rows": [row.as_dict() for row in rows], "load_average": round(load_average(), 2)}
        click.echo(json.dumps({"bench": "live", **found}))
    else:
        print_tables(bench_live.build_table(rows))
