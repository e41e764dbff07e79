"""An installation whose service, database and Dagster instance are real."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from era_ingest.definitions import defs
from era_ingest.orchestration.run_queue import open_run_queue
from era_ingest.settings import load_settings
from era_ingest_tests.service_kit import Installation

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from era_ingest.pipelines.jobs import RunQueue
    from era_ingest.settings import Settings


@pytest.fixture
def run_queue() -> Callable[[Settings], AbstractContextManager[RunQueue]]:
    """What opens Dagster's run queue."""
    return partial(open_run_queue, definitions=defs)


@pytest.fixture
def installation(
    tmp_path: Path,
    dagster_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    run_queue: Callable[[Settings], AbstractContextManager[RunQueue]],
) -> Installation:
    """An empty installation that the environment names."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name, value in {
        "ERA_HOME": str(tmp_path / "home"),
        "ERA_DATABASE_URL": dagster_database_url,
        "ERA_EMBEDDER": "hashing",
        "ERA_LANDING_DIR": str(tmp_path / "landing"),
        "ERA_MINISTERS_DIR": str(tmp_path / "ministers"),
        "ERA_SETTLE_S": "0",
    }.items():
        monkeypatch.setenv(name, value)
    load_settings()
    return Installation(tmp_path / "landing", dagster_database_url, run_queue)
