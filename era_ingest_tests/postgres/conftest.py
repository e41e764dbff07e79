"""Fixtures for tests of the embedded server itself: homes of their own, and programs that use them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from era_ingest.store import models, schema
from era_ingest.store.embedded import hold, stop
from era_ingest.store.embedded.layout import Layout
from era_ingest_tests.postgres.store_kit import DIMENSIONS, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from era_ingest.store.database import Database

CLIENT = Path(__file__).with_name("embedded_client.py")


def copy_home(source: Path, target: Path) -> None:
    """Copy a stopped home with its owners (1,300 files: cp takes 0.15 s where shutil takes 2)."""
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", "--", source, target], check=True)


class Client:
    """Another program that holds a server."""

    def __init__(self, home: Path, **options: object) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, str(CLIENT), str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def url(self) -> str:
        """Wait until the program holds the server."""
        line = _stream(self.process.stdout).readline().strip()
        assert line, f"the client ended with {self.process.wait()}"
        return line

    def leave(self) -> None:
        """Let it end in its own way, and wait for that."""
        _stream(self.process.stdin).close()
        assert self.process.wait(60) == 0

    def kill(self) -> None:
        """End it with -9."""
        self.process.kill()
        self.process.wait(10)

    def clean_up(self) -> None:
        """End it, if nobody did, and close its streams."""
        self.kill()
        _stream(self.process.stdout).close()
        with contextlib.suppress(BrokenPipeError):
            _stream(self.process.stdin).close()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@pytest.fixture(scope="session")
def made_home(embedded_homes: Path) -> Path:
    """A home whose database has been made and stopped; copied, never used."""
    home = embedded_homes / "made"
    hold(home, durable=False).close()
    return home


@pytest.fixture
def new_home(embedded_homes: Path) -> Iterator[Path]:
    """A home that does not exist yet; its server is stopped after the test."""
    home = embedded_homes / uuid.uuid4().hex[:8]
    yield home
    stop(home)
    pointer = Layout.of(home).socket_pointer
    if pointer.exists():  # a killed warden leaves the socket's empty folder behind
        shutil.rmtree(pointer.read_text(encoding="ascii"), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home(made_home: Path, new_home: Path) -> Path:
    """A home with a database of its own, not running (a copy costs less than initdb)."""
    copy_home(made_home, new_home)
    return new_home


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    """Start programs that use a server: ``client(home)``."""
    clients: list[Client] = []

    def start(home: Path, **options: object) -> Client:
        clients.append(Client(home, **options))
        return clients[-1]

    yield start
    for one in clients:
        one.clean_up()


@pytest.fixture
async def store(database: Database) -> Store:
    """A database with our schema and an active model of eight dimensions."""
    await schema.migrate(database)
    async with database.connection() as conn:
        model = await models.ensure_model(conn, name="hashing/8", backend="hashing", dimensions=DIMENSIONS)
    return Store(database, model)
