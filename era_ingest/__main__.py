"""The ``era`` program: wires the commands to the rooms above them."""

from __future__ import annotations

import atexit
import gc
from typing import TYPE_CHECKING

# Imports make many objects and no garbage: looking for some as often as by default costs 40 % of their time.
gc.set_threshold(50_000, 20, 50)
# At its end the interpreter looks for garbage in all that Dagster made: 0.8 s, for memory that ends with it.
atexit.register(gc.freeze)

from era_ingest.cli import Runners, cli  # noqa: E402 - see above

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from era_ingest.pipelines.jobs import RunQueue
    from era_ingest.pipelines.outcome import IngestOptions, IngestOutcome
    from era_ingest.pipelines.report import Progress
    from era_ingest.settings import Settings


def _ingest(
    paths: Sequence[Path], settings: Settings, options: IngestOptions, report: Callable[[Progress], None]
) -> IngestOutcome:
    from era_ingest.orchestration.local_run import run_ingest

    return run_ingest(paths, settings, options, report)


def _dev(settings: Settings, port: int, serve_port: int) -> int:
    from era_ingest.orchestration.dev import run_dev

    return run_dev(settings, port, serve_port)


def _check_dagster(settings: Settings) -> None:
    from era_ingest.orchestration.instance import open_instance

    open_instance(settings).dispose()


def _open_run_queue(settings: Settings) -> AbstractContextManager[RunQueue]:
    from era_ingest.definitions import defs
    from era_ingest.orchestration.run_queue import open_run_queue

    return open_run_queue(settings, defs)


def _serve(settings: Settings, host: str, port: int) -> int:
    from era_ingest.service.server import run_service

    def announce(url: str) -> None:
        print(f"Serving at {url}", flush=True)  # noqa: T201

    return run_service(settings, host, port, _open_run_queue, announce)


def _new_token(scope: str) -> tuple[str, str]:
    from era_ingest.service.access import Scope, new_token

    return new_token(Scope(scope))


def main() -> None:
    """Run ``era``."""
    runners = Runners(
        ingest=_ingest, dev=_dev, check_dagster=_check_dagster, serve=_serve, new_token=_new_token
    )
    cli(obj=runners, prog_name="era")


if __name__ == "__main__":
    main()
