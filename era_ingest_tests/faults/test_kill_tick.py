"""The landing sensor killed with SIGKILL at named points of a tick that asks for a run.

Whoever looks after the daemon starts it again; each version of a book takes effect once, and each text is embedded
once, whatever else arrives in between.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import psycopg
import pytest

from era_ingest_tests.faults.kit import SIZING, Installation, served_by, write_book
from era_ingest_tests.faults.scale import cases
from era_ingest_tests.faults.sensor_tick import AT_REST, POINTS
from era_ingest_tests.servers import EmbeddingServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Forge

KILLED = -9
SHORT = ("looked", "partitions", "reserved", "created", "ended")
MOST_TICKS = 6
"""To rest: one for each run, one that finds nothing to do, and what a kill may cost."""


class Shelf:
    """A landing folder, what should come of it, and all texts that were ever to be loaded."""

    def __init__(self, landing: Path) -> None:
        self._landing = landing
        self.books: dict[str, set[str]] = {}
        self.texts: set[str] = set()

    def write(self, name: str, version: int) -> None:
        """Add a book, or another version of one."""
        texts = [f"The constant rule of {name}.", f"Rule {version} of {name}."]
        write_book(self._landing, name, [{"chapter_index": 1, "rules": texts}], version=version)
        self.books[name] = set(texts)
        self.texts |= self.books[name]

    def remove(self, name: str) -> None:
        """Remove a book."""
        (self._landing / f"{name}.json").unlink()
        del self.books[name]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=[] if point in SHORT else pytest.mark.slow) for point in POINTS]
)
@pytest.mark.parametrize("seed", cases(1, 10))
async def test_a_tick_killed_at_a_named_point(
    forge: Forge,
    dagster_database_url: str,
    tmp_path: Path,
    point: str,
    seed: int,
    note: Callable[[str, float], None],
) -> None:
    """The next ticks come to what the folder holds, by one run for each state of it that was seen."""
    rng = random.Random(f"{point} {seed}")
    async with EmbeddingServer() as server:
        settings = served_by(server.url, batch_texts=8, concurrency=2)
        installation = Installation(tmp_path, dagster_database_url, settings)
        shelf = Shelf(installation.landing)
        for number in range(3):
            shelf.write(f"book-{number}", 0)
        states = 1
        if rng.random() < 0.5:  # half of the killed ticks are not the first
            assert await _rest(forge, installation)
            states += 1
            shelf.write("book-1", 1)
            shelf.remove("book-2")
            shelf.write("another", 1)
        assert await _tick(forge, installation, point) == KILLED, installation.log.read_text()[-3000:]
        if rng.random() < 0.5:
            states += 1
            shelf.write("late", 2)
        if rng.random() < 0.3:  # whoever starts it again has no luck either
            await _tick(forge, installation, rng.choice(list(POINTS)))
        ticks = await _rest(forge, installation)
        assert ticks, installation.log.read_text()[-3000:]
        note("tick of the landing sensor killed: ticks until all is loaded", ticks)
        assert _loaded(dagster_database_url) == shelf.books
        assert server.stats.texts - SIZING == len(shelf.texts)
        runs = _runs(dagster_database_url)
        assert set(runs) == {"SUCCESS"}, runs
        assert len(runs) <= states, runs


async def _tick(forge: Forge, installation: Installation, point: str) -> int:
    _, _, number = POINTS[point]
    return await forge.arun(installation, "tick", point=point, number=number)


async def _rest(forge: Forge, installation: Installation) -> int:
    """Tick and run until nothing is due; return after how many ticks, 0: there is no rest."""
    for count in range(1, MOST_TICKS + 1):
        code = await forge.arun(installation, "tick", "work")
        if code == AT_REST:
            return count
        assert code == 0, installation.log.read_text()[-3000:]
    return 0


def _loaded(url: str) -> dict[str, set[str]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("select book, text from era.doctrine_embeddings_all").fetchall()
    found: dict[str, set[str]] = {}
    for book, text in rows:
        found.setdefault(book, set()).add(text)
    return found


def _runs(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("select status from dagster.runs")]
