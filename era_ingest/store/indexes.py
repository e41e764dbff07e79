"""Indexes for searching: HNSW over all rows of a model's table and over each large domain; one for the words.

Below some 10,000 rows an exact scan is as fast and always right, so there is none. Indexes are built after
the load, without blocking readers or writers, and dropped when a domain has shrunk to half the size. The
index of a domain is partial (``where domains @> array[...]``), so that it is found by its view.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from era_ingest.core.names import MAX_IDENTIFIER_BYTES, DomainName, Identifier
from era_ingest.store.words import DOCUMENT, WORDS_MIN_ROWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from psycopg import AsyncConnection

    from era_ingest.store.database import Database
    from era_ingest.store.models import Model

INDEX_MIN_ROWS = 10_000
MAX_VECTOR_DIMENSIONS = 2_000
"""What an HNSW index takes as ``vector`` (pgvector, HNSW_MAX_DIM)."""
MAX_HALFVEC_DIMENSIONS = 4_000
"""What it takes as ``halfvec``; larger vectors are searched exactly."""
MEMORY_MB = 2_048
"""What building one index takes of the server's memory, at most, 2^20 bytes; a graph that outgrows it is built many
times slower."""
_BUILD_LOCKS = 0x65726106
_LEAST_MEMORY_MB = 64
_GRAPH_BYTES_A_ROW = 600
"""Of a graph in memory besides the vectors: neighbours by level (m is 16), and what each row needs itself."""


class IndexAction(StrEnum):
    """What became of an index."""

    NONE = "none"
    """Too few rows, and none there."""
    KEPT = "kept"
    BUILT = "built"
    DROPPED = "dropped"
    IMPOSSIBLE = "impossible"
    """The vectors are too large for an index."""
    BUSY = "busy"
    """Another program builds it."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What ``ensure_domain_index`` found and did.

    Attributes:
        name: The index's name in the schema ``era``.
        rows: Rows of the domain.
        action: What was done.
    """

    name: str
    rows: int
    action: IndexAction


async def ensure_domain_index(
    db: Database,
    model: Model,
    domain: str | None,
    *,
    min_rows: int = INDEX_MIN_ROWS,
    memory_mb: int = MEMORY_MB,
) -> IndexReport:
    """Build the index of a domain if it has more than ``min_rows`` rows, drop it below half of that.

    Args:
        db: The database; one connection is used outside a transaction.
        model: The model whose table is looked at.
        domain: The domain; None: the index over all rows.
        min_rows: Up to so many rows an exact scan is right, >= 1.
        memory_mb: What building it may take of the server's memory, 2^20 bytes.
    """
    name = index_name(model, domain)
    async with _autocommit(db) as conn:
        rows = await _count(conn, model, domain)
        if model.dimensions > MAX_HALFVEC_DIMENSIONS:
            return IndexReport(name.value, rows, IndexAction.IMPOSSIBLE)
        needed_mb = rows * (4 * model.dimensions + _GRAPH_BYTES_A_ROW) // 2**20
        build = _Build(_ann(model, domain), max(_LEAST_MEMORY_MB, min(needed_mb, memory_mb)))
        return IndexReport(name.value, rows, await _ensure(conn, model, name, build, rows, min_rows))


async def ensure_words_index(db: Database, model: Model, *, min_rows: int = WORDS_MIN_ROWS) -> IndexReport:
    """Build the index of the words of all rows if there are more than ``min_rows``, drop it below half of that.

    Args:
        db: The database; one connection is used outside a transaction.
        model: The model whose table is looked at.
        min_rows: Up to so many rows are read one by one, >= 1.
    """
    name = Identifier(f"vectors_{model.id}_words")
    async with _autocommit(db) as conn:
        rows = await _count(conn, model, None)
        build = _Build(sql.SQL("gin ({})").format(DOCUMENT), _LEAST_MEMORY_MB)
        return IndexReport(name.value, rows, await _ensure(conn, model, name, build, rows, min_rows))


async def _ensure(
    conn: AsyncConnection[Any], model: Model, name: Identifier, build: _Build, rows: int, min_rows: int
) -> IndexAction:
    """Build an index, drop it, or leave it as it is."""
    identifier = sql.Identifier("era", name.value)
    valid = await _is_valid(conn, name)
    if (at_rest := _at_rest(rows, min_rows, valid)) is not None:
        return at_rest
    cursor = await conn.execute("select pg_try_advisory_lock(%s, hashtext(%s))", (_BUILD_LOCKS, name.value))
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return IndexAction.BUSY
    try:
        if valid is not None:  # too few rows by now, or left over from a build that crashed
            await conn.execute(sql.SQL("drop index concurrently if exists {}").format(identifier))
        if rows <= min_rows:
            return IndexAction.DROPPED
        await _build(conn, model, name, build)
    finally:
        await conn.execute("select pg_advisory_unlock(%s, hashtext(%s))", (_BUILD_LOCKS, name.value))
    return IndexAction.BUILT


def settled(model: Model, rows: int, *, min_rows: int, valid: bool | None) -> IndexAction | None:
    """Return what becomes of an ANN index where nothing is to be done; None where it must be built or dropped.

    Args:
        model: The model.
        rows: Rows that the index covers, or would.
        min_rows: Up to so many rows an exact scan is right.
        valid: Whether it can be used; None: it is not there.
    """
    if model.dimensions > MAX_HALFVEC_DIMENSIONS:
        return IndexAction.IMPOSSIBLE
    return _at_rest(rows, min_rows, valid)


def _at_rest(rows: int, min_rows: int, valid: bool | None) -> IndexAction | None:
    if valid and rows >= min_rows / 2:
        return IndexAction.KEPT
    if valid is None and rows <= min_rows:
        return IndexAction.NONE
    return None


async def list_indexes(conn: AsyncConnection[Any], model: Model) -> dict[str, bool]:
    """Return the model's HNSW indexes by name; False for one that is not valid."""
    cursor = await conn.execute(
        """
        select c.relname, i.indisvalid from pg_index as i
        join pg_class as c on c.oid = i.indexrelid
        join pg_am as a on a.oid = c.relam
        where i.indrelid = to_regclass(%s) and a.amname = 'hnsw' order by c.relname
        """,
        (f"era.vectors_{model.id}",),
    )
    return {str(name): bool(valid) for name, valid in await cursor.fetchall()}


def index_name(model: Model, domain: str | None) -> Identifier:
    """Return the name of a domain's index, at most 63 bytes."""
    stem = f"vectors_{model.id}_ann_"
    suffix = "" if domain is None else DomainName(domain).value
    name = stem + suffix if domain is not None else stem.removesuffix("_")
    if len(name) > MAX_IDENTIFIER_BYTES:
        digest = blake2b(suffix.encode(), digest_size=4).hexdigest()
        name = f"{name[: MAX_IDENTIFIER_BYTES - len(digest) - 1]}_{digest}"
    return Identifier(name)


def distance_expression(model: Model) -> tuple[sql.Composable, sql.Composable]:
    """Return what an index is built on (the column; as ``halfvec`` if too large) and its operator class."""
    if model.dimensions <= MAX_VECTOR_DIMENSIONS:
        return sql.SQL("embedding"), sql.SQL("vector_cosine_ops")
    size = sql.Literal(model.dimensions)
    return sql.SQL("(embedding::halfvec({}))").format(size), sql.SQL("halfvec_cosine_ops")


@dataclass(frozen=True, slots=True)
class _Build:
    """How an index is built: ``method (what)``, and with how much memory, 2^20 bytes."""

    using: sql.Composable
    memory_mb: int


def _ann(model: Model, domain: str | None) -> sql.Composed:
    expression, operators = distance_expression(model)
    where = (
        sql.SQL("")
        if domain is None
        else sql.SQL(" where domains @> array[{}]").format(sql.Literal(DomainName(domain).value))
    )
    return sql.SQL("hnsw ({} {}){}").format(expression, operators, where)


async def _build(conn: AsyncConnection[Any], model: Model, name: Identifier, build: _Build) -> None:
    statement = sql.SQL("create index concurrently {name} on {table} using {using}").format(
        name=sql.Identifier(name.value), table=model.table, using=build.using
    )
    drop = sql.SQL("drop index concurrently if exists {}").format(sql.Identifier("era", name.value))
    await conn.execute("select set_config('maintenance_work_mem', %s, false)", (f"{build.memory_mb}MB",))
    try:
        try:
            await conn.execute(statement)
        except errors.DiskFull:
            # Workers share their memory through /dev/shm, of which containers have 64 MB: alone it needs none.
            await conn.execute(drop)
            await conn.execute("set max_parallel_maintenance_workers = 0")
            await conn.execute(statement)
    except errors.Error:
        await conn.execute(drop)
        raise
    finally:
        await conn.execute("reset maintenance_work_mem")
        await conn.execute("reset max_parallel_maintenance_workers")


async def _is_valid(conn: AsyncConnection[Any], name: Identifier) -> bool | None:
    """True: the index can be used; False: a leftover of a crashed build; None: there is none."""
    cursor = await conn.execute(
        "select indisvalid and indisready from pg_index where indexrelid = to_regclass(%s)",
        (f"era.{name}",),
    )
    row = await cursor.fetchone()
    return None if row is None else bool(row[0])


async def _count(conn: AsyncConnection[Any], model: Model, domain: str | None) -> int:
    cursor = await conn.execute(
        sql.SQL(
            """
            select count(*) from {table}
            where embedding is not null and (%(domain)s::text is null or domains @> array[%(domain)s::text])
            """
        ).format(table=model.table),
        {"domain": domain},
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


@asynccontextmanager
async def _autocommit(db: Database) -> AsyncIterator[AsyncConnection[Any]]:
    """Lend a connection outside a transaction: ``concurrently`` asks for that."""
    async with db.connection() as conn:
        await conn.commit()
        await conn.set_autocommit(True)
        try:
            yield conn
        finally:
            if not conn.closed:
                await conn.set_autocommit(False)
