"""The pool: search path, vector types, commit and rollback, and what faults become."""

from __future__ import annotations

import asyncio
import pickle
import socket
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg.vector import VectorBinaryDumper, VectorDumper
from psycopg import sql

from era_ingest.errors import ConfigurationError, StoreUnavailableError
from era_ingest.store.database import Database
from era_ingest.store.embedded import hold
from era_ingest.store.failures import connection_error, place

if TYPE_CHECKING:
    from pathlib import Path


async def one(connection: psycopg.AsyncConnection[Any], query: str) -> Any:
    """Return the one value of a query."""
    row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return row[0]


async def test_connections_know_the_schema_and_vectors(database: Database) -> None:
    """A lent connection looks into era, then public, bears our name, and speaks vectors as numpy arrays."""
    async with database.connection() as connection:
        assert await one(connection, "SHOW search_path") == "era, public"
        assert await one(connection, "SHOW application_name") == "era_ingest"
        vector = await one(connection, "SELECT '[1,2]'::vector")
    assert np.array_equal(vector.to_numpy(), [1.0, 2.0])


async def test_vectors_are_known_as_soon_as_the_extension_is(bare_database_url: str) -> None:
    """A pool that was open before pgvector was created speaks it afterwards."""
    async with Database.opened(bare_database_url, max_connections=1) as database:
        async with database.connection() as connection:
            await connection.execute("CREATE EXTENSION vector")
        async with database.connection() as connection:
            vector = await one(connection, "SELECT '[1,2]'::vector")
    assert np.array_equal(vector.to_numpy(), [1.0, 2.0])


async def test_a_context_is_a_transaction(database: Database) -> None:
    """What was done is there after the context, and none of it after an error."""
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE t (n int)")
    with pytest.raises(ValueError, match="enough"):
        await _insert_and_fail(database)
    async with database.connection() as connection:
        assert await one(connection, "SELECT count(*) FROM t") == 0


async def _insert_and_fail(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("INSERT INTO t VALUES (1)")
        raise ValueError("enough")


async def test_a_wrong_statement_stays_psycopgs_error(database: Database) -> None:
    """Only failures of the server are translated."""
    with pytest.raises(psycopg.errors.UndefinedTable):
        async with database.connection() as connection:
            await connection.execute("SELECT * FROM nothing")


async def test_a_cut_connection_is_a_store_error_and_replaced(database: Database) -> None:
    """Whose connection is cut gets a transient error; whoever comes next gets a good one."""
    with pytest.raises(StoreUnavailableError, match="is not available"):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with database.connection() as connection:
        assert await one(connection, "SELECT 1") == 1


async def test_idle_connections_that_died_are_found_out(database: Database, database_url: str) -> None:
    """All connections of the pool are cut while idle: the next users do not notice."""
    async with database.connection(), database.connection():
        pass
    with psycopg.connect(database_url) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    async with database.connection() as first, database.connection() as second:
        assert await one(first, "SELECT 1") == await one(second, "SELECT 1") == 1


async def test_busy_connections_are_waited_for_with_a_bound(database_url: str) -> None:
    """A caller who gets no connection in time is told that all are busy, not that the server is away."""
    async with (
        await Database.open(database_url, max_connections=1, timeout_s=0.05) as database,
        database.connection(),
    ):
        with pytest.raises(StoreUnavailableError, match=r"All 1 connections .* are busy"):
            async with database.connection():
                pass


async def test_a_closed_pool_says_so(database_url: str) -> None:
    """Use after close is an error of ours."""
    database = await Database.open(database_url, max_connections=1)
    await database.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        async with database.connection():
            pass


async def test_nobody_answers(unused_tcp_port: int) -> None:
    """The error names host and port and never the password."""
    url = f"postgresql://me:s3cret@127.0.0.1:{unused_tcp_port}/books"
    with pytest.raises(StoreUnavailableError) as caught:
        await Database.open(url, max_connections=1)
    assert f'database "books" at 127.0.0.1:{unused_tcp_port}' in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(pickle.loads(pickle.dumps(caught.value)))


async def test_a_server_that_accepts_and_is_silent() -> None:
    """A connection that hangs ends at connect_timeout; the URL's own value counts."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://me@127.0.0.1:{port}/books?connect_timeout=2"
        async with asyncio.timeout(8):
            with pytest.raises(StoreUnavailableError, match="timeout"):
                await Database.open(url, max_connections=1)


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql://h/d?nonsense=1"])
async def test_no_url(url: str) -> None:
    """What psycopg cannot read as a URL is a matter for a person."""
    with pytest.raises(ConfigurationError, match="ERA_DATABASE_URL is no PostgreSQL URL"):
        await Database.open(url, max_connections=1)


async def test_a_database_that_does_not_exist(server_url: str) -> None:
    """A wrong database name is a matter for a person."""
    with pytest.raises(ConfigurationError, match="refuses the login"):
        await Database.open(server_url.replace("@/era?", "@/nowhere?"), max_connections=1)


async def test_a_wrong_password(home: Path) -> None:
    """A wrong password is a matter for a person, and is not shown; the right one works."""
    folder = home / "postgres"
    (folder / "hba.conf").write_text("local all era trust\nlocal all all scram-sha-256\n", encoding="utf-8")
    (folder / "custom.conf").write_text("hba_file = '../hba.conf'\n", encoding="utf-8")
    for name in ("hba.conf", "custom.conf"):
        (folder / name).chmod(0o644)
    with hold(home, durable=False) as lease:
        with psycopg.connect(lease.url) as connection:
            connection.execute(sql.SQL("CREATE ROLE app LOGIN PASSWORD {}").format("r1ght"))
        url = lease.url.replace("//era@", "//app:wr0ng@")
        with pytest.raises(ConfigurationError, match="refuses the login") as caught:
            await Database.open(url, max_connections=1)
        assert "wr0ng" not in str(caught.value)
        async with (
            Database.opened(url.replace("wr0ng", "r1ght"), max_connections=1) as database,
            database.connection() as connection,
        ):
            assert await one(connection, "SELECT current_user") == "app"


async def test_a_server_that_starts_up_is_waited_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says it is starting up is asked again, for a minute."""
    connect = psycopg.AsyncConnection.connect
    pauses: list[float] = []

    async def starting(*args: Any, **options: Any) -> Any:
        if len(pauses) < 3:
            raise psycopg.OperationalError("FATAL:  the database system is starting up")
        return await connect(*args, **options)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", starting)
    database = await Database.open(database_url, max_connections=1, clock=lambda: 0.0, sleep=sleep)
    await database.close()
    assert len(pauses) == 3

    now = iter([0.0, 61.0])
    pauses.clear()
    with pytest.raises(StoreUnavailableError, match="starting up"):
        await Database.open(database_url, max_connections=1, clock=lambda: next(now), sleep=sleep)


def test_a_full_disk_is_named() -> None:
    """SQLSTATE 53100 says what to free."""
    error = connection_error(psycopg.errors.DiskFull("could not extend file"), "postgresql://h/d")
    assert isinstance(error, StoreUnavailableError)
    assert "disk" in str(error)


def test_places_hide_who_logs_in() -> None:
    """A place names host, port and database only."""
    assert place("postgresql://me:pw@h:1/d") == 'database "d" at h:1'
    assert place("postgresql:///d?host=/run/x") == 'database "d" at /run/x:5432'
    assert "pw" not in place("nonsense pw")


async def test_connections_leave_no_classes_behind(database_url: str) -> None:
    """Each is taught pgvector's types; an hour of runs opens thousands of connections in one process."""

    def known() -> int:
        return len(VectorDumper.__subclasses__()) + len(VectorBinaryDumper.__subclasses__())

    counts = []
    for _ in range(3):
        async with Database.opened(database_url, max_connections=2) as opened, opened.connection() as conn:
            row = await (await conn.execute("select '[1,2]'::vector")).fetchone()
            assert row is not None
            assert row[0].to_list() == [1.0, 2.0]
        counts.append(known())
    assert counts[0] == counts[1] == counts[2]
