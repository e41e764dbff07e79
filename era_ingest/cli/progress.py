"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from era_ingest.pipelines.report import Progress

_LINE_EVERY_S = 5.0

_log = logging.getLogger(__name__)


def describe(progress: Progress) -> str:
    """Return one line: books, texts, rate, what holds the flow, refusals, tokens and their price, time left."""
    parts = [f"{progress.books_done}/{progress.books_total} books"]
    if progress.texts_known:
        about = "" if progress.reading_done else "about "
        parts.append(f"{progress.texts_done:,}/{about}{progress.texts_expected:,} texts")
        parts.append(f"{progress.texts_per_s:,.0f} texts/s")
    if progress.limiter is not None:
        held = f" held by {progress.limiter.held_by}" if progress.limiter.held_by else ""
        parts.append(f"{progress.limiter.in_flight}/{progress.limiter.limit:.0f} in flight{held}")
    if progress.rate_limited:
        parts.append(f"{progress.rate_limited} x 429")
    if progress.tokens:
        cost = "" if progress.cost is None else f" ({progress.cost:,.2f})"
        parts.append(f"{progress.tokens:,} tokens{cost}")
    if progress.seconds_left is not None:
        parts.append(f"{_duration(progress.seconds_left)} left")
    return ", ".join(parts)


@contextmanager
def show_progress(*, quiet: bool = False, as_log: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows progress on standard error while the block runs.

    Args:
        quiet: Show none.
        as_log: As log lines.
    """
    if quiet:
        yield lambda _progress: None
    elif as_log:
        yield _lines(lambda progress: _log.info("progress", extra=facts_of(progress)))
    elif is_terminal():
        with _bar() as show:
            yield show
    else:
        yield _lines(
            lambda progress: click.echo(f"{progress.share:4.0%}  {describe(progress)}", file=sys.stderr)
        )


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=30), TaskProgressColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda progress: bar.update(task, completed=progress.share, description=describe(progress))


def facts_of(progress: Progress) -> dict[str, float | str | None]:
    """Return how far a run is, for a log line."""
    facts: dict[str, float | str | None] = {
        "share": round(progress.share, 4),
        "books_done": progress.books_done,
        "books_total": progress.books_total,
        "texts_done": progress.texts_done,
        "texts_expected": progress.texts_expected,
        "texts_per_s": round(progress.texts_per_s, 1),
        "requests": progress.requests,
        "rate_limited": progress.rate_limited,
        "tokens": progress.tokens,
        "cost": progress.cost,
        "seconds_left": None if progress.seconds_left is None else round(progress.seconds_left, 1),
    }
    if progress.limiter is not None:
        facts |= {"limit": round(progress.limiter.limit, 1), "in_flight": progress.limiter.in_flight}
        facts["held_by"] = progress.limiter.held_by or "nothing"
    return facts


def _lines(say: Callable[[Progress], None]) -> Callable[[Progress], None]:
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            say(progress)

    return show


def _duration(seconds: float) -> str:
    """Write a time span briefly: ``42 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:  # noqa: PLR2004 - up to a minute and a half seconds read best
        return f"{seconds:.0f} s"
    if seconds < 5400:  # noqa: PLR2004 - likewise minutes up to an hour and a half
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
