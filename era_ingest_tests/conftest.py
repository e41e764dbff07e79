"""Fixtures for everybody: one real PostgreSQL a session, one fresh database a test."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from era_ingest.store.database import Database
from era_ingest.store.embedded import hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_TEMPLATE = "era_test_template"


def _with_database(url: str, name: str) -> str:
    return url.replace("@/era?", f"@/{name}?", 1)


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A folder for the session's server; its path holds a space and a letter outside ASCII."""
    home = Path(tempfile.mkdtemp(prefix="era tests é "))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def server_url(server_home: Path) -> Iterator[str]:
    """URL of one embedded server for the whole session (no fsync), with a superuser and pgvector at hand."""
    with hold(server_home, durable=False) as lease:
        yield lease.url


@pytest.fixture(scope="session")
def database_template(server_url: str) -> str:
    """Name of a database that holds pgvector and nothing else; never connected to again, so it can be copied."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    with psycopg.connect(_with_database(server_url, _TEMPLATE), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    return _TEMPLATE


def _fresh_database(server_url: str, template: str) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield _with_database(server_url, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(server_url: str, database_template: str) -> Iterator[str]:
    """URL of a fresh database with pgvector, dropped after the test."""
    yield from _fresh_database(server_url, database_template)


@pytest.fixture
def bare_database_url(server_url: str) -> Iterator[str]:
    """URL of a fresh database without pgvector, dropped after the test."""
    yield from _fresh_database(server_url, "template0")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of four connections on a fresh database with pgvector."""
    async with Database.opened(database_url, max_connections=4) as opened:
        yield opened
