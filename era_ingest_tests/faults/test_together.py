"""Two ``era ingest`` beside a run of the daemon on the same books at once."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from era_ingest_tests.faults.conftest import ROOT
from era_ingest_tests.faults.fleet import DAEMON, RECOVERY_S, eventually, running
from era_ingest_tests.faults.kit import SIZING, Installation, differences, picture, served_by, write_corpus
from era_ingest_tests.faults.scale import cases
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
        served_by(server.url, batch_texts=BATCH_TEXTS, concurrency=CONCURRENCY),
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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", cases(1, 10))
async def test_programs_at_once_come_to_what_one_does(
    installation: Installation,
    wanted: tuple[dict[str, Any], int],
    tmp_path: Path,
    seed: int,
    note: Callable[[str, float], None],
) -> None:
    """No deadlock, the same result, and no text is paid for twice beyond those in flight."""
    latency_s = (0.2, 0.5, 0.1)[seed % 3]
    async with EmbeddingServer(ServerOptions(latency_s=latency_s)) as server:
        assert installation.database_url is not None
        shared = build_installation(tmp_path, installation.database_url, server)
        with running(shared, *DAEMON):
            assert await asyncio.to_thread(eventually, lambda: server.stats.requests > 0)
            ingest = ("era_ingest", "ingest", "-q", str(shared.landing))
            codes = await asyncio.gather(run(shared, *ingest), run(shared, *ingest))
            assert list(codes) == [0, 0], shared.log.read_text()[-3000:]
            at_rest = partial(_is_at_rest, shared, wanted[0])
            rests = await asyncio.to_thread(eventually, at_rest, 2 * RECOVERY_S)
            assert rests, shared.log.read_text()[-3000:]
        twice = server.stats.texts - wanted[1]
        note("two era ingest beside a daemon's run: texts sent twice", twice)
        assert twice <= 3 * (CONCURRENCY * BATCH_TEXTS + SIZING)
        assert not differences(picture(shared), wanted[0])


def _is_at_rest(installation: Installation, wanted: dict[str, Any]) -> bool:
    """Say whether the daemon's runs have come to their end, and its last files are there."""
    with psycopg.connect(installation.database_url or "") as connection:
        busy = connection.execute(
            "select count(*) from dagster.runs where status not in ('SUCCESS', 'FAILURE', 'CANCELED')"
        ).fetchone()
    return busy == (0,) and picture(installation)["minister files"].keys() == wanted["minister files"].keys()
