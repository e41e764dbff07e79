"""Sequences of everything that happens to a corpus, against a plain Python model of what should be there.

A step changes the landing folder or the embedding model, or runs the pipelines: whole, over some books only, anew, or
up to a point where they are stopped dead (by an exception that nothing catches: what was committed by then stays, the
rest is gone, as ``test_kill_worker`` shows for SIGKILL itself). After every step each book is wholly old or wholly
new; after a whole run tables, chunk files and minister files are what the model says.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from era_ingest.pipelines.indexes import refresh_domain_indexes
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.ministers import build_ministers
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest.pipelines.verify import audit_all, is_wrong
from era_ingest.settings import load_settings
from era_ingest.store import books as book_store
from era_ingest.store import embeddings as embedding_store
from era_ingest.store import ministers as minister_store
from era_ingest.store.atomic import PendingFile
from era_ingest.store.chunk_files import ChunkFiles
from era_ingest_tests.faults.kit import Installation, write_book
from era_ingest_tests.faults.scale import short_and_long

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.pipelines.services import Services
    from era_ingest_tests.faults.conftest import Databases

NAMES = st.sampled_from(("alpha", "beta", "gamma", "delta"))
TEXTS = st.sampled_from(tuple(f"Statement {number} holds." for number in range(12)))
CATEGORIES = ("principle", "rule", "claim", "warning")
DIMENSIONS = st.sampled_from((16, 24))
CHAPTER = st.fixed_dictionaries(
    {
        "domains": st.lists(st.sampled_from(("ethics", "war", "trade")), max_size=2, unique=True),
        **{f"{category}s": st.lists(TEXTS, max_size=3) for category in CATEGORIES},
    }
)
BOOK = st.lists(CHAPTER, max_size=3)
POINTS: dict[str, tuple[Any, str]] = {
    "before a book's rows": (book_store, "load_book"),
    "before vectors": (embedding_store, "store_vectors"),
    "before files": (minister_store, "_finish"),
    "before a rename": (PendingFile, "publish"),
    "before a chunk file": (ChunkFiles, "write"),
}

_MEMORY = (
    "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)  # waiting for a disk would be most of the time

Row = tuple[str, int, str, str, tuple[str, ...]]


class DeadError(BaseException):
    """The end of a program."""


@contextmanager
def stopped_at(point: str, number: int) -> Iterator[None]:
    """Let the n-th call of a function end everything."""
    owner, name = POINTS[point]
    original = getattr(owner, name)
    calls = 0

    def count(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise DeadError
        return original(*arguments, **named)

    setattr(owner, name, count)
    try:
        yield
    finally:
        setattr(owner, name, original)


def rows_of(book: str, chapters: list[dict[str, Any]]) -> frozenset[Row]:
    """Return what the table should hold of a book: one row an entry, each once a chapter and category."""
    return frozenset(
        (book, index, category, text, tuple(sorted(chapter["domains"] or ["base"])))
        for index, chapter in enumerate(chapters)
        for category in CATEGORIES
        for text in chapter[f"{category}s"]
    )


class Corpus(RuleBasedStateMachine):
    """The landing folder as it should be, beside a real installation."""

    databases: Databases
    numbers = iter(range(1_000_000))

    def __init__(self) -> None:
        super().__init__()
        self._name = f"sequence_{next(self.numbers)}"
        self._folder = tempfile.TemporaryDirectory(prefix="sequence ", dir=_MEMORY)
        self._installation = Installation(Path(self._folder.name), self.databases.create(self._name))
        self._books: dict[str, list[dict[str, Any]]] = {}
        self._versions: dict[str, set[frozenset[Row]]] = defaultdict(lambda: {frozenset()})
        self._dimensions = 16
        self._writes = 0

    def teardown(self) -> None:
        self.databases.drop(self._name)
        self._folder.cleanup()

    def _write(self, name: str, chapters: list[dict[str, Any]]) -> None:
        self._writes += 1
        numbered = [{"chapter_index": index, **chapter} for index, chapter in enumerate(chapters)]
        write_book(self._installation.landing, name, numbered, version=self._writes)
        self._books[name] = chapters
        self._versions[name].add(rows_of(name, chapters))

    @rule(name=NAMES, chapters=BOOK)
    def add_or_replace(self, name: str, chapters: list[dict[str, Any]]) -> None:
        self._write(name, chapters)

    @precondition(lambda self: self._books)
    @rule(data=st.data(), chapter=CHAPTER)
    def edit(self, data: st.DataObject, chapter: dict[str, Any]) -> None:
        name = data.draw(st.sampled_from(sorted(self._books)))
        self._write(name, [*self._books[name][:-1], chapter])

    @precondition(lambda self: self._books)
    @rule(data=st.data(), new=NAMES)
    def rename(self, data: st.DataObject, new: str) -> None:
        old = data.draw(st.sampled_from(sorted(self._books)))
        landing = self._installation.landing
        (landing / f"{old}.json").rename(landing / f"{new}.json")
        self._books[new] = self._books.pop(old)
        self._versions[new].add(rows_of(new, self._books[new]))

    @precondition(lambda self: self._books)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self._books)))
        (self._installation.landing / f"{name}.json").unlink()
        del self._books[name]

    @rule(dimensions=DIMENSIONS)
    def change_model(self, dimensions: int) -> None:
        self._dimensions = dimensions

    @rule(force=st.booleans())
    def run(self, *, force: bool) -> None:
        asyncio.run(self._run(force=force))
        asyncio.run(self._compare())

    @precondition(lambda self: self._books)
    @rule(data=st.data())
    def backfill(self, data: st.DataObject) -> None:
        some = data.draw(st.sets(st.sampled_from(sorted(self._books)), min_size=1))
        asyncio.run(self._run(some=some))
        asyncio.run(self._look())

    @rule(point=st.sampled_from(sorted(POINTS)), number=st.integers(1, 4))
    def crash(self, point: str, number: int) -> None:
        with stopped_at(point, number):
            try:
                asyncio.run(self._run())
            except BaseException as error:
                if not _is_dead(error):
                    raise
        asyncio.run(self._look())

    def _settings(self) -> Any:
        return load_settings(
            home=self._installation.home,
            database_url=self._installation.database_url,
            landing_dir=self._installation.landing,
            ministers_dir=self._installation.ministers,
            embedder="hashing",
            embed_dimensions=self._dimensions,
            preset="local",
        )

    async def _run(self, *, force: bool = False, some: set[str] | None = None) -> None:
        async with open_services(self._settings()) as services:
            arrivals = await resolve_paths(services, [self._installation.landing], allow_removals=True)
            wanted = [source for source in arrivals.sources if some is None or source.slug in some]
            removed = arrivals.removed if some is None else ()
            report = await ingest_books(services, IngestRequest(tuple(wanted), removed, force=force))
            if report.error is not None:
                raise report.error
            await build_ministers(services)
            await refresh_domain_indexes(services)

    async def _look(self) -> None:
        """Each book is wholly in one of the versions that it had."""
        async with open_services(self._settings()) as services:
            for book, rows in (await _rows(services)).items():
                assert rows in self._versions[book], f"half a book: {book}"

    async def _compare(self) -> None:
        """Everything is as the model says."""
        wanted = {name: rows_of(name, chapters) for name, chapters in self._books.items()}
        async with open_services(self._settings()) as services:
            found = await _rows(services)
            assert found == {name: rows for name, rows in wanted.items() if rows}
            async with services.database.connection() as conn:
                loaded = await (await conn.execute("select slug from era.doctrine_sources")).fetchall()
                models = await (
                    await conn.execute("select dimensions from era.models where active")
                ).fetchall()
            assert {row[0] for row in loaded} == wanted.keys()
            assert set(services.chunk_files.slugs()) == wanted.keys()
            if any(wanted.values()):
                assert models == [(self._dimensions,)]
            assert [finding for finding in await audit_all(services) if is_wrong(finding)] == []
        assert _ministers(self._installation.ministers) == _expected_ministers(wanted)


def _is_dead(error: BaseException) -> bool:
    """Say whether it is the end that was asked for, however deep it lies."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_dead(inner) for inner in error.exceptions)
    return isinstance(error, DeadError)


async def _rows(services: Services) -> dict[str, frozenset[Row]]:
    """Return what the tables hold, by book; a row that stands twice fails."""
    async with services.database.connection() as conn:
        cursor = await conn.execute(
            "select book, chapter, category, text, domains from era.doctrine_embeddings_all"
        )
        rows = [(*row[:4], tuple(sorted(row[4]))) for row in await cursor.fetchall()]
    assert len(rows) == len(set(rows))
    found: dict[str, set[Row]] = defaultdict(set)
    for row in rows:
        found[row[0]].add(row)
    return {book: frozenset(rows) for book, rows in found.items()}


def _expected_ministers(wanted: dict[str, frozenset[Row]]) -> dict[str, set[tuple[str, str, int, str]]]:
    found: dict[str, set[tuple[str, str, int, str]]] = defaultdict(set)
    for rows in wanted.values():
        for book, chapter, category, text, domains in rows:
            for domain in domains:
                found[domain].add((category, book, chapter, text))
    return dict(found)


def _ministers(folder: Path) -> dict[str, set[tuple[str, str, int, str]]]:
    found: dict[str, set[tuple[str, str, int, str]]] = defaultdict(set)
    for category in CATEGORIES:
        for path in folder.glob(f"*/{category}s.json"):
            for entry in json.loads(path.read_bytes())["entries"]:
                source = entry["source"]
                found[path.parent.name].add((category, source["book"], source["chapter"], entry["text"]))
    return dict(found)


@pytest.mark.parametrize("count", short_and_long(50, 2_000))
def test_sequences_come_to_what_the_model_says(databases: Databases, count: int) -> None:
    """Add, edit, rename, delete, backfill, another model, crashes: equal after every step (Hypothesis tells which)."""
    Corpus.databases = databases
    run_state_machine_as_test(
        Corpus,
        settings=settings(
            max_examples=count,
            stateful_step_count=8,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
