"""Fixtures of the client's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from era_ingest.clients.model_files import fetch_model


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Where the local model is, fetched if need be: ERA_MODELS_DIR, or this checkout's own."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("ERA_MODELS_DIR") or root / ".era" / "models")
    fetch_model(folder)
    return folder
