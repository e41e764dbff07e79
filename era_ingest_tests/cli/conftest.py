"""The command as a user types it: a process of its own, on a database of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import era_ingest
from era_ingest.cli.app import load_commands

if TYPE_CHECKING:
    from collections.abc import Callable

    Era = Callable[..., subprocess.CompletedProcess[str]]

SAMPLES = Path(era_ingest.__file__).parent / "samples"


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    """A landing folder with the shipped samples."""
    return Path(shutil.copytree(SAMPLES, tmp_path / "landing"))


@pytest.fixture
def era(tmp_path: Path, database_url: str) -> Era:
    """Run ``era`` with arguments in a folder of its own, on a database of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ERA_", "DAGSTER_"))}
    environment = {
        **clean,
        "ERA_HOME": str(tmp_path / "home"),
        "ERA_DATABASE_URL": database_url,
        "ERA_MINISTERS_DIR": str(tmp_path / "ministers"),
        "ERA_LANDING_DIR": str(tmp_path / "landing"),
        "ERA_EMBEDDER": "hashing",
        "COLUMNS": "200",
    }

    def run(*arguments: object, **overrides: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "era_ingest", *map(str, arguments)],
            env={**environment, **overrides},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture
def runner(tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Run commands in this process, on the session's server."""
    load_commands()
    monkeypatch.setenv("ERA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERA_DATABASE_URL", server_url)
    return CliRunner()
