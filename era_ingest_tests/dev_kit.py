"""``era dev`` as a user runs it: its programs, found by what they belong to, so that all can be killed at once."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from era_ingest.store.embedded import status
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.service_kit import Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest_tests.faults.kit import Installation

ROOT = Path(__file__).parents[1]
START_S = 120.0
STOP_S = 90.0


class Dev:
    """A running ``era dev``.

    Attributes:
        installation: What it works on.
        process: The program.
        ui_port: Where its webserver is to listen.
        served: Its service.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.ui_port, port = free_port(), free_port()
        self.served = Served(port)
        command = [sys.executable, "-m", "era_ingest", "dev"]
        command += ["--port", str(self.ui_port), "--serve-port", str(port)]
        with installation.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=installation.environment(), stdout=log, stderr=log
            )

    def wait_for_service(self) -> None:
        """Wait until the service answers."""
        assert Waiter().until(self.serves, START_S), self.installation.log.read_text()[-3000:]

    def serves(self) -> bool:
        """Say whether the service and all that it needs answer."""
        with suppress(OSError):
            return self.served.ask("GET", "/readyz").status == 200
        return False

    def daemon_beats(self) -> bool:
        """Say whether the UI answers and says that every daemon is healthy."""
        query = b'{"query": "{instance{daemonHealth{allDaemonStatuses{healthy required}}}}"}'
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ui_port}/graphql", query, {"Content-Type": "application/json"}
        )
        with suppress(OSError, ValueError, KeyError, TypeError):
            with urllib.request.urlopen(request, timeout=10) as reply:
                found = json.loads(reply.read())["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
            return all(one["healthy"] for one in found if one["required"])
        return False


@contextmanager
def running_dev(installation: Installation) -> Iterator[Dev]:
    """Run ``era dev`` for the length of a context; end it with Ctrl-C unless it was killed."""
    dev = Dev(installation)
    try:
        yield dev
    finally:
        if dev.process.poll() is None:
            dev.process.send_signal(signal.SIGINT)
        dev.process.wait(STOP_S)


def kill_all(installation: Installation, *, database: bool) -> int:
    """SIGKILL everything that works for an installation, at once; return how many processes that was.

    Args:
        installation: Which.
        database: The embedded server too, and its warden.
    """
    victims = family(installation)
    if database and (pid := status(installation.home).pid) is not None:
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(pid)
            victims += [server, *filter(None, [server.parent()])]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    return len(victims)


def family(installation: Installation) -> list[psutil.Process]:
    """Return the living processes that were started for an installation, but not its database's."""
    return [process for process in psutil.process_iter() if _is_of(process, str(installation.home))]


def _is_of(process: psutil.Process, home: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("ERA_HOME") == home
    except psutil.Error:
        return False


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens at, nor is given before it is listened at.

    The kernel gives away ports from 32,768 up: to every connection, and to who listens at port 0.
    """
    while True:
        wanted = random.SystemRandom().randint(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", wanted)):
            return wanted
