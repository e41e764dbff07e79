"""The programs that ``era bench ingest`` compares: the bound, ``era ingest``, and whatever peers are named."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import psycopg
from psycopg import sql

from era_ingest.bench.process import Finished, run_process
from era_ingest.bench.reading import PASSAGE_CHARS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PEER_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_RESERVED = ("bound", "era")
_REPLACED = ("ERA_EMBED_API_KEY", "ERA_CHUNKS_URL", "ERA_EMBED_MAX_TOKENS", "ERA_EMBED_MAX_COST")
_VECTOR_COLUMNS = """
    select n.nspname, c.relname, a.attname
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid and c.relkind in ('r', 'p') and not c.relispartition
    join pg_namespace n on n.oid = c.relnamespace
    join pg_type t on t.oid = a.atttypid and t.typname = 'vector'
    where not a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a program works in one run.

    Attributes:
        landing: The landing folder, the same for all programs.
        state: A folder of the program's own; what it leaves there, it finds again later in the same run.
        server_url: The embedding server.
        database_url: The program's own database.
    """

    landing: Path
    state: Path
    server_url: str
    database_url: str

    @property
    def arguments(self) -> list[str]:
        """What bound and peers are given."""
        return [str(self.landing), self.server_url, self.database_url]


class Program(Protocol):
    """Brings a landing folder's texts into a database, with a vector each."""

    @property
    def name(self) -> str:
        """What its figures begin with."""
        ...

    def prepare(self, ground: Ground) -> None:
        """Do what a user does once for a database; the landing folder is empty."""
        ...

    def run(self, ground: Ground) -> Finished:
        """Bring the database up to date with the landing folder."""
        ...

    def told_texts(self, finished: Finished) -> int:
        """How many texts it says it embedded."""
        ...

    def count_rows(self, database_url: str) -> int:
        """Count in the database, as it is now, the texts that have a vector."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """The program written by hand (``era_ingest.bench.bound``).

    Attributes:
        batch_texts: Texts a request.
        in_flight: Requests at once, at most.
    """

    batch_texts: int
    in_flight: int
    name: str = "bound"

    def prepare(self, ground: Ground) -> None:
        """Let it make its table."""
        self.run(ground)

    def run(self, ground: Ground) -> Finished:
        """Run it."""
        command = [sys.executable, "-m", "era_ingest.bench.bound", *ground.arguments]
        command += ["--batch", str(self.batch_texts), "--in-flight", str(self.in_flight)]
        return run_process(command, os.environ, name=self.name)

    def told_texts(self, finished: Finished) -> int:
        """As it printed them."""
        return int(finished.told["texts"])

    def count_rows(self, database_url: str) -> int:
        """Count its table."""
        return _count(database_url, sql.Identifier("public", "bound"), sql.Identifier("embedding"))


@dataclass(frozen=True, slots=True)
class Era:
    """``era ingest``, the whole command.

    Attributes:
        dimensions: Size of the vectors.
        embedder: ``openai``, at the ground's server, or ``hashing``.
    """

    dimensions: int
    name: str = "era"
    embedder: str = "openai"

    def prepare(self, ground: Ground) -> None:
        """Run ``era doctor``: the schema and Dagster's tables."""
        self._era(ground, "doctor", "--json")

    def run(self, ground: Ground) -> Finished:
        """Run ``era ingest`` on the landing folder."""
        return self._era(ground, "ingest", str(ground.landing), "--json", "--quiet")

    def told_texts(self, finished: Finished) -> int:
        """As its summary says."""
        return int(finished.told["texts_embedded"])

    def count_rows(self, database_url: str) -> int:
        """Count the rows that search looks at."""
        table = sql.Identifier("era", "doctrine_embeddings_all")
        return _count(database_url, table, sql.Identifier("embedding"))

    def _era(self, ground: Ground, *arguments: str) -> Finished:
        least, greatest = PASSAGE_CHARS
        mine = {
            "ERA_HOME": str(ground.state / "home"),
            "ERA_DATABASE_URL": ground.database_url,
            "ERA_MINISTERS_DIR": str(ground.state / "ministers"),
            "ERA_LANDING_DIR": str(ground.landing),
            "ERA_EMBEDDER": self.embedder,
            "ERA_EMBED_URL": ground.server_url,
            "ERA_EMBED_MODEL": "bench",
            "ERA_EMBED_DIMENSIONS": str(self.dimensions),
            "ERA_PASSAGES": "on",
            "ERA_PASSAGE_MIN_CHARS": str(least),
            "ERA_PASSAGE_MAX_CHARS": str(greatest),
            "ERA_PASSAGE_OVERLAP_CHARS": "0",
        }
        kept = {name: value for name, value in os.environ.items() if name not in _REPLACED}
        command = [sys.executable, "-m", "era_ingest", *arguments]
        return run_process(command, {**kept, **mine}, name=f"{self.name} {arguments[0]}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Any other program for the same work.

    It is given FOLDER URL DATABASE_URL, brings the database up to date with the folder, ends with 0 and prints
    one JSON object on its last line, with the texts that it embedded as ``texts``. What it has in the database
    is counted: rows of all tables that have a vector of length 1 in a column of the type ``vector``. It may keep
    files in the folder that BENCH_STATE names.

    Attributes:
        name: What its figures begin with.
        command: The program and its first arguments.
        batch_texts: Texts a request; it finds them as BENCH_BATCH.
        in_flight: Requests at once, at most: BENCH_IN_FLIGHT.
        dimensions: Size of the vectors: BENCH_DIMENSIONS.
    """

    name: str
    command: tuple[str, ...]
    batch_texts: int
    in_flight: int
    dimensions: int

    def prepare(self, ground: Ground) -> None:
        """Let it make its tables from the empty folder."""
        self.run(ground)

    def run(self, ground: Ground) -> Finished:
        """Run it."""
        mine = {
            "BENCH_STATE": str(ground.state),
            "BENCH_BATCH": str(self.batch_texts),
            "BENCH_IN_FLIGHT": str(self.in_flight),
            "BENCH_DIMENSIONS": str(self.dimensions),
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("ERA_")}
        return run_process([*self.command, *ground.arguments], {**others, **mine}, name=self.name)

    def told_texts(self, finished: Finished) -> int:
        """As it printed them; -1 if it printed none."""
        told = finished.told.get("texts")
        return told if isinstance(told, int) else -1

    def count_rows(self, database_url: str) -> int:
        """Count whatever has a vector."""
        with psycopg.connect(database_url) as connection:
            columns = connection.execute(_VECTOR_COLUMNS).fetchall()
        return sum(
            _count(database_url, sql.Identifier(schema, table), sql.Identifier(column))
            for schema, table, column in columns
        )


def parse_peers(found: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return commands by name, from ``NAME=COMMAND`` each.

    Raises:
        ValueError: One has another form, no command, or a name that is taken; it says which.
    """
    peers: dict[str, tuple[str, ...]] = {}
    for text in found:
        name, _, command = text.partition("=")
        words = tuple(shlex.split(command))
        if not _PEER_NAME.fullmatch(name) or not words:
            raise ValueError(f"{text!r} is not NAME=COMMAND with a name of a-z, 0-9 and _.")
        if name in _RESERVED or name in peers:
            raise ValueError(f"The name {name!r} is taken.")
        peers[name] = words
    return peers


def _count(database_url: str, table: sql.Identifier, column: sql.Identifier) -> int:
    """Count the rows with a vector of length 1: none is missing, zero or made of NaN."""
    query = sql.SQL("select count(*) from {} where abs(vector_norm({}) - 1) < 0.001").format(table, column)
    with psycopg.connect(database_url) as connection:
        found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0])
