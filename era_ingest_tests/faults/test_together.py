"""Two ``era ingest`` and a Dagster run on the same books at once."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest_tests.faults.conftest import ROOT
from era_ingest_tests.faults.kit import Installation, cases, differences, picture, write_corpus
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Databases, Forge

CORPUS = 15
BATCH_TEXTS = 16
CONCURRENCY = 2


def build_installation(folder: Path, url: str, server: EmbeddingServer) -> Installation:
    installation = Installation(
        folder,
        url,
        {
            "ERA_EMBEDDER": "openai",
            "ERA_EMBED_URL": server.url,
            "ERA_EMBED_MODEL": "m",
            "ERA_EMBED_BATCH_TEXTS": str(BATCH_TEXTS),
            "ERA_EMBED_CONTROLLER": "fixed",
            "ERA_EMBED_CONCURRENCY": str(CONCURRENCY),
        },
    )
    write_corpus(installation.landing, CORPUS, books=12)
    return installation


async def run(installation: Installation, *command: str) -> int:
    """Run a program of the installation to its end."""
    with installation.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *command,
            cwd=ROOT,
            env=installation.environment(),
            stdout=log,
            stderr=log,
        )
        return await process.wait()


@pytest.fixture(scope="module")
def wanted(
    forge: Forge, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], int]]:
    """What one program alone comes to, and how many texts it sent."""
    url = databases.create("together_control")

    async def play() -> tuple[dict[str, Any], int]:
        async with EmbeddingServer() as server:
            installation = build_installation(tmp_path_factory.mktemp("alone"), url, server)
            command = ("era", "ingest", "-q", str(installation.landing))
            assert await forge.arun(installation, *command) == 0
            return picture(installation), server.stats.texts

    yield asyncio.run(play())
    databases.drop("together_control")


@pytest.mark.parametrize("seed", cases(1, 10))
async def test_programs_at_once_come_to_what_one_does(
    installation: Installation,
    wanted: tuple[dict[str, Any], int],
    tmp_path: Path,
    seed: int,
    note: Callable[[str, float], None],
) -> None:
    """No deadlock, the same result, and no text is paid for twice beyond those in flight."""
    latency_s = (0.05, 0.2, 0.01)[seed % 3]
    async with EmbeddingServer(ServerOptions(latency_s=latency_s)) as server:
        assert installation.database_url is not None
        shared = build_installation(tmp_path, installation.database_url, server)
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"ops": {"load_books": {"config": {"everything": True}}}}))
        ingest = ("era_ingest", "ingest", "-q", str(shared.landing))
        job = ("dagster", "job", "execute", "-m", "era_ingest.definitions", "-j", "ingest", "-c", str(config))
        codes = await asyncio.gather(run(shared, *ingest), run(shared, *ingest), run(shared, *job))
        assert list(codes) == [0, 0, 0], shared.log.read_text()[-3000:]
        assert await run(shared, *ingest) == 0
        twice = server.stats.texts - wanted[1]
        note("two era ingest and a run at once: texts sent twice", twice)
        assert twice <= 3 * CONCURRENCY * BATCH_TEXTS
        assert not differences(picture(shared), wanted[0])
