"""``era serve`` as a user types it: a program that serves, and ends in order when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from era_ingest.service.access import load_grants
from era_ingest.settings import load_settings
from era_ingest_tests.service_kit import Served

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def command(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``era serve`` on a database of its own."""
    for name, value in {
        "ERA_HOME": str(tmp_path / "home"),
        "ERA_DATABASE_URL": database_url,
        "ERA_EMBEDDER": "hashing",
        "ERA_LANDING_DIR": str(tmp_path / "landing"),
    }.items():
        monkeypatch.setenv(name, value)
    return [sys.executable, "-m", "era_ingest", "serve"]


def test_it_serves_until_it_is_told_to_end(command: list[str]) -> None:
    """It says where it is, answers there, and ends with 0 and without a traceback."""
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            url = program.stdout.readline().split()[-1]
            served = Served(int(url.rpartition(":")[2]))
            assert served.ask("GET", "/readyz").status == 200
            assert served.ask("POST", "/v1/search", {"text": "x"}).code == "not_configured"
            program.send_signal(signal.SIGTERM)
            _, said = program.communicate(timeout=30)
        finally:
            program.kill()
    assert (program.returncode, said) == (0, "")


def test_other_machines_are_not_served_without_a_token(command: list[str]) -> None:
    """It refuses to start, and says how a token is made; what it prints then is taken as it stands."""
    done = subprocess.run([*command, "--host", "0.0.0.0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "era serve --new-token" in done.stderr
    made = subprocess.run(
        [*command, "--new-token", "write"], capture_output=True, text=True, check=True
    ).stdout
    setting = made.splitlines()[1].split()[-1]
    environment = {**os.environ, "ERA_SERVE_TOKENS": setting}
    assert len(load_grants(load_settings(serve_tokens=setting))) == 1
    taken = subprocess.run(
        [*command, "--host", "203.0.113.1"], env=environment, capture_output=True, text=True, check=False
    )
    assert "cannot be bound" in taken.stderr
