"""``era dev``: the UI, the daemon and the HTTP service on one Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from era_ingest.errors import ConfigurationError
from era_ingest.orchestration.instance import dagster_folder, held_url
from era_ingest.orchestration.keeper import STOP_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from era_ingest.settings import Settings

HOST = "127.0.0.1"
_KEEPER = Path(__file__).with_name("keeper.py")
_LOOK_EVERY_S = 0.5
_LOOK_AT_CODE_EVERY_S = 5.0
_LOST_AFTER_S = 20.0
_CODE_SERVERS = (" code-server ", " api grpc ")
"""By their command lines: the one that is asked, and the one behind it that holds the code."""
_RAN_WELL_S = 30.0
_SHORT_LIVES = 5
"""After more ends than this in a row, each within half a minute, something is wrong that a restart does not mend."""


def run_dev(settings: Settings, port: int, serve_port: int) -> int:
    """Run webserver, daemon and service until interrupted; return the exit code.

    Whatever ends by itself is started again: webserver and daemon together, the service alone. None of their
    processes outlives us, also where we are killed. The embedded database, where it is the one to use, is held as long.

    Args:
        settings: The process settings.
        port: Of the UI on the loopback interface; 0: any that is free.
        serve_port: Of the service there; 0: any that is free.

    Raises:
        ConfigurationError: A port is taken.
        EraError: The database is not fit, or cannot be reached.
    """
    ui, service = find_port(port, "--port"), find_port(serve_port, "--serve-port")
    held_url(settings)
    settings.landing_dir.mkdir(parents=True, exist_ok=True)
    environment = {"ERA_DAGSTER_URL": f"http://{HOST}:{ui}", **_environment(settings)}
    dagster = ["-m", "dagster", "dev", "-m", "era_ingest.definitions", "--host", HOST, "--port", str(ui)]
    serve = ["-m", "era_ingest", "serve", "--host", HOST, "--port", str(service)]
    told = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        told = True

    with _signals(note), ExitStack() as stack:
        parts = [
            stack.enter_context(closing(Part("The UI or the daemon", command, environment, watch)))
            for command, watch in (
                ([*dagster, "--code-server-log-level", "warning"], CodeServers),
                (serve, None),
            )
        ]
        while not told:
            time.sleep(_LOOK_EVERY_S)
            for part in parts:
                if not told and not part.look():
                    return 1
        for part in parts:
            part.ask_to_end()
    return 0


def find_port(port: int, option: str) -> int:
    """Return a port of the loopback interface that is free; 0: choose one, which is kept over restarts.

    Raises:
        ConfigurationError: It is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(
                f"{HOST}:{port} cannot be bound: {error}. Choose another {option}."
            ) from error
        return int(probe.getsockname()[1])


class Part:
    """A program that is started again when it ends, and of which nothing is left once it is closed.

    A keeper runs it, which ends it where we are gone. Its processes are a session of their own, so that a Ctrl-C of
    the terminal reaches only us.

    Args:
        name: For a person.
        arguments: Of this Python.
        environment: Its variables.
        watch: Makes what else may be lost of it, by the keeper's pid.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        watch: Callable[[int], CodeServers] | None = None,
    ) -> None:
        self._name = name
        self._command = [sys.executable, "-I", "-S", str(_KEEPER), sys.executable, *arguments]
        self._environment = environment
        self._watch = watch
        self._short_lives = 0
        self._start()

    def _start(self) -> None:
        self._begun = time.monotonic()
        self._keeper = subprocess.Popen(  # noqa: S603 - our own words
            self._command, env=self._environment, stdin=subprocess.PIPE, start_new_session=True
        )
        self._watched = None if self._watch is None else self._watch(self._keeper.pid)

    def look(self) -> bool:
        """Start it again if it ended; return False if that does not help."""
        if self._keeper.poll() is None and not (self._watched and self._watched.are_lost()):
            return True
        self._end_group()
        self._short_lives = self._short_lives + 1 if time.monotonic() - self._begun < _RAN_WELL_S else 0
        if self._short_lives > _SHORT_LIVES:
            sys.stderr.write(f"{self._name} ended by itself again and again.\n")
            return False
        sys.stderr.write(f"{self._name} ended by itself; started again.\n")
        self._start()
        return True

    def ask_to_end(self) -> None:
        """Let the keeper interrupt it."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()

    def close(self) -> None:
        """End it in order, in 30 s at most."""
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(STOP_TIMEOUT_S + 5.0)
        self._end_group()

    def _end_group(self) -> None:
        """Kill whatever is left of it."""
        self.ask_to_end()
        with suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()


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
def _signals(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Take SIGINT and SIGTERM as a wish to end.

    Set before the programs are started: a shell's background job ignores Ctrl-C, and they would inherit that.
    """
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
