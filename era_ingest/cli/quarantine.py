"""``era quarantine``: what was refused, where and why."""

from __future__ import annotations

import json

import click

from era_ingest.cli.app import cli, run_async, settings_of
from era_ingest.pipelines.status import read_quarantine


@cli.group()
def quarantine() -> None:
    """What was refused: documents, items and texts, each with its place and reason."""


@quarantine.command("list")
@click.option("--book", help="Only this book, by its name.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Rows, at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def list_rows(ctx: click.Context, *, book: str | None, limit: int, as_json: bool) -> None:
    """List what is in quarantine, newest first."""
    rows = run_async(read_quarantine(settings_of(ctx), book=book, limit=limit))
    if as_json:
        click.echo(json.dumps({"rows": [row.as_dict() for row in rows]}, ensure_ascii=False, default=str))
        return
    if not rows:
        click.echo("The quarantine is empty.")
    for row in rows:
        place = f"{row.file}#{row.pointer}" if row.pointer else row.file
        click.echo(f"{row.book or '-'}: {row.reason}: {place}\n    {row.detail}")
