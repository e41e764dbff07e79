"""Fixtures for everybody: one real PostgreSQL a session, one fresh database a test, nothing left behind."""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
from psycopg import sql

from era_ingest.settings import load_settings
from era_ingest.store.database import Database
from era_ingest.store.embedded import hold
from era_ingest.store.embedded.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dagster import DagsterInstance

_LEAVE_TIMEOUT_S = 60.0


def pytest_configure() -> None:
    """Take Ctrl-C as usual, also as a shell's background job: the programs that tests start inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no process has one left when the others have nothing to do."""
    items.sort(key=lambda item: "faults" not in item.path.parts)


def servers_below(*folders: Path) -> list[psutil.Process]:
    """Return the embedded servers' main processes and wardens whose data lies below one of the folders."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        command = process.info["cmdline"] or []
        ours = process.info["name"].startswith("postgres") or any("warden.py" in part for part in command)
        if ours and any(str(folder) in part for part in command for folder in folders):
            found.append(process)
    return found


@pytest.fixture(scope="session", autouse=True)
def embedded_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the embedded servers of the session.

    At the end none of them may be running, nor any that a test started below its ``tmp_path``. The folder's
    path holds a space and a letter outside ASCII, and it is closed to other users.
    """
    folder = Path(tempfile.mkdtemp(prefix="era tests é ")).resolve()
    yield folder
    places = (folder, tmp_path_factory.getbasetemp())
    all_gone = Waiter().until(lambda: not servers_below(*places), _LEAVE_TIMEOUT_S)
    left = [] if all_gone else [process.info["cmdline"] for process in servers_below(*places)]
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"servers left behind: {left}"


@pytest.fixture(scope="session")
def server_url(embedded_homes: Path) -> Iterator[str]:
    """URL of one embedded server for the whole session (no fsync), with a superuser and pgvector at hand."""
    with hold(embedded_homes / "session", durable=False) as lease:
        yield lease.url


def _with_database(url: str, name: str) -> str:
    return url.replace("@/era?", f"@/{name}?", 1)


def _create(server_url: str, name: str, template: str) -> str:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return _with_database(server_url, name)


def _fresh(server_url: str, template: str) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    yield _create(server_url, name, template)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def database_template(server_url: str) -> str:
    """Name of a database that holds pgvector and nothing else; it is copied, never used."""
    with psycopg.connect(
        _create(server_url, "template_pgvector", "template0"), autocommit=True
    ) as connection:
        connection.execute("CREATE EXTENSION vector")
    return "template_pgvector"


@pytest.fixture(scope="session")
def dagster_template(server_url: str, database_template: str) -> str:
    """Name of a database that holds pgvector and Dagster's empty tables; it is copied, never used."""
    from era_ingest.orchestration.storage import PostgresStorage

    PostgresStorage(_create(server_url, "template_dagster", database_template))
    return "template_dagster"


@pytest.fixture
def database_url(server_url: str, database_template: str) -> Iterator[str]:
    """URL of a fresh database with pgvector, dropped after the test."""
    yield from _fresh(server_url, database_template)


@pytest.fixture
def bare_database_url(server_url: str) -> Iterator[str]:
    """URL of a fresh database without pgvector, dropped after the test."""
    yield from _fresh(server_url, "template0")


@pytest.fixture
def dagster_database_url(server_url: str, dagster_template: str) -> Iterator[str]:
    """URL of a fresh database with pgvector and Dagster's tables (0.7 s less than making them)."""
    yield from _fresh(server_url, dagster_template)


@pytest.fixture(scope="module")
def module_dagster_database_url(server_url: str, dagster_template: str) -> Iterator[str]:
    """Likewise, one for all tests of a module, which leave it as it is."""
    yield from _fresh(server_url, dagster_template)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of four connections on a fresh database with pgvector."""
    async with Database.opened(database_url, max_connections=4) as opened:
        yield opened


@pytest.fixture
def dagster_instance(
    dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DagsterInstance]:
    """The project's Dagster instance on a fresh database; ERA_HOME is ``tmp_path / "home"``."""
    from era_ingest.orchestration.instance import open_instance

    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("ERA_DATABASE_URL", dagster_database_url)
    monkeypatch.setenv("ERA_HOME", str(tmp_path / "home"))
    with open_instance(load_settings()) as instance:
        yield instance
