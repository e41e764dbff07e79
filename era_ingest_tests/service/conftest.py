"""An installation whose service, database and Dagster instance are real."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from era_ingest.definitions import defs
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.run_queue import open_run_queue
from era_ingest.settings import load_settings
from era_ingest_tests.service_kit import Installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import dagster as dg

    from era_ingest_tests.service_kit import Served


def _install(folder: Path, url: str, patch: pytest.MonkeyPatch) -> Installation:
    """Let the environment name an empty installation; return it."""
    patch.delenv("DAGSTER_HOME", raising=False)
    for name, value in {
        "ERA_HOME": str(folder / "home"),
        "ERA_DATABASE_URL": url,
        "ERA_EMBEDDER": "hashing",
        "ERA_LANDING_DIR": str(folder / "landing"),
        "ERA_MINISTERS_DIR": str(folder / "ministers"),
        "ERA_SETTLE_S": "0",
    }.items():
        patch.setenv(name, value)
    return Installation(folder / "landing", url, partial(open_run_queue, definitions=defs))


@pytest.fixture
def installation(tmp_path: Path, dagster_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An empty installation that the environment names."""
    return _install(tmp_path, dagster_database_url, monkeypatch)


@pytest.fixture(scope="module")
def shared_installation(
    tmp_path_factory: pytest.TempPathFactory, module_dagster_database_url: str
) -> Iterator[Installation]:
    """One for all tests of a module, which leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        yield _install(tmp_path_factory.mktemp("shared"), module_dagster_database_url, patch)


@pytest.fixture
def served(installation: Installation) -> Iterator[Served]:
    """A service without tokens."""
    with installation.serve() as opened:
        yield opened


@pytest.fixture
def instance(installation: Installation) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance that the service uses, as the daemon has it open."""
    with open_instance(load_settings(), capture_prints=False) as opened:
        yield opened
