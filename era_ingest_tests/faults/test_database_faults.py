"""PostgreSQL in trouble while books are loaded: the same program goes on, soon after the trouble is over.

Each test is one ``era ingest`` that meets the same trouble five times. It must end with 0, hold what an undisturbed
one holds, and store vectors again within ten seconds of the database's being well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from era_ingest.store.books import _BOOK_LOCKS
from era_ingest.store.embedded import hold, status
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.faults.kit import Installation, differences, picture, served_by, write_corpus
from era_ingest_tests.faults.scale import cases
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Forge

TIMES = 5
BACK_AT_WORK_S = 10.0
CORPUS = 12
DOMAINS = ("decision_making", "ethics", "gardening", "power", "trade", "war")
TEXTS_A_REQUEST = 4
LATENCY_S = 0.1
CONNECTIONS = 16


@dataclass
class Server:
    """An embedded server of the tests' own, which they may mistreat.

    Attributes:
        home: Its ERA_HOME.
        url: Of a database of the installation under test.
    """

    home: Path
    url: str

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, options="-c statement_timeout=0")

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def texts(self) -> int:
        """Return how many vectors are stored; -1 while the server is away."""
        try:
            return int(self.ask("select count(*) from era.embeddings")[0][0])
        except psycopg.Error:
            return -1

    def set_everywhere(self, name: str, value: str | None) -> None:
        """Change a setting of all sessions, now; None: back to what it was."""
        with self.connect() as connection:
            connection.execute("set default_transaction_read_only = off")
            what = sql.SQL("alter system reset {}").format(sql.Identifier(name))
            if value is not None:
                what = sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value))
            connection.execute(what)
            connection.execute("select pg_reload_conf()")


async def restart(server: Server, rng: random.Random) -> None:
    """Stop at once (SIGQUIT), as ``pg_ctl restart -m immediate`` does; start again a moment later."""
    pid = status(server.home).pid
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    await asyncio.sleep(rng.uniform(0.0, 2.0))
    lease = await asyncio.to_thread(hold, server.home, durable=False)
    lease.close()


async def crash(server: Server, _: random.Random) -> None:
    """Kill the server's main process; its warden starts it again."""
    pid = status(server.home).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(Waiter().until, lambda: server.texts() >= 0, 60.0)


async def kill_backends(server: Server, rng: random.Random) -> None:
    """Terminate every session of the program, several times."""
    for _ in range(rng.randint(1, 5)):
        await asyncio.to_thread(
            server.ask,
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'era%'",
        )
        await asyncio.sleep(rng.uniform(0.0, 0.2))


async def exhaust(server: Server, rng: random.Random) -> None:
    """Take every connection that there is, the program's own too, for a while."""
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(_take_all, server, stack)
        await asyncio.sleep(rng.uniform(0.2, 2.0))


def _take_all(server: Server, stack: contextlib.ExitStack) -> None:
    mine = stack.enter_context(server.connect())
    while _of_the_program(mine):
        mine.execute(f"select pg_terminate_backend(pid) {_PROGRAM}".encode())
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(server.connect())


_PROGRAM = "from pg_stat_activity where application_name like 'era%'"


def _of_the_program(connection: psycopg.Connection[Any]) -> bool:
    return connection.execute(f"select {_PROGRAM}".encode()).rowcount > 0


async def deadlock(server: Server, _: random.Random) -> None:
    """Hold what a load needs last, and ask for what it has first, once it waits for us: it is to give way."""
    await asyncio.to_thread(_cross, server)


def _cross(server: Server) -> None:
    domains = ", ".join(f"('{name}')" for name in DOMAINS)
    blocked = """
        select classid::bigint::int, (objid::bigint::bit(32))::int from pg_locks
        where locktype = 'advisory' and classid = %s and granted and pg_backend_pid() = any(pg_blocking_pids(pid))
    """
    with server.connect() as connection, connection.transaction():
        connection.execute("set local deadlock_timeout = '60s'")
        connection.execute(
            f"insert into era.domains (domain) values {domains} on conflict do nothing".encode()
        )
        connection.execute("select from era.domains for update")
        for _ in Waiter().attempts(5.0):
            if locks := connection.execute(blocked, (_BOOK_LOCKS,)).fetchall():
                connection.execute("select pg_advisory_xact_lock(%s, %s)", locks[0])
                return


async def read_only(server: Server, rng: random.Random) -> None:
    """Make every transaction read-only, as a standby that is being promoted is."""
    await asyncio.to_thread(server.set_everywhere, "default_transaction_read_only", "on")
    await asyncio.sleep(rng.uniform(0.2, 2.0))
    await asyncio.to_thread(server.set_everywhere, "default_transaction_read_only", None)


async def statement_timeout(server: Server, rng: random.Random) -> None:
    """Hold the embedding store's table, and let everybody's statements run out of time over it."""
    await asyncio.to_thread(server.set_everywhere, "statement_timeout", "100ms")
    async with await psycopg.AsyncConnection.connect(server.url) as connection:
        await connection.execute("set statement_timeout = 0")
        await connection.execute("lock table era.embeddings in access exclusive mode")
        await asyncio.sleep(rng.uniform(0.2, 2.0))
    await asyncio.to_thread(server.set_everywhere, "statement_timeout", None)


TROUBLES = (restart, crash, kill_backends, exhaust, deadlock, read_only, statement_timeout)


@pytest.fixture(scope="module")
def mistreated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """ERA_HOME of a server with few connections, prepared: Dagster's tables in a database to copy."""
    from era_ingest.orchestration.storage import PostgresStorage

    home = tmp_path_factory.mktemp("mistreated")
    (home / "pg").mkdir()
    (home / "pg" / "custom.conf").write_text(f"max_connections = {CONNECTIONS}\n")
    (home / "pg" / "custom.conf").chmod(0o644)
    with hold(home, durable=False) as lease:
        with psycopg.connect(lease.url, autocommit=True) as connection:
            connection.execute("create database prepared template template0")
        url = lease.url.replace("@/era?", "@/prepared?", 1)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create extension vector")
        PostgresStorage(url)
        yield home


@pytest.fixture
def server(mistreated: Path, tmp_path: Path) -> Iterator[Server]:
    """The server with a fresh database for one installation."""
    with hold(mistreated, durable=False) as lease:
        name = f"t_{time.monotonic_ns()}"
        with psycopg.connect(lease.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} template prepared").format(sql.Identifier(name)))
        yield Server(mistreated, lease.url.replace("@/era?", f"@/{name}?", 1))
        with psycopg.connect(lease.url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def build_installation(folder: Path, url: str, embeddings: EmbeddingServer) -> Installation:
    installation = Installation(
        folder,
        url,
        served_by(embeddings.url, batch_texts=TEXTS_A_REQUEST, concurrency=2),
    )
    write_corpus(installation.landing, CORPUS)
    return installation


async def ingest(forge: Forge, installation: Installation) -> int:
    return await forge.arun(installation, "era", "ingest", "-q", str(installation.landing))


@pytest.fixture(scope="module")
def undisturbed(forge: Forge, mistreated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an installation holds that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")

    async def play() -> dict[str, Any]:
        with hold(mistreated, durable=False) as lease:
            url = lease.url
            async with EmbeddingServer() as embeddings:
                installation = build_installation(folder, url, embeddings)
                assert await ingest(forge, installation) == 0
                return picture(installation)

    return asyncio.run(play())


async def grown(server: Server, before: int, program: asyncio.Task[int]) -> bool:
    """Wait until more vectors are stored than before; False if the program ended first."""
    while not program.done():
        if await asyncio.to_thread(server.texts) > before:
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
@pytest.mark.parametrize("seed", cases(1, 10))
async def test_a_load_goes_on_after(
    trouble: Callable[[Server, random.Random], Awaitable[None]],
    seed: int,
    forge: Forge,
    server: Server,
    tmp_path: Path,
    undisturbed: dict[str, Any],
    note: Callable[[str, float], None],
) -> None:
    """Five times the same trouble in one load: it ends well, and is back at work within ten seconds."""
    rng = random.Random(f"{trouble.__name__} {seed}")
    slowest = 0.0
    async with EmbeddingServer(ServerOptions(latency_s=LATENCY_S)) as embeddings:
        installation = build_installation(tmp_path, server.url, embeddings)
        program = asyncio.create_task(ingest(forge, installation))
        met = 0
        for _ in range(TIMES):
            before = await asyncio.to_thread(server.texts)
            if not await grown(server, before + rng.randint(0, 20), program):
                break
            await trouble(server, rng)
            met += 1
            well_at, had = time.monotonic(), await asyncio.to_thread(server.texts)
            if not await grown(server, had, program):
                break
            slowest = max(slowest, time.monotonic() - well_at)
            note(f"database: {trouble.__name__}: seconds until back at work", time.monotonic() - well_at)
        code = await program
        if code != 0:  # the trouble met the recording of the run, and what was written is not known
            note(f"database: {trouble.__name__}: loads that took one more run", 1)
            code = await ingest(forge, installation)
    if trouble is deadlock:
        asked = server.ask("select deadlocks from pg_stat_database where datname = current_database()")
        assert asked[0][0] >= 1
    assert code == 0, installation.log.read_text()[-3000:]
    assert met >= 2
    assert not differences(picture(installation), undisturbed)
    assert slowest <= BACK_AT_WORK_S
