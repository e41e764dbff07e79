"""Fixtures of the fault tests: fresh installations from a template, programs from the forge."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from psycopg import sql

from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.faults.kit import Installation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
PROGRAM_TIMEOUT_S = 120.0
LEAVE_TIMEOUT_S = 75.0
"""A code server whose webserver was killed ends by itself when it has heard nothing for 45 s (Dagster's default)."""


class Forge:
    """Orders programs from the forge's process, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "era_ingest_tests.faults.forge"]
        self.pid = 0
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def run(
        self,
        installation: Installation,
        *command: str,
        point: str = "none",
        number: int = 0,
        kill_after_s: float | None = None,
        environment: dict[str, str] | None = None,
    ) -> int:
        """Run a program to its end; return its exit code, or minus the signal that ended it.

        Args:
            installation: Whose.
            *command: ``era ...`` or ``dagster ...``.
            point: Where it kills itself, see ``run_and_kill``.
            number: At which time it comes there.
            kill_after_s: It is killed from outside after so many seconds; at the latest after two minutes.
            environment: More variables.
        """
        assert self._process.stdin is not None
        order = {
            "environment": {**installation.environment(), **(environment or {})},
            "arguments": [point, str(number), *command],
            "log": str(installation.log),
        }
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        pid = self.pid = self._answer()["pid"]
        limit_s = PROGRAM_TIMEOUT_S if kill_after_s is None else kill_after_s
        killer = threading.Timer(limit_s, os.kill, (pid, signal.SIGKILL))
        killer.start()
        try:
            return int(self._answer()["status"])
        finally:
            killer.cancel()

    async def arun(self, installation: Installation, *command: str, **how: Any) -> int:
        """Do as ``run``, in a thread."""
        return await asyncio.to_thread(partial(self.run, installation, *command, **how))

    def close(self) -> None:
        """End the forge."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """The forge."""
    found = Forge()
    yield found
    found.close()


@dataclass(frozen=True)
class Databases:
    """Makes and drops databases that hold Dagster's empty tables and pgvector."""

    server_url: str
    template: str

    def create(self, name: str) -> str:
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(self.template)
                )
            )
        return self.server_url.replace("@/era?", f"@/{name}?", 1)

    def drop(self, name: str) -> None:
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def databases(server_url: str, dagster_template: str) -> Databases:
    """Fresh databases from the prepared template."""
    return Databases(server_url, dagster_template)


@pytest.fixture
def installation(dagster_database_url: str, tmp_path: Path) -> Installation:
    """An empty installation on a fresh database, embedding by hashing."""
    return Installation(tmp_path, dagster_database_url, {"ERA_EMBEDDER": "hashing"})


@pytest.fixture
def applied(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The same, with its variables in the environment of this process."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name, value in installation.variables().items():
        monkeypatch.setenv(name, value)
    return installation


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """After each test no process may be at work for an installation below its folder."""
    yield
    place = str(tmp_path)
    left: list[psutil.Process] = []

    def all_gone() -> bool:
        left[:] = [one for one in psutil.process_iter() if one.pid != os.getpid() and _is_of(one, place)]
        return not left

    assert Waiter().until(all_gone, LEAVE_TIMEOUT_S), f"left behind: {[_told(one) for one in left]}"


def _is_of(process: psutil.Process, place: str) -> bool:
    """Say whether a process was started for an installation, by its command line or its environment."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(place in part for part in (*process.cmdline(), process.environ().get("ERA_HOME", "")))
    except psutil.Error:
        return False


def _told(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:300]}"
    except psutil.Error:
        return str(process.pid)


_FIGURES: dict[str, list[float]] = {}


@pytest.fixture
def note() -> Callable[[str, float], None]:
    """Note a figure under a name; the summary at the end shows count, median and greatest of each name."""

    def take(name: str, value: float) -> None:
        _FIGURES.setdefault(name, []).append(value)

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures of the run: what the README's reliability section is made of."""
    if not _FIGURES:
        return
    terminalreporter.section("figures of the fault tests")
    for name, values in sorted(_FIGURES.items()):
        terminalreporter.line(
            f"{name}: {len(values)} times, median {median(values):.4g}, greatest {max(values):.4g}"
        )
