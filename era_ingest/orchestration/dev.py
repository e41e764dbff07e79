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

import psutil

from era_ingest.orchestration.instance import dagster_folder, held_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from era_ingest.settings import Settings

_LOOK_EVERY_S = 0.5
_STOP_TIMEOUT_S = 30.0
_LOOK_AT_CODE_EVERY_S = 5.0
_LOST_AFTER_S = 20.0
_CODE_SERVERS = (" code-server ", " api grpc ")
"""By their command lines: the one that is asked, and the one behind it that holds the code."""
_RAN_WELL_S = 30.0
_SHORT_LIVES = 5
"""After more ends than this in a row, each within half a minute, something is wrong that a restart does not mend."""


def run_dev(settings: Settings, port: int) -> int:
    """Run webserver and daemon until interrupted; return the exit code.

    Where one of them ends by itself, both are started again. The embedded database, where it is the one to use, is
    held as long.

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
    short_lives = 0
    with _told(told_at):
        while True:
            begun = time.monotonic()
            code = _run_once(command, _environment(settings), told_at)
            short_lives = short_lives + 1 if time.monotonic() - begun < _RAN_WELL_S else 0
            if told_at or short_lives > _SHORT_LIVES:
                return code
            sys.stderr.write("The UI or the daemon ended by itself; both are started again.\n")


def _run_once(command: list[str], environment: dict[str, str], told_at: list[float]) -> int:
    """Run everything until a part of it ends, or we are told to; leave nothing; return the exit code."""
    # In a session of its own, a Ctrl-C of the terminal reaches only us: it is passed on once, in order.
    process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
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
    code_servers = CodeServers(process.pid)
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(_LOOK_EVERY_S)
            return 0 if told_at else code
        if not told_at and code_servers.are_lost():
            return 1
        if told_at and not passed_on:
            passed_on = True
            process.send_signal(signal.SIGINT)
        if told_at and time.monotonic() - told_at[0] > _STOP_TIMEOUT_S:
            return 1


class CodeServers:
    """Watches the processes that hold our definitions: Dagster's own do not start them again when they die.

    Without them the UI shows errors and no sensor ticks, for ever. The UI's "reload" replaces them, so that there may
    be none for some seconds.

    Args:
        pid: Of ``dagster dev``.
        clock: Monotonic, seconds.
    """

    def __init__(self, pid: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = pid
        self._clock = clock
        self._looked_at = self._last_seen = clock()
        self._were_there = False

    def are_lost(self) -> bool:
        """Return True once a kind of them is gone for 20 s; looks every 5 s."""
        now = self._clock()
        if now - self._looked_at < _LOOK_AT_CODE_EVERY_S:
            return False
        self._looked_at = now
        if self._are_there():
            self._were_there = True
            self._last_seen = now
        return self._were_there and now - self._last_seen >= _LOST_AFTER_S

    def _are_there(self) -> bool:
        found = set()
        with suppress(psutil.Error):
            for process in psutil.Process(self._pid).children(recursive=True):
                with suppress(psutil.Error):  # it ended while we looked
                    command = " ".join(process.cmdline())  # a zombie has none
                    found |= {kind for kind in _CODE_SERVERS if kind in command}
        return found == set(_CODE_SERVERS)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever of the webserver, the daemon and their code servers is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
