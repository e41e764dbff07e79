"""``era dev``."""

from __future__ import annotations

import click

from era_ingest.cli.app import Runners, cli, settings_of


@cli.command()
@click.option(
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the UI; 0: any free one.",
)
@click.option(
    "--serve-port",
    default=8321,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the HTTP service; 0: any free one.",
)
@click.pass_context
def dev(ctx: click.Context, *, port: int, serve_port: int) -> None:
    """Run the Dagster UI, its daemon and the HTTP service.

    Sensors, schedules and backfills run until Ctrl-C. The addresses are printed; what ends by itself is started again.
    """
    ctx.exit(ctx.ensure_object(Runners).dev(settings_of(ctx), port, serve_port))
