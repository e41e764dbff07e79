"""`era bench load`: our two steps of loading beside a raw binary COPY of the same rows.

*Raw*: one COPY in binary format, in one transaction, of a payload that was put together before the clock
started, into a plain table without keys or checks: id, book, chapter, category, text, hash and vector. Nothing
that stores these rows can be much faster. *Store*: ``store_vectors``, in commits of 1,024, which encodes the
vectors and writes them behind a primary key and a check. *Load*: ``load_book``, a transaction a book, whose rows
go in by COPY and whose vectors the database moves itself.
"""

from __future__ import annotations

import struct
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from psycopg import sql

from era_ingest.bench.measure import Benchmark, collect, load_average
from era_ingest.bench.scratch import scratch_database
from era_ingest.bench.workload import make_sentences
from era_ingest.core.ids import chunk_id, content_hash
from era_ingest.core.model import Category, Chunk
from era_ingest.core.record import BookRecord, FileDigest
from era_ingest.store import embeddings, models, schema
from era_ingest.store.binary import COPY_HEADER, COPY_TRAILER, encode_field
from era_ingest.store.books import BookRows, load_book
from era_ingest.store.chunk_table import build_table
from era_ingest.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    from era_ingest.store.models import Model

COMMIT_ROWS = 1_024
BOOK_ROWS = 1_000
CHAPTER_ROWS = 50
DIMENSIONS = 768
_FIELDS = 7


class Rows(NamedTuple):
    """What is loaded.

    Attributes:
        books: Books with their rows.
        hashes: Hashes of all texts, in the order of ``vectors``.
        vectors: float32[n, d], of unit length.
        payload: The raw table's rows in PostgreSQL's binary COPY format.
    """

    books: tuple[BookRows, ...]
    hashes: tuple[bytes, ...]
    vectors: NDArray[np.float32]
    payload: bytes


async def bench_load(
    server_url: str, *, rows: int = 10_000, runs: int = 5, on_run: Callable[[int], None] = lambda _: None
) -> Benchmark:
    """Measure loading.

    Args:
        server_url: A server that scratch databases may be created on; each run has a fresh one.
        rows: Rows of 768 floats, >= 1.
        runs: Repetitions, >= 1; raw goes first in one, last in the next.
        on_run: Called with each run's number, from 1, when it is done.
    """
    made = make_rows(rows)
    found = []
    for number in range(runs):
        with scratch_database(server_url) as url:
            async with Database.opened(url, max_connections=2) as database:
                found.append(await _measure(database, made, raw_first=number % 2 == 0))
        on_run(number + 1)
    figures = collect(found)
    raw = figures["raw_copy_s"]
    return Benchmark(
        name="load",
        workload={"rows": rows, "dimensions": DIMENSIONS, "books": len(made.books), "runs": runs},
        figures=figures,
        ratios={
            "raw_copy_over_store_vectors": 1 / figures["store_vectors_s"].over(raw),
            "raw_copy_over_load_books": 1 / figures["load_books_s"].over(raw),
            "raw_copy_over_both": 1 / figures["both_s"].over(raw),
        },
        load_average=load_average(),
    )


async def _measure(database: Database, rows: Rows, *, raw_first: bool) -> dict[str, float]:
    await schema.migrate(database)
    async with database.connection() as conn:
        model = await models.ensure_model(conn, name="bench", backend="bench", dimensions=DIMENSIONS)
        await conn.execute(
            sql.SQL(
                "create table public.bench_raw (id uuid, book text, chapter integer, category text, "
                "text text, content_hash bytea, embedding vector({}))"
            ).format(sql.Literal(DIMENSIONS))
        )
    seconds: dict[str, float] = {}
    if raw_first:
        seconds["raw_copy_s"] = await _timed(lambda: _copy_raw(database, rows))
    seconds["store_vectors_s"] = await _timed(lambda: _store(database, model, rows))
    seconds["load_books_s"] = await _timed(lambda: _load(database, model, rows))
    if not raw_first:
        seconds["raw_copy_s"] = await _timed(lambda: _copy_raw(database, rows))
    seconds["both_s"] = seconds["store_vectors_s"] + seconds["load_books_s"]
    return seconds


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _copy_raw(database: Database, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        conn = await stack.enter_async_context(database.connection())
        cursor = await stack.enter_async_context(conn.cursor())
        copy = await stack.enter_async_context(
            cursor.copy("copy public.bench_raw from stdin (format binary)")
        )
        await copy.write(rows.payload)


async def _store(database: Database, model: Model, rows: Rows) -> None:
    for start in range(0, len(rows.hashes), COMMIT_ROWS):
        part = slice(start, start + COMMIT_ROWS)
        async with database.connection() as conn:
            await embeddings.store_vectors(
                conn, model.id, rows.hashes[part], rows.vectors[part], dimensions=DIMENSIONS
            )


async def _load(database: Database, model: Model, rows: Rows) -> None:
    for book in rows.books:
        async with database.connection() as conn:
            await load_book(conn, model, book)


def make_rows(count: int) -> Rows:
    """Return so many rows, the same at each call, in books of at most ``BOOK_ROWS``."""
    sentences = make_sentences(count)
    chunks = [
        _make_chunk(f"bench {place // BOOK_ROWS}", place % BOOK_ROWS, text)
        for place, text in enumerate(sentences)
    ]
    vectors = np.random.default_rng(1).standard_normal((count, DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    books = tuple(_make_book(chunks[start : start + BOOK_ROWS]) for start in range(0, len(chunks), BOOK_ROWS))
    hashes = tuple(chunk.content_hash for chunk in chunks)
    return Rows(books, hashes, vectors, encode_raw(chunks, vectors))


def encode_raw(chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> bytes:
    """Return the raw table's rows in PostgreSQL's binary COPY format (a vector: size, 16 bits, floats)."""
    head = struct.pack(">HH", vectors.shape[1], 0)
    parts = [COPY_HEADER]
    for chunk, vector in zip(chunks, vectors.astype(">f4"), strict=True):
        values = (
            chunk.id.bytes,
            chunk.book.encode(),
            struct.pack(">i", chunk.chapter),
            chunk.category.value.encode(),
            chunk.text.encode(),
            chunk.content_hash,
            head + vector.tobytes(),
        )
        parts += [struct.pack(">h", _FIELDS), *map(encode_field, values)]
    return b"".join((*parts, COPY_TRAILER))


def _make_chunk(book: str, place: int, text: str) -> Chunk:
    chapter = place // CHAPTER_ROWS + 1
    return Chunk(
        id=chunk_id(book, chapter, Category.PRINCIPLE.value, text),
        book=book,
        chapter=chapter,
        category=Category.PRINCIPLE,
        domains=("bench", f"topic-{chapter % 5}"),
        text=text,
        weight=1.0,
        content_hash=content_hash(text),
    )


def _make_book(chunks: Sequence[Chunk]) -> BookRows:
    name = chunks[0].book
    digest: dict[str, Any] = {"size": 1, "mtime_ns": 10**18, "inode": 1, "sha256": "0" * 64}
    record = BookRecord(
        name=name,
        slug=name.replace(" ", "-"),
        title=None,
        root="/bench",
        format="json",
        files=(FileDigest(path=f"/bench/{name}.json", role="book", **digest),),
        processing="bench",
        chapters=chunks[-1].chapter,
        entries=len(chunks),
        passages=0,
    )
    return BookRows(record, build_table(chunks, record=record), "bench", len(chunks), 0)
