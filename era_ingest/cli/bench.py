"""``era bench``: where the project's figures come from; each on your own machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import cli, run_async, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.bench.measure import Benchmark

PLOT = click.Path(path_type=Path, dir_okay=False, writable=True)
_FILE_WIDTH = 200
"""Columns of a table that is written to a file or a pipe."""


@cli.group()
def bench() -> None:
    """Measure on this machine: ingestion, searches, and others.

    Compare ratios rather than seconds, and only those of a quiet machine: the load average is printed.
    """


@bench.command()
@click.option("-n", "--runs", default=5, show_default=True, type=click.IntRange(1), help="Repetitions.")
@click.option("--rows", default=10_000, show_default=True, type=click.IntRange(1), help="Rows of 768 floats.")
@click.option("--plot", type=PLOT, metavar="FILE", help="Draw the seconds (PNG or SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def load(ctx: click.Context, runs: int, rows: int, plot: Path | None, *, as_json: bool) -> None:
    """Compare loading with a raw COPY of the same rows.

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
    """Measure speed and memory over very many texts.

    Rows a second, memory and its growth, and where the time goes: `era ingest` as a whole process, with the
    `hashing` backend. Memory is that of the program and its children together, beside what it holds for a
    hundred texts. A million take some minutes and 10 GB of disk.
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
@click.option("--plot", type=PLOT, metavar="FILE", help="Draw the programs' seconds (PNG or SVG).")
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
    """Compare `era ingest` with a hand-written script, and peers.

    Each as a whole process, against a local server of given latency; then again unchanged, and with about 1 %
    of the texts changed. Uses scratch databases where ERA_DATABASE_URL says, else on a scratch embedded server.
    Other settings count: preset, batch size, controller.

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
    """Compare the local model in int8 with itself in float32.

    Texts a second, and how alike the vectors are. Needs the model (`era models fetch`).
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
    """Print tables to the terminal; to a file or a pipe, which has no width, each row on one line."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    for table in tables:
        console.print(table)
