"""Samples and services of the tests of pipelines."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from era_ingest.pipelines.services import Services, open_services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
from era_ingest_tests.pipelines.ingest_kit import SAMPLES, hashing_settings


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    """A landing folder with the shipped samples."""
    folder = tmp_path / "landing"
    shutil.copytree(SAMPLES, folder)
    return folder


@pytest.fixture
async def services(tmp_path: Path, database_url: str) -> AsyncIterator[Services]:
    """Open services with the hashing backend."""
    async with open_services(hashing_settings(tmp_path, database_url)) as opened:
        yield opened
