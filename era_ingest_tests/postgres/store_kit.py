"""Books, vectors and an open store for the tests of the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from era_ingest.core.ids import chunk_id, content_hash
from era_ingest.core.model import Category, Chunk, Defect
from era_ingest.core.names import book_slug
from era_ingest.core.record import BookRecord, FileDigest
from era_ingest.store import embeddings
from era_ingest.store.books import LoadCounts, load_book
from era_ingest.store.chunk_table import BookRows, build_table, hashes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from era_ingest.store.database import Database
    from era_ingest.store.models import Model

DIMENSIONS = 8
MTIME_S = 1_700_000_000
"""2023-11-14T22:13:20Z."""

Statement = tuple[Category, str]


@dataclass(frozen=True)
class ChapterPlan:
    """A chapter of a made-up book."""

    domains: tuple[str, ...]
    entries: tuple[Statement, ...]
    passages: tuple[str, ...] = ()
    title: str | None = None
    weight: float = 1.0


def chapter(
    number: int, *domains: str, statements: int = 4, passages: int = 1, **changes: Any
) -> ChapterPlan:
    """Return a chapter with statements of all categories, all texts different."""
    categories = [Category.PRINCIPLE, Category.RULE, Category.CLAIM, Category.WARNING]
    return ChapterPlan(
        domains=tuple(sorted(domains)) or ("base",),
        entries=tuple((categories[n % 4], f"Statement {n} of chapter {number}") for n in range(statements)),
        passages=tuple(f"Passage {n} of chapter {number}, at some length" for n in range(passages)),
        title=f"Chapter {number}",
        **changes,
    )


def rows(
    name: str,
    chapters: Sequence[ChapterPlan],
    *,
    mtime_s: int = MTIME_S,
    defects: Sequence[Defect] = (),
    run_id: str = "run-1",
) -> BookRows:
    """Return a book as the chunker would hand it to the store."""
    chunks = []
    for index, plan in enumerate(chapters):
        for category, text in plan.entries:
            chunks.append(_chunk(name, index, plan, category, text, None))
        for position, text in enumerate(plan.passages):
            chunks.append(_chunk(name, index, plan, Category.PASSAGE, text, position * 100))
    content = repr((name, chapters, defects)).encode()
    digest = FileDigest(
        path=f"/landing/{name}/02_doctrine.json",
        role="doctrine",
        size=len(content),
        mtime_ns=mtime_s * 10**9,
        inode=1,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    entries = sum(len(plan.entries) for plan in chapters)
    record = BookRecord(
        name=name,
        slug=book_slug(name),
        title=None,
        root="/landing",
        format="doctrine",
        files=(digest,),
        processing="p1",
        chapters=len(chapters),
        entries=entries,
        passages=len(chunks) - entries,
        defects=tuple(defects),
    )
    titles = {index: plan.title for index, plan in enumerate(chapters)}
    return BookRows(record, build_table(chunks, titles=titles, record=record), run_id, len(chunks), 0)


def _chunk(
    name: str, index: int, plan: ChapterPlan, category: Category, text: str, start: int | None
) -> Chunk:
    return Chunk(
        id=chunk_id(name, index, category.value, text),
        book=name,
        chapter=index,
        category=category,
        domains=plan.domains,
        text=text,
        weight=plan.weight,
        content_hash=content_hash(text),
        start=start,
        end=None if start is None else start + len(text),
    )


def vectors(hashes: Sequence[bytes], dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """Return unit vectors that follow from the hashes."""
    array = np.stack(
        [np.random.default_rng(list(h)).standard_normal(dimensions, dtype=np.float32) for h in hashes]
    )
    unit: NDArray[np.float32] = array / np.linalg.norm(array, axis=1, keepdims=True)
    return unit


@dataclass(frozen=True)
class Store:
    """A migrated database with one active model."""

    database: Database
    model: Model

    async def embed(
        self, book: BookRows, *, model: Model | None = None, without: Sequence[bytes] = ()
    ) -> int:
        """Store vectors for the texts of a book."""
        chosen = model or self.model
        hashes = [h for h in hashes_of(book.table) if h not in without]
        async with self.database.connection() as conn:
            return await embeddings.store_vectors(conn, chosen.id, hashes, vectors(hashes, chosen.dimensions))

    async def load(self, book: BookRows, *, model: Model | None = None, rewrite: bool = False) -> LoadCounts:
        """Embed and load a book."""
        await self.embed(book, model=model)
        async with self.database.connection() as conn:
            return await load_book(conn, model or self.model, book, rewrite=rewrite)

    async def fetch(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a query in a transaction of its own."""
        async with self.database.connection() as conn:
            cursor = await conn.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

    async def value(self, query: str, *values: Any) -> Any:
        """Return the one value of a query."""
        return (await self.fetch(query, *values))[0][0]

    async def row_versions(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row's version (xmin) of what a load writes: what is equal was not written."""
        tables = (
            f"vectors_{self.model.id}",
            "doctrine_sources",
            "book_models",
            "domains",
            "quarantine",
            "embeddings",
        )
        return {
            table: await self.fetch(f"select ctid::text, xmin::text from era.{table}") for table in tables
        }
