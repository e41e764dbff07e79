"""``era doctor``, ``era status``, ``era verify``, ``era settings``, ``era models``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import EXIT_FAILED, EXIT_FINDINGS, Runners, cli, run_async, settings_of
from era_ingest.errors import EraError
from era_ingest.pipelines.doctor import Diagnosis, Health, diagnose
from era_ingest.settings import describe_settings

if TYPE_CHECKING:
    from era_ingest.settings import Settings

_MARKS = {
    Health.OK: click.style("ok      ", fg="green"),
    Health.WARNING: click.style("warning ", fg="yellow"),
    Health.FAILED: click.style("FAILED  ", fg="red"),
}


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Look at every part and say what is missing and what to do.

    Exit codes: 0 nothing failed; 1 something did.
    """
    settings = settings_of(ctx)
    found = [*run_async(diagnose(settings)), _check_dagster(ctx.ensure_object(Runners), settings)]
    failed = any(item.health is Health.FAILED for item in found)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "parts": [item.as_dict() for item in found]}))
    else:
        for item in found:
            click.echo(f"{_MARKS[item.health]}{item.part}: {item.detail}")
            if item.remedy:
                click.echo(f"        -> {item.remedy}")
    ctx.exit(EXIT_FAILED if failed else 0)


def _check_dagster(runners: Runners, settings: Settings) -> Diagnosis:
    try:
        runners.check_dagster(settings)
    except EraError as error:
        return Diagnosis("Dagster's storage", Health.FAILED, error.message)
    return Diagnosis("Dagster's storage", Health.OK, "opens, in the same database")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Say what is loaded: books, rows, model, quarantine."""
    from era_ingest.pipelines.status import read_status

    state = run_async(read_status(settings_of(ctx)))
    if as_json:
        click.echo(json.dumps(state.as_dict()))
        return
    for line in state.lines():
        click.echo(line)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def verify(ctx: click.Context, *, as_json: bool) -> None:
    """Audit the database against files and sources.

    Finds what is lost, doubled, stale or orphaned, and zero or missing vectors.

    Exit codes: 0 nothing wrong (warnings are shown); 4 something is.
    """
    from era_ingest.pipelines.verify import is_wrong, verify_all

    findings = run_async(verify_all(settings_of(ctx)))
    wrong = [finding for finding in findings if is_wrong(finding)]
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            click.echo(f"{finding.severity}: {finding.code}: {finding.subject}: {finding.detail}")
        click.echo(
            f"{len(wrong)} errors" if wrong else "nothing lost, doubled, stale, orphaned, and no wrong vector"
        )
    ctx.exit(EXIT_FINDINGS if wrong else 0)


@cli.command("settings")
@click.pass_context
def show_settings(ctx: click.Context) -> None:
    """List every setting: its value in force and its meaning.

    Secrets are masked.
    """
    settings = settings_of(ctx)
    for row in describe_settings():
        value = getattr(settings, row.name.removeprefix("ERA_").lower())
        shown = row.default if value is None else value
        click.echo(f"{row.name}={shown}\n    {row.description} [default: {row.default}]")


@cli.group()
def models() -> None:
    """The local model's files."""


@models.command("fetch")
@click.pass_context
def fetch(ctx: click.Context) -> None:
    """Download and verify the local model (84 MB, once).

    Does nothing where it is there already.
    """
    from era_ingest.clients.model_files import fetch_model

    folder = fetch_model(settings_of(ctx).models_location)
    click.echo(f"The local model is in {folder}")
