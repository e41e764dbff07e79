"""A wrong setting, as Dagster shows it to whoever looks after an installation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]


def test_a_code_location_says_which_setting_is_wrong_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its variable and meaning, not by pydantic's own error; a key in the wrong place is not repeated."""
    (tmp_path / "dagster.yaml").touch()  # Dagster's own storage: only the definitions read our settings
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("ERA_EMBED_DIMENSIONS", "sk-in-the-wrong-place")
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "era_ingest.definitions"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert "ConfigurationError: Wrong settings: ERA_EMBED_DIMENSIONS (vector size" in told
    assert "Set them right in the environment of this process and start it again" in told
    assert "pydantic_core" not in told
    assert "sk-in-the-wrong-place" not in told
