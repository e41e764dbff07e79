"""``era ingest``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import EXIT_FAILED, EXIT_QUARANTINED, Runners, cli, logs_json, run_async, settings_of
from era_ingest.cli.progress import show_progress
from era_ingest.errors import ConfigurationError
from era_ingest.pipelines.outcome import IngestOptions

if TYPE_CHECKING:
    from era_ingest.pipelines.outcome import IngestOutcome
    from era_ingest.settings import Settings

_MAX_REFUSALS_SHOWN = 10


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Work on unchanged books too.")
@click.option("--retry-refused", is_flag=True, help="Ask again for texts that the server refused before.")
@click.option(
    "--allow-removals",
    is_flag=True,
    help="Believe that books are gone, even if all or most of a folder's are.",
)
@click.option("--plan", is_flag=True, help="Say what would be embedded, at what price; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one summary object on one line, last.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_context
def ingest(
    ctx: click.Context,
    paths: tuple[Path, ...],
    *,
    force: bool,
    retry_refused: bool,
    allow_removals: bool,
    plan: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Load books, and rebuild what depends on them.

    A path is a landing folder, a book's folder or a file. Unchanged books cost nothing. A book that was loaded
    from a landing folder given here and is no longer in it is removed, unless all of the folder's books
    vanished at once, or most: a volume that is not mounted looks the same. Everything is recorded as Dagster
    materializations.

    Exit codes: 0 all loaded; 3 loaded, something quarantined; 1 failed, or a removal was not believed.
    """
    settings = settings_of(ctx)
    options = IngestOptions(force=force, retry_refused=retry_refused, allow_removals=allow_removals)
    if plan:
        _print_plan(settings, paths, options, as_json=as_json)
        return
    outcome = run(ctx.ensure_object(Runners), settings, paths, options, quiet=quiet)
    finish(ctx, outcome, as_json=as_json)


def run(
    runners: Runners, settings: Settings, paths: tuple[Path, ...], options: IngestOptions, *, quiet: bool
) -> IngestOutcome:
    """Ingest paths, with progress."""
    with show_progress(quiet=quiet, as_log=settings.log_format == "json") as show:
        return runners.ingest(paths, settings, options, show)


def finish(ctx: click.Context, outcome: IngestOutcome, *, as_json: bool) -> None:
    """Say what came of an ingestion, and end the command with its exit code."""
    if not logs_json(ctx):  # what became of each book is in the log then
        _print_outcome(outcome)
    if as_json:
        click.echo(json.dumps(outcome.summary()))
    if outcome.ingest.error is not None:
        raise outcome.ingest.error
    if outcome.held_back:
        raise ConfigurationError(" ".join(outcome.held_back))
    ctx.exit(exit_code(outcome))


def _print_plan(
    settings: Settings, paths: tuple[Path, ...], options: IngestOptions, *, as_json: bool
) -> None:
    from era_ingest.pipelines.preview import preview_ingest

    preview = run_async(preview_ingest(settings, paths, options))
    for line in [json.dumps(preview.as_dict())] if as_json else preview.lines():
        click.echo(line)


def exit_code(outcome: IngestOutcome) -> int:
    """0: all loaded; 3: something quarantined; 1: it failed."""
    if outcome.ingest.error is not None:
        return EXIT_FAILED
    return EXIT_QUARANTINED if outcome.quarantined else 0


def _print_outcome(outcome: IngestOutcome) -> None:
    """Say on standard error what came of it."""
    summary = outcome.summary()
    statuses = ", ".join(f"{count} {status}" for status, count in summary["books_by_status"].items())
    counts = (
        f"{summary['books']} books ({statuses or 'none found'}) in {summary['seconds']:.1f} s: "
        f"{summary['chapters']:,} chapters, {summary['entries']:,} entries, {summary['passages']:,} passages"
    )
    effects = (
        f"{summary['texts_embedded']:,} texts embedded in {summary['requests']:,} requests, "
        f"{summary['texts_reused']:,} reused; {summary['rows_written']:,} rows written, "
        f"{summary['rows_deleted']:,} deleted; "
        f"{summary.get('minister_files_written', 0):,} minister files written"
    )
    lines = [counts, effects]
    refused = [book for book in outcome.ingest.books if book.error]
    lines += [f"  {book.book}: {book.error}" for book in refused[:_MAX_REFUSALS_SHOWN]]
    lines += [f"  {defect.file}: {defect.detail}" for defect in outcome.landing_defects[:_MAX_REFUSALS_SHOWN]]
    if outcome.quarantined:
        lines.append(f"{outcome.quarantined:,} quarantined: `era quarantine list` says what, where and why")
    for line in lines:
        click.echo(line, err=True)
