"""``era dev``."""

from __future__ import annotations

import click

from era_ingest.cli.app import Runners, cli, settings_of


@cli.command()
@click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(0, 65535), help="Port of the UI."
)
@click.pass_context
def dev(ctx: click.Context, *, port: int) -> None:
    """Run the Dagster UI and the daemon (sensors, schedules, backfills) until Ctrl-C."""
    ctx.exit(ctx.ensure_object(Runners).dev(settings_of(ctx), port))
