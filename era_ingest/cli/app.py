"""The root of the command tree, its help, and how errors become exit codes."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from era_ingest.errors import EraError
from era_ingest.logs import set_up
from era_ingest.settings import Settings, describe_settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from era_ingest.pipelines.outcome import IngestOptions, IngestOutcome
    from era_ingest.pipelines.report import Progress

EXIT_FAILED = 1
EXIT_QUARANTINED = 3
EXIT_FINDINGS = 4
EXIT_INTERRUPTED = 130

_MODULES = {
    "bench": ("bench", "bench_controller", "bench_service"),
    "db": ("database",),
    "dev": ("dev",),
    "doctor": ("inspect",),
    "ingest": ("ingest",),
    "models": ("inspect",),
    "quarantine": ("quarantine",),
    "search": ("search",),
    "serve": ("serve",),
    "settings": ("inspect",),
    "status": ("inspect",),
    "verify": ("inspect",),
}
"""The modules that define each command: one that runs does not wait for what the others need."""
_SETTINGS = "era_ingest.settings"
_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Runners:
    """What the commands need of the rooms above them.

    Attributes:
        ingest: Takes books through the asset graph in this process and records the materializations.
        dev: Runs UI, daemon and service on two ports until Ctrl-C; returns the exit code.
        check_dagster: Opens Dagster's instance and closes it again; raises EraError where it cannot.
        serve: Serves HTTP on a host and port until it is told to end; returns the exit code.
        new_token: Makes a token of a scope, ``read`` or ``write``; returns it and its setting.
    """

    ingest: Callable[[Sequence[Path], Settings, IngestOptions, Callable[[Progress], None]], IngestOutcome]
    dev: Callable[[Settings, int, int], int]
    check_dagster: Callable[[Settings], None]
    serve: Callable[[Settings, str, int], int]
    new_token: Callable[[str], tuple[str, str]]


class EraGroup(click.Group):
    """A group whose commands are imported when they are asked for, and whose errors are one line with a remedy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        load_commands()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, or None."""
        _load_command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; map our errors to exit codes."""
        try:
            return super().invoke(ctx)
        except EraError as error:
            if logs_json(ctx):
                _log.error("the command failed", extra={"error": error.message})
            else:
                click.secho(f"error: {error.message}", fg="red", err=True)
            ctx.exit(EXIT_FAILED)
        except KeyboardInterrupt:
            said = "interrupted; everything finished so far is kept. The next run goes on from there."
            if logs_json(ctx):
                _log.warning(said)
            else:
                click.echo(f"\n{said}", err=True)
            ctx.exit(EXIT_INTERRUPTED)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the settings under the commands."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Settings (environment variables)"):
            rows = [(row.name, f"{row.description} [{row.default}]") for row in describe_settings()]
            formatter.write_dl(rows)


@click.group(cls=EraGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="era-ingest")
def cli() -> None:
    """Turn a corpus of books into searchable vectors and minister files.

    \b
    era ingest data/landing        load a folder of books
    era search "what to do first"  search what was loaded
    era dev                        UI, sensors, schedules and the HTTP service
    era serve                      search and jobs over HTTP
    era doctor                     what is missing, and what to do about it
    """  # noqa: D301 - click takes the control character for "as it is"


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine to its end on a loop of its own."""
    return asyncio.run(work)


def settings_of(ctx: click.Context, *, talks: bool = True) -> Settings:
    """Return the process settings, read once a command, and send log lines where they say.

    Args:
        ctx: Of the command.
        talks: The command tells a person itself what happens: on the console, only errors are logged beside that.
    """
    settings = ctx.meta.get(_SETTINGS)
    if settings is None:
        settings = ctx.meta[_SETTINGS] = load_settings()
        quiet = talks and settings.log_format == "console"
        level = settings.log_level or ("error" if quiet else "info")
        set_up(settings.log_format, level, secrets=settings.secrets)
    assert isinstance(settings, Settings)
    return settings


def logs_json(ctx: click.Context) -> bool:
    """Say whether standard error is for programs: log lines as JSON, and nothing else."""
    settings = ctx.meta.get(_SETTINGS)
    return isinstance(settings, Settings) and settings.log_format == "json"


def is_terminal() -> bool:
    """Say whether a person watches standard error."""
    return sys.stderr.isatty()


def load_commands() -> None:
    """Hang all commands on the root."""
    for name in _MODULES:
        _load_command(name)


def _load_command(name: str) -> None:
    """Hang a command on the root: the modules that define it do so when they are imported."""
    for module in _MODULES.get(name, ()):
        import_module(f"era_ingest.cli.{module}")
