"""``era quarantine``: what was refused, where and why; and trying it again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from era_ingest.cli.app import Runners, cli, run_async, settings_of
from era_ingest.cli.ingest import finish, run
from era_ingest.core.reasons import explain_reason
from era_ingest.pipelines.outcome import IngestOptions
from era_ingest.pipelines.quarantined import describe_row, find_retry_paths, read_quarantine

if TYPE_CHECKING:
    from era_ingest.store.quarantine import QuarantineRow

_MOST_ROWS = 100_000
_SHOWN_ID_CHARS = 8


@cli.group()
def quarantine() -> None:
    """What was refused, where and why: documents, items, texts."""


@quarantine.command("list")
@click.option("--book", help="Only this book, by its name.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, _MOST_ROWS), help="Rows, at most."
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
        click.echo(
            f"{str(row.id)[:_SHOWN_ID_CHARS]}  {row.book or '-'}: {row.reason}: {describe_row(row)}\n"
            f"    {row.detail}"
        )


@quarantine.command("show")
@click.argument("row_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def show_row(ctx: click.Context, *, row_id: str, as_json: bool) -> None:
    """Explain one row, and say what can be done.

    What was refused, where, why, and since when.
    """
    (row,) = run_async(read_quarantine(settings_of(ctx), ids=[row_id], limit=_MOST_ROWS))
    if as_json:
        click.echo(json.dumps(_show(row), ensure_ascii=False))
        return
    for name, value in _show(row).items():
        if value is not None:
            click.echo(f"{name}: {value}")


@quarantine.command("retry")
@click.argument("row_ids", metavar="[ID]...", nargs=-1)
@click.option("--book", help="Everything of this book, by its name.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--json", "as_json", is_flag=True, help="Print one summary object on one line, last.")
@click.pass_context
def retry(
    ctx: click.Context, *, row_ids: tuple[str, ...], book: str | None, everything: bool, as_json: bool
) -> None:
    """Try again: read the books, ask again for refused texts.

    What is accepted now leaves the quarantine; what is not stays in it. Texts with vectors are not embedded again.

    Exit codes: as of `era ingest`.
    """
    if sum((bool(row_ids), book is not None, everything)) != 1:
        raise click.UsageError("Name rows by their ids, or a book with --book, or everything with --all.")
    settings = settings_of(ctx)
    rows = run_async(read_quarantine(settings, book=book, ids=row_ids, limit=_MOST_ROWS))
    paths = run_async(find_retry_paths(settings, rows))
    if not paths:
        click.echo("Nothing to try again." if not rows else "The files of these rows are gone.", err=True)
        return
    outcome = run(ctx.ensure_object(Runners), settings, paths, IngestOptions(retry_refused=True), quiet=True)
    finish(ctx, outcome, as_json=as_json)


def _show(row: QuarantineRow) -> dict[str, Any]:
    """Return a row for JSON."""
    shown = asdict(row)
    shown["id"] = str(row.id)
    shown["content_hash"] = row.content_hash.hex() if row.content_hash else None
    shown["first_seen"], shown["last_seen"] = row.first_seen.isoformat(), row.last_seen.isoformat()
    shown["explanation"] = explain_reason(row.reason)
    return shown
