"""Programs that serve an installation side by side, and the processes that belong to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import psycopg

from era_ingest.orchestration.dev import prepare_dagster_home
from era_ingest.settings import load_settings
from era_ingest.store.embedded import status
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dev_kit import free_port
from era_ingest_tests.faults.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from era_ingest_tests.faults.kit import Installation

RECOVERY_S = 240.0
END_S = 90.0
VICTIMS = {
    "webserver": "dagster_webserver",
    "daemon": "dagster._daemon",
    "service": "era_ingest serve",
    "code server": "code-server",
    "code process": "api grpc",
    "worker": "spawn_main",
    "database": "postgres",
}
"""Kinds of processes by what stands in their command lines."""
WARM = "multiprocessing.forkserver"
"""So it stands in that of the warm process, and of the workers that are forked from it."""
DAEMON = ("dagster._daemon", "run", "-m", "era_ingest_tests.faults.quick_definitions")


def eventually(condition: Callable[[], bool], seconds: float = RECOVERY_S) -> bool:
    """Say whether a condition comes true in time."""
    return Waiter().until(condition, seconds)


def processes_below(pid: int, kind: str) -> set[psutil.Process]:
    """Return the living processes of a kind that a process started, itself included."""
    found = set()
    with suppress(psutil.Error):
        main = psutil.Process(pid)
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.Error):  # it ended while we looked; a zombie has no command line
                if VICTIMS[kind] in _command(process) or (kind == "worker" and _is_forked(process)):
                    found.add(process)
    return found


def _is_forked(process: psutil.Process) -> bool:
    parent = process.parent()
    return WARM in _command(process) and parent is not None and WARM in _command(parent)


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def books_loaded(url: str | None) -> set[str]:
    """Return the books of a database; none while it is away."""
    with suppress(psycopg.Error):
        with psycopg.connect(url or "") as connection:
            rows = connection.execute("select slug from era.doctrine_sources").fetchall()
        return {row[0] for row in rows}
    return set()


class Dev:
    """A running ``era dev``."""

    def __init__(self, installation: Installation, port: int, process: subprocess.Popen[bytes]) -> None:
        self.installation = installation
        self.port = port
        self.process = process

    def answers(self) -> bool:
        """Say whether the UI answers and a daemon beats."""
        query = json.dumps(
            {"query": "{instance{daemonHealth{allDaemonStatuses{healthy required}}}}"}
        ).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", query, {"Content-Type": "application/json"}
        )
        with suppress(OSError, ValueError, KeyError):
            with urllib.request.urlopen(request, timeout=10) as reply:
                found = json.loads(reply.read())["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
            return all(one["healthy"] for one in found if one["required"])
        return False

    def victims(self, kind: str) -> set[psutil.Process]:
        """Return the living processes of a kind."""
        if kind == "database":
            pid = status(self.installation.home).pid
            return {psutil.Process(pid)} if pid else set()
        return processes_below(self.process.pid, kind)

    def books(self) -> set[str]:
        """Return the books that are loaded."""
        return books_loaded(status(self.installation.home).url)


@contextmanager
def running_dev(installation: Installation) -> Iterator[Dev]:
    """Run ``era dev`` for the length of a context."""
    port = free_port()
    command = [sys.executable, "-m", "era_ingest", "dev", "--port", str(port), "--serve-port", "0"]
    with (
        installation.log.open("ab") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=installation.environment(), stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield Dev(installation, port, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(END_S)


class Program:
    """A program of Dagster that is started again when it dies, as a supervisor would do.

    Args:
        installation: Whose.
        command: A module and its arguments.
    """

    def __init__(self, installation: Installation, *command: str) -> None:
        self._installation = installation
        self._command = command
        self._lives = ExitStack()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = self._installation.environment()
        settings = load_settings(home=self._installation.home)
        environment["DAGSTER_HOME"] = str(prepare_dagster_home(settings))
        log = self._lives.enter_context(self._installation.log.open("ab"))
        return self._lives.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", *self._command],
                cwd=ROOT,
                env=environment,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        )

    def workers(self) -> set[psutil.Process]:
        """Return the run workers that it (by its code server) started."""
        return processes_below(self.process.pid, "worker")

    def kill_and_restart(self) -> None:
        """Kill it alone; what it started is on its own."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def end(self) -> None:
        """End it politely, and what it started."""
        group = self.process.pid
        self.process.terminate()
        self.process.wait(END_S)
        with suppress(ProcessLookupError):  # its code server waits for runs that it started itself
            os.killpg(group, signal.SIGKILL)
        self._lives.close()


@contextmanager
def running(installation: Installation, *command: str) -> Iterator[Program]:
    """Run a program of Dagster for the length of a context."""
    program = Program(installation, *command)
    try:
        yield program
    finally:
        program.end()
