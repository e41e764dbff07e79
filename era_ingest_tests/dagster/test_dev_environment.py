"""What `era dev` tells its parts of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from era_ingest.orchestration.dev import _environment
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_page_finds_the_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the port that was chosen; an address that somebody gives, such as a proxy's, stays."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = load_settings(home=tmp_path)
    environment = _environment(settings, 3456)
    assert environment["ERA_DAGSTER_URL"] == "http://127.0.0.1:3456"
    assert environment["DAGSTER_HOME"].startswith(str(tmp_path))
    monkeypatch.setenv("ERA_DAGSTER_URL", "https://dagster.example")
    assert _environment(settings, 3456)["ERA_DAGSTER_URL"] == "https://dagster.example"
