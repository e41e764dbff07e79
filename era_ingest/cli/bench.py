"""``era bench``: where the project's figures come from; each on your own machine."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import cli, run_async, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.bench.measure import Benchmark

_PLOT = click.Path(path_type=Path, dir_okay=False, writable=True)


@cli.group()
def bench() -> None:
    """Measure on this machine: the controller, loading, a whole ingestion.

    Compare ratios rather than seconds, and only those of a quiet machine: the load average is printed.
    """


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
@click.option("--plot", type=_PLOT, metavar="FILE", help="Draw goodput and 429s (PNG or SVG).")
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
    """Compare the adaptive controller with the latency rule, AIMD and a fixed number, in virtual time.

    Servers are drawn from families (workers, quotas, caps, outages...), one a seed. Goodput is relative to an
    oracle's; `passed` counts the runs that held the family's bar. A seed takes one to two minutes of CPU.
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
    """Compare a controller in real time, over HTTP, with what the simulation says of the same servers.

    Each server is a process of its own; `points` is the difference of goodput in points of a hundred. Clients
    that share a limit do so in a scratch database.
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


@bench.command()
@click.option("-n", "--runs", default=5, show_default=True, type=click.IntRange(1), help="Repetitions.")
@click.option("--rows", default=10_000, show_default=True, type=click.IntRange(1), help="Rows of 768 floats.")
@click.option("--plot", type=_PLOT, metavar="FILE", help="Draw the seconds (PNG or SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def load(ctx: click.Context, runs: int, rows: int, plot: Path | None, *, as_json: bool) -> None:
    """Compare loading with a raw binary COPY of the same rows.

    Works in scratch databases beside the configured one; they are dropped at the end.
    """
    from era_ingest.bench.load import bench_load
    from era_ingest.store import location

    with location.database(settings_of(ctx)) as url:
        found = run_async(bench_load(url, rows=rows, runs=runs, on_run=_counter(runs)))
    _show(found, plot, as_json=as_json)


@bench.command()
@click.option(
    "--texts",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(100),
    help="Short texts, all distinct.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def growth(ctx: click.Context, texts: int, *, as_json: bool) -> None:
    """Measure rows a second, memory and its growth, and where the time goes, over very many texts.

    `era ingest` as a whole process, with the `hashing` backend. Memory is that of the program and its children
    together, beside what it holds for a hundred texts. A million take some minutes and 10 GB of disk.
    """
    from era_ingest.bench.growth import bench_growth

    found = bench_growth(settings_of(ctx), texts=texts, on_step=lambda step: click.echo(step, err=True))
    _show(found, None, as_json=as_json)


@bench.command()
@click.option("-n", "--runs", default=3, show_default=True, type=click.IntRange(1), help="Repetitions.")
@click.option(
    "--workload",
    "kind",
    default="entries",
    show_default=True,
    type=click.Choice(["entries", "passages"]),
    help="Short texts, or chapters that are cut into passages.",
)
@click.option(
    "--texts",
    type=click.IntRange(100),
    help="So many; about so many passages. [10000 entries, 5250 passages]",
)
@click.option("--peer", "named", multiple=True, metavar="NAME=COMMAND", help="Measure it too; repeatable.")
@click.option("--latency-ms", default=60.0, show_default=True, help="The server's, a request.")
@click.option("--per-text-ms", default=0.2, show_default=True, help="And text.")
@click.option("--dimensions", default=768, show_default=True, type=click.IntRange(1, 16_000))
@click.option("--plot", type=_PLOT, metavar="FILE", help="Draw the programs' seconds (PNG or SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def ingest(
    ctx: click.Context,
    runs: int,
    kind: str,
    texts: int | None,
    named: tuple[str, ...],
    latency_ms: float,
    per_text_ms: float,
    dimensions: int,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    """Compare `era ingest`, as a whole process, with a program written by hand for the same work, and with peers.

    Against a local server of given latency; then again unchanged, and with about 1 % of the texts changed. Uses
    scratch databases where ERA_DATABASE_URL says, else on a scratch embedded server. Other settings count:
    preset, batch size, controller.

    A peer is any program that takes FOLDER URL DATABASE_URL, brings the database up to date with the folder's
    books, and prints one JSON line with the texts that it embedded as "texts". It may keep files in the folder
    BENCH_STATE, and finds batch size, requests in flight and vector size as BENCH_BATCH, BENCH_IN_FLIGHT and
    BENCH_DIMENSIONS. Its rows are counted in the database. tools/peers has some.
    """
    from era_ingest.bench.ingest import bench_ingest
    from era_ingest.bench.measure import build_ratio_table
    from era_ingest.bench.programs import parse_peers
    from era_ingest.bench.server import Latency
    from era_ingest.bench.side_by_side import build_program_table, plot_programs
    from era_ingest.bench.workload import USUAL_TEXTS, Kind, Workload

    try:
        peers = parse_peers(named)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--peer") from error
    workload = Workload(Kind(kind), texts or USUAL_TEXTS[Kind(kind)])
    found = bench_ingest(
        settings_of(ctx),
        workload,
        runs=runs,
        latency=Latency(latency_ms, per_text_ms, dimensions),
        peers=peers,
        on_step=lambda line: click.echo(line, err=True),
    )
    if plot is not None:
        plot_programs(found, plot)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        print_tables(build_ratio_table(found), build_program_table(found))


@bench.command()
@click.option("-n", "--runs", default=3, show_default=True, type=click.IntRange(1), help="Repetitions.")
@click.option("--short", default=1_000, show_default=True, type=click.IntRange(11), help="Sentences.")
@click.option(
    "--long", default=100, show_default=True, type=click.IntRange(1), help="Texts of 800 characters."
)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def embed(ctx: click.Context, runs: int, short: int, long: int, *, as_json: bool) -> None:
    """Compare the local model in int8 with itself in float32: texts a second, and how alike the vectors are.

    Needs the model (`era models fetch`).
    """
    from era_ingest.bench.embed import bench_embed

    found = bench_embed(
        settings_of(ctx).models_location, short=short, long=long, runs=runs, on_run=_counter(runs)
    )
    _show(found, None, as_json=as_json)


def _counter(runs: int) -> Callable[[int], None]:
    def say(number: int) -> None:
        click.echo(f"run {number} of {runs}", err=True)

    return say


def _show(found: Benchmark, plot: Path | None, *, as_json: bool) -> None:
    from era_ingest.bench.measure import build_tables, plot_seconds

    if plot is not None:
        plot_seconds(found, plot)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        print_tables(*build_tables(found))


def print_tables(*tables: object) -> None:
    """Print tables to the terminal."""
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)
