"""``era bench search``: what those who ask the service wait for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import run_async, settings_of
from era_ingest.cli.bench import PLOT, bench, print_tables

if TYPE_CHECKING:
    from pathlib import Path


@bench.command()
@click.option(
    "--rows",
    "sizes",
    multiple=True,
    type=click.IntRange(10),
    help="A size; repeatable. [1376, 50000, 500000]",
)
@click.option("--dimensions", default=768, show_default=True, type=click.IntRange(32, 2_000))
@click.option(
    "-n", "--questions", default=200, show_default=True, type=click.IntRange(1), help="Searches a filter."
)
@click.option(
    "--hey",
    "load_tool_s",
    default=0,
    metavar="SECONDS",
    type=click.IntRange(0),
    help="Then let `hey` (a load tool; Debian has it) ask the service for so long by 1, 4 and 16 callers, at the last "
    "size.",
)
@click.option("--plot", type=PLOT, metavar="FILE", help="Draw the 95th percentiles (PNG or SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def search(
    ctx: click.Context,
    sizes: tuple[int, ...],
    dimensions: int,
    questions: int,
    load_tool_s: int,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure searches, in the process and over HTTP.

    By size and filter: p50, p95, recall against exact search. Rows are made up: vectors around the centres of
    topics, texts of the topics' words; questions are none of them. The embedding of the query is not in it.
    Uses a scratch database where ERA_DATABASE_URL says, else a scratch embedded server; 500,000 rows of 768
    floats take about 6 GB of its disk and some minutes to index.
    """
    from era_ingest.bench import search_view
    from era_ingest.bench.search import SIZES, bench_search

    found = run_async(
        bench_search(
            settings_of(ctx),
            sizes=sizes or SIZES,
            dimensions=dimensions,
            questions=questions,
            load_tool_s=load_tool_s,
            on_step=lambda line: click.echo(line, err=True),
        )
    )
    if plot is not None:
        search_view.plot(found, plot)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        print_tables(*search_view.build_tables(found))


@bench.command()
@click.option("-n", "--runs", default=3, show_default=True, type=click.IntRange(1), help="Repetitions.")
@click.option(
    "--at-once", default=50, show_default=True, type=click.IntRange(1), help="Books posted at once."
)
@click.option(
    "--searchable/--no-searchable",
    default=True,
    show_default=True,
    help="Also from post to searchable, with `era dev` at work.",
)
@click.option("--plot", type=PLOT, metavar="FILE", help="Draw the parts' seconds (PNG or SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one object a line.")
@click.pass_context
def post(
    ctx: click.Context, runs: int, at_once: int, plot: Path | None, *, searchable: bool, as_json: bool
) -> None:
    """Measure how long a posted book takes until it is found.

    To be accepted, alone and among many; and to be found, in parts. Uses scratch databases where
    ERA_DATABASE_URL says, else on a scratch embedded server; and the hashing embedder.
    """
    from era_ingest.bench.measure import build_tables, plot_seconds
    from era_ingest.bench.post import bench_posts, bench_searchable

    def say(line: str) -> None:
        click.echo(line, err=True)

    found = [bench_posts(settings_of(ctx), at_once=at_once, runs=runs, on_step=say)]
    if searchable:
        found.append(bench_searchable(settings_of(ctx), runs=runs, on_step=say))
    if plot is not None:
        plot_seconds(found[-1], plot)
    for one in found:
        if as_json:
            click.echo(json.dumps(one.as_dict()))
        else:
            print_tables(build_tables(one)[0])
