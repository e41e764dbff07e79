"""Schemathesis makes requests from the OpenAPI document, right and wrong ones; the service must be as it says."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest.settings import load_settings
from era_ingest_tests.dagster.corpus import write_book

if TYPE_CHECKING:
    from era_ingest_tests.service_kit import Installation

ROOT = Path(__file__).parents[2]
SHORT = ["--phases", "coverage"]
LONG = ["--max-examples", "50"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "options", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.slow)]
)
def test_the_service_is_as_its_document_says(
    installation: Installation, tmp_path: Path, options: list[str]
) -> None:
    """All checks on but what schemathesis.toml gives a reason for; the same cases each time."""
    write_book(tmp_path / "books", "patience")
    asyncio.run(load(tmp_path / "books"))
    with installation.serve(serve_rate_per_s=0.0) as served:
        url = f"http://127.0.0.1:{served.port}/v1/openapi.json"
        schemathesis = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(ROOT / "schemathesis.toml"),
        ]
        command = [*schemathesis, "run", url, "--seed", "1", "--generation-deterministic", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert re.search(r"Test cases:\s+[1-9]\d\d generated", done.stdout)


async def load(folder: Path) -> None:
    """Load a folder of books."""
    async with open_services(load_settings()) as services:
        arrivals = await resolve_paths(services, [folder])
        assert (await ingest_books(services, IngestRequest(arrivals.sources))).error is None
