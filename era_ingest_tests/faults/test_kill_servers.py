"""SIGKILL of what runs beside the books: daemon, webserver, code server, run worker, ``era ingest``, the database.

Nobody starts anything again by hand: ``era dev`` does, or the embedded server's warden, or the next command, or
whoever looks after a daemon of its own.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from era_ingest.store.embedded import hold, status
from era_ingest_tests.dev_kit import free_port
from era_ingest_tests.faults.fleet import (
    DAEMON,
    RECOVERY_S,
    VICTIMS,
    Dev,
    Program,
    books_loaded,
    eventually,
    running,
    running_dev,
)
from era_ingest_tests.faults.kit import (
    Installation,
    Library,
    differences,
    picture,
    served_by,
    write_book,
    write_corpus,
)
from era_ingest_tests.faults.scale import cases, seeded, short_and_long
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Databases, Forge

PARTS = tuple(kind for kind in VICTIMS if kind != "worker")
SHORT_LIVES, LIFE_S = 5, 31.0
"""``era dev`` gives up after more lives in a row than this that are shorter than half a minute."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", cases(0, 5))
def test_a_killed_part_of_era_dev_comes_back(
    tmp_path: Path, seed: int, note: Callable[[str, float], None]
) -> None:
    """Each part is killed once, in any order; the UI is there again, and a book that arrives then is loaded."""
    rng = random.Random(seed)
    installation = Installation(tmp_path, None, {"ERA_EMBEDDER": "hashing"})
    with running_dev(installation) as dev:
        assert eventually(dev.answers), installation.log.read_text()[-3000:]
        order = rng.sample(PARTS, k=len(PARTS))
        for kind in order:
            old = dev.victims(kind)
            assert old, kind
            begun = time.monotonic()
            for victim in old:
                victim.kill()
            assert eventually(partial(_are_new, dev, kind, old)), f"{kind}, {order}"
            assert eventually(dev.answers), f"{kind}, {order}: {installation.log.read_text()[-3000:]}"
            note(f"era dev: {kind} killed alone: seconds until it is back", time.monotonic() - begun)
        write_book(installation.landing, "arrives", Library(seed).book())
        assert eventually(lambda: dev.books() == {"arrives"}), installation.log.read_text()[-3000:]
    assert not status(installation.home).running


def _are_new(dev: Dev, kind: str, old: set[psutil.Process]) -> bool:
    found = dev.victims(kind)
    return bool(found) and not found & old


@pytest.mark.parametrize("rounds", short_and_long(5, 50, short_s=900))
def test_all_parts_of_era_dev_killed_within_a_second_come_back(
    forge: Forge, tmp_path: Path, rounds: int, note: Callable[[str, float], None]
) -> None:
    """Again and again, in any order, while books arrive: all is there again, and every book is loaded whole."""
    installation = Installation(tmp_path, None, {"ERA_EMBEDDER": "hashing"})
    with seeded() as rng, running_dev(installation) as dev:
        library = Library(rng.random())
        assert eventually(lambda: _is_complete(dev)), installation.log.read_text()[-3000:]
        wanted = {"arrives"}
        for number in range(rounds):
            if rounds > SHORT_LIVES:
                assert eventually(lambda: _has_lived(dev, LIFE_S))
                wanted.add(f"book-{number}")
                write_book(installation.landing, f"book-{number}", library.book(1))
            begun = time.monotonic()
            _kill_all(dev, rng, note)
            assert eventually(lambda: _is_complete(dev)), installation.log.read_text()[-3000:]
            note("era dev: all parts killed at once: seconds until all are back", time.monotonic() - begun)
        write_book(installation.landing, "arrives", library.book(1))
        assert eventually(lambda: dev.books() == wanted, 2 * RECOVERY_S), installation.log.read_text()[-3000:]
        assert eventually(lambda: _is_in_order(forge, installation)), installation.log.read_text()[-3000:]
    assert not status(installation.home).running


def _is_complete(dev: Dev) -> bool:
    return all(dev.victims(kind) for kind in PARTS) and dev.answers()


def _has_lived(dev: Dev, seconds: float) -> bool:
    with suppress(psutil.Error):
        return any(
            "dagster" in part.cmdline() and time.time() - part.create_time() >= seconds
            for part in psutil.Process(dev.process.pid).children()
        )
    return False


def _kill_all(dev: Dev, rng: random.Random, note: Callable[[str, float], None]) -> None:
    """Kill every part in a random order with random gaps; note those that were still alive."""
    victims = [(kind, victim) for kind in PARTS for victim in dev.victims(kind)]
    rng.shuffle(victims)
    for kind, victim in victims:
        time.sleep(rng.uniform(0.0, 0.3))
        with suppress(psutil.NoSuchProcess):
            victim.kill()
            note(f"era dev: {kind} killed among all others", 1)


@pytest.mark.parametrize("rounds", short_and_long(5, 50, short_s=900))
def test_daemon_and_webserver_of_their_own_killed_at_any_time(
    forge: Forge, installation: Installation, databases: Databases, tmp_path: Path, rounds: int
) -> None:
    """Started again by whoever looks after them, all comes to what it would have been."""
    web = ("dagster_webserver", "-m", "era_ingest.definitions", "-h", "127.0.0.1", "-p", str(free_port()))
    undisturbed = Installation(
        tmp_path / "undisturbed", databases.create("undisturbed"), installation.settings
    )
    with seeded() as rng, running(installation, *DAEMON) as daemon, running(installation, *web) as webserver:
        library = Library(rng.random())
        for number in range(rounds):
            name, chapters = f"book-{rng.randrange(6)}", library.book(2)
            for chapter in chapters:  # a domain's date tells of versions in between that had it
                chapter["domains"] = [name]
            for one in (installation, undisturbed):
                write_book(one.landing, name, chapters, version=number)
            for program in rng.sample([daemon, webserver], k=2):
                time.sleep(rng.uniform(0.0, 5.0))
                program.kill_and_restart()
        assert forge.run(undisturbed, "era", "ingest", "-q", str(undisturbed.landing)) == 0
        wanted = picture(undisturbed)
        found: list[str] = []
        assert eventually(lambda: _is_as(installation, wanted, found)), found
    databases.drop("undisturbed")


def _is_as(installation: Installation, wanted: dict[str, Any], found: list[str]) -> bool:
    """Say whether an installation holds what is wanted; note the differences."""
    with suppress(psycopg.Error):  # its tables are not made yet
        found[:] = differences(picture(installation), wanted, but="vectors")
        return not found
    return False


@pytest.mark.parametrize("rounds", short_and_long(1, 20, short_s=900))
async def test_a_killed_worker_of_the_daemon_is_followed_by_another(
    forge: Forge, installation: Installation, rounds: int, note: Callable[[str, float], None]
) -> None:
    """The daemon starts a run, its worker is killed while it embeds: the book is loaded by a run that follows."""
    async with EmbeddingServer(ServerOptions(latency_s=0.5)) as server:
        installation.settings |= served_by(server.url, batch_texts=4, concurrency=2)
        with seeded() as rng, running(installation, *DAEMON) as daemon:
            library = Library(rng.random())
            for number in range(rounds):
                write_book(installation.landing, f"book-{number}", library.book(4))
                await asyncio.to_thread(_kill_worker, daemon, server, rng)
                begun = time.monotonic()
                loaded = partial(_has, installation, f"book-{number}")
                assert await asyncio.to_thread(eventually, loaded), installation.log.read_text()[-3000:]
                note("daemon's worker killed: seconds until its book is loaded", time.monotonic() - begun)
            in_order = partial(_is_in_order, forge, installation)
            assert await asyncio.to_thread(eventually, in_order), installation.log.read_text()[-3000:]


def _is_in_order(forge: Forge, installation: Installation) -> bool:
    """Say whether an audit of tables and minister files against the books finds nothing."""
    return forge.run(installation, "era", "verify") == 0


def _kill_worker(daemon: Program, server: EmbeddingServer, rng: random.Random) -> None:
    """Kill the daemon's next worker some requests after its first."""
    requests = server.stats.requests + rng.randint(1, 6)
    assert eventually(
        lambda: server.stats.requests >= requests, 2 * RECOVERY_S
    )  # a slow start is given up once
    workers = daemon.workers()
    assert workers
    for worker in workers:  # there may be one more, for minister files
        worker.kill()


def _has(installation: Installation, book: str) -> bool:
    return book in books_loaded(installation.database_url)


@pytest.mark.parametrize("seed", cases(5, 50))
def test_era_ingest_killed_leaves_no_server_and_the_next_goes_on(
    forge: Forge, tmp_path: Path, seed: int, embedded_control: dict[str, object]
) -> None:
    """On the embedded server: killed at any time from its start on; the server stops, the next run completes."""
    rng = random.Random(seed)
    installation = Installation(tmp_path, None, {"ERA_EMBEDDER": "hashing"})
    write_corpus(installation.landing, 13)
    if rng.random() < 0.5:
        hold(installation.home).close()  # half of them meet a database that was made before
    command = ("era", "ingest", "-q", str(installation.landing))
    forge.run(installation, *command, kill_after_s=rng.uniform(0.0, 3.0))
    assert eventually(lambda: not status(installation.home).running, 60)
    assert forge.run(installation, *command) == 0, installation.log.read_text()[-3000:]
    assert eventually(lambda: not status(installation.home).running, 60)
    with hold(installation.home) as lease:
        assert not differences(picture(installation, lease.url), embedded_control)


@pytest.fixture(scope="module")
def embedded_control(
    forge: Forge, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, object]]:
    """What the same books come to, undisturbed."""
    url = databases.create("embedded_control")
    installation = Installation(tmp_path_factory.mktemp("control"), url, {"ERA_EMBEDDER": "hashing"})
    write_corpus(installation.landing, 13)
    assert forge.run(installation, "era", "ingest", "-q", str(installation.landing)) == 0
    yield picture(installation)
    databases.drop("embedded_control")
