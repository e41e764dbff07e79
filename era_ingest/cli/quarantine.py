"""``era quarantine``: what was refused, where and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from era_ingest.cli.app import cli, run_async, settings_of
from era_ingest.pipelines.status import read_quarantine

if TYPE_CHECKING:
    from era_ingest.store.quarantine import QuarantineRow


@cli.group()
def quarantine() -> None:
    """What was refused: documents, items and texts, each with its place and reason."""


@quarantine.command("list")
@click.option("--book", help="Only this book, by its name.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Rows, at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def list_rows(ctx: click.Context, *, book: str | None, limit: int, as_json: bool) -> None:
    """List what is in quarantine, newest first."""
    rows = run_async(read_quarantine(settings_of(ctx), book=book, limit=limit))
    if as_json:
        click.echo(json.dumps({"rows": [_show(row) for row in rows]}, ensure_ascii=False))
        return
    if not rows:
        click.echo("The quarantine is empty.")
    for row in rows:
        place = f"{row.file}#{row.pointer}" if row.pointer else row.file or f"text: {(row.text or '')[:60]}"
        click.echo(f"{row.book or '-'}: {row.reason}: {place}\n    {row.detail}")


def _show(row: QuarantineRow) -> dict[str, Any]:
    """Return a row for JSON."""
    shown = asdict(row)
    shown["id"] = str(row.id)
    shown["content_hash"] = row.content_hash.hex() if row.content_hash else None
    shown["first_seen"], shown["last_seen"] = row.first_seen.isoformat(), row.last_seen.isoformat()
    return shown
