"""``era dev``: the UI and the daemon on one Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING

from era_ingest.orchestration.instance import dagster_folder, held_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from era_ingest.settings import Settings

_STOP_TIMEOUT_S = 30.0


def run_dev(settings: Settings, port: int) -> int:
    """Run webserver and daemon until they end or are interrupted; return the exit code.

    The embedded database, where it is the one to use, is held as long.

    Args:
        settings: The process settings.
        port: Of the UI on the loopback interface; 0: any that is free.

    Raises:
        EraError: The database is not fit, or cannot be reached.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: Dagster would never end
        signal.signal(signal.SIGINT, signal.default_int_handler)
    held_url(settings)
    settings.landing_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dagster", "dev", "-m", "era_ingest.definitions"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--code-server-log-level", "warning"]
    with _interruptible(subprocess.Popen(command, env=_environment(settings))) as process:  # noqa: S603 - our own
        return process.wait()


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which every process of Dagster finds this installation."""
    environment = {**os.environ, "ERA_HOME": str(settings.home.absolute())}
    environment.setdefault("DAGSTER_HOME", str(prepare_dagster_home(settings)))
    return environment


def prepare_dagster_home(settings: Settings) -> Path:
    """Return ERA_HOME/dagster, with the packaged ``dagster.yaml`` in it."""
    folder = dagster_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    packaged = resources.files("era_ingest.orchestration").joinpath("dagster.yaml").read_bytes()
    file = folder / "dagster.yaml"
    if not file.exists() or file.read_bytes() != packaged:
        file.write_bytes(packaged)
    return folder


@contextmanager
def _interruptible(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End the process in order when this one is told to end; Ctrl-C reaches it by itself."""

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT if number == signal.SIGTERM else number)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield process
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
