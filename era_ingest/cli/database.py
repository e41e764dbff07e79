"""``era db``: the embedded PostgreSQL, or the one that ERA_DATABASE_URL names."""

from __future__ import annotations

import subprocess

import click

from era_ingest.cli.app import cli, settings_of
from era_ingest.store import location
from era_ingest.store.embedded.binaries import binaries


@cli.group()
def db() -> None:
    """The database: its URL, psql on it, stopping the embedded one."""


@db.command()
@click.pass_context
def url(ctx: click.Context) -> None:
    """Print the database's URL.

    The embedded server is started to learn it.
    """
    with location.database(settings_of(ctx)) as found:
        click.echo(found)


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def psql(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Open psql on the database.

    Further arguments go to psql, such as -c 'SELECT 1'.
    """
    program = binaries() / "psql"
    with location.database(settings_of(ctx)) as found:
        done = subprocess.run([str(program), found, *arguments], check=False)  # noqa: S603 - the user's own arguments
    ctx.exit(done.returncode)


@db.command()
@click.pass_context
def stop(ctx: click.Context) -> None:
    """Stop the embedded server, whoever uses it."""
    from era_ingest.store import embedded

    stopped = embedded.stop(settings_of(ctx).home)
    click.echo("stopped" if stopped else "it was not running")
