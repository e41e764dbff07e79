"""The parts of ``era dev``, on small programs: started again when they end, and gone when it is gone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from era_ingest.errors import ConfigurationError
from era_ingest.orchestration.dev import Part, find_port
from era_ingest.store.embedded.waiting import Waiter

if TYPE_CHECKING:
    from pathlib import Path

FAMILY = """
import os, pathlib, subprocess, sys, time
idle = [sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(300)"]
child = subprocess.Popen(idle)
file = pathlib.Path(sys.argv[1])
file.with_suffix(".new").write_text(f"[{os.getpid()}, {child.pid}]")
file.with_suffix(".new").rename(file)
time.sleep(300)
"""
STARTER = """
import os, sys, time
from era_ingest.orchestration.dev import Part
part = Part("it", sys.argv[1:], dict(os.environ))
time.sleep(300)
"""
PATIENCE_S = 60.0


def pids_in(file: Path) -> list[int]:
    """Wait until a program has told its pid and its child's; forget them, return them."""
    assert Waiter().until(file.exists, PATIENCE_S)
    pids = [int(pid) for pid in json.loads(file.read_text())]
    file.unlink()
    return pids


def are_gone(pids: list[int]) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids
    )


def test_a_part_that_ends_is_started_again_and_nothing_of_it_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its child goes with it each time, though it hears no Ctrl-C; closed, it is gone at once."""
    file = tmp_path / "pids"
    part = Part("The part", ["-c", FAMILY, str(file)], dict(os.environ))
    try:
        first = pids_in(file)
        assert part.look()
        psutil.Process(first[0]).kill()
        assert Waiter().until(lambda: part.look() and file.exists(), PATIENCE_S)
        second = pids_in(file)
        assert Waiter().until(lambda: are_gone(first), PATIENCE_S)
    finally:
        part.close()
    assert Waiter().until(lambda: are_gone(second), PATIENCE_S)
    assert capfd.readouterr().err.count("The part ended by itself; started again.") == 1


def test_a_part_that_ends_again_and_again_is_given_up() -> None:
    """It cannot be mended by starting it."""
    part = Part("The part", ["-c", "raise SystemExit(1)"], dict(os.environ))
    try:
        assert Waiter().until(lambda: not part.look(), PATIENCE_S)
    finally:
        part.close()


def test_a_starter_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL tells nobody; the keeper finds out by its pipe."""
    file = tmp_path / "pids"
    command = [sys.executable, "-c", STARTER, "-c", FAMILY, str(file)]
    with subprocess.Popen(command) as starter:
        pids = pids_in(file)
        keepers = [child.pid for child in psutil.Process(starter.pid).children()]
        starter.kill()
    assert Waiter().until(lambda: are_gone([*pids, *keepers]), PATIENCE_S)


def test_a_port_that_is_taken_is_told_at_once() -> None:
    """By the option that chooses another; 0 is any free one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="--serve-port"),
    ):
        find_port(taken.getsockname()[1], "--serve-port")
    assert find_port(0, "--port") > 0
