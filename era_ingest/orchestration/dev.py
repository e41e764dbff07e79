"""``era dev``: the UI and the daemon on one Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING

from era_ingest.orchestration.instance import dagster_folder, held_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from era_ingest.settings import Settings

_LOOK_EVERY_S = 0.5
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
    held_url(settings)
    settings.landing_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dagster", "dev", "-m", "era_ingest.definitions"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--code-server-log-level", "warning"]
    told_at: list[float] = []
    with _told(told_at):
        # In a session of its own, a Ctrl-C of the terminal reaches only us: it is passed on once, in order.
        process = subprocess.Popen(command, env=_environment(settings), start_new_session=True)  # noqa: S603
        try:
            return _wait(process, told_at)
        finally:
            _end_group(process)


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
def _told(told_at: list[float]) -> Iterator[None]:
    """Note when we are told to end, instead of ending.

    Set before the processes are started: a shell's background job ignores Ctrl-C, and they would inherit that.
    """

    def note(_number: int, _frame: FrameType | None) -> None:
        told_at.append(time.monotonic())

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(process: subprocess.Popen[bytes], told_at: list[float]) -> int:
    """Wait for the end; pass an interruption on, and be patient with it for 30 s. Returns the exit code."""
    passed_on = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(_LOOK_EVERY_S)
            return 0 if told_at else code
        if told_at and not passed_on:
            passed_on = True
            process.send_signal(signal.SIGINT)
        if told_at and time.monotonic() - told_at[0] > _STOP_TIMEOUT_S:
            return 1


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever of the webserver, the daemon and their code servers is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
