"""The rows nearest to a vector: the statement, and what the planner needs for it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql
from psycopg.rows import class_row

from era_ingest.errors import ResponseMismatchError
from era_ingest.store.hits import HIT_COLUMNS, Hit
from era_ingest.store.indexes import MAX_VECTOR_DIMENSIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import AsyncConnection

    from era_ingest.store.hits import Question
    from era_ingest.store.models import Model

_SPARE = 10
_EF_SEARCH_LEAST = 200
_EF_SEARCH_MOST = 1_000
_MAX_SCAN_TUPLES = 100_000


async def nearest(
    conn: AsyncConnection[Any],
    model: Model,
    literal: str,
    question: Question,
    *,
    exact: bool,
    timeout_s: float | None,
) -> list[Hit]:
    """Return rows by distance, enough for ``k`` distinct texts however often a text is repeated.

    Args:
        conn: A connection in a transaction, whose settings are changed until its end.
        model: The model whose table is read.
        literal: The vector; see `vector_literal`.
        question: The filters.
        exact: Read no ANN index.
        timeout_s: How long each statement of the transaction may take from here on, seconds; None: any time.
    """
    await _configure(conn, question, exact=exact, timeout_s=timeout_s)
    statement = _statement(model, question, exact=exact)
    values = {**asdict(question), "vector": literal}
    limit = question.k + _SPARE
    while True:
        async with conn.cursor(row_factory=class_row(Hit)) as cursor:
            # Not prepared: the planner must see the domain, or it cannot match a partial index.
            await cursor.execute(statement, {**values, "limit": limit}, prepare=False)
            rows = await cursor.fetchall()
        if len(rows) < limit or len({row.content_hash for row in rows}) >= question.k:
            return rows
        limit *= 4


async def _configure(
    conn: AsyncConnection[Any], question: Question, *, exact: bool, timeout_s: float | None
) -> None:
    candidates = min(_EF_SEARCH_MOST, max(_EF_SEARCH_LEAST, 4 * question.k))
    settings = {
        "jit": "off",  # compiling a scan of some ten thousand rows takes longer than the scan
        "enable_indexscan": "off" if exact else "on",  # an ANN index is read in no other way
        "hnsw.ef_search": str(candidates),
        "hnsw.iterative_scan": "strict_order",
        "hnsw.max_scan_tuples": str(_MAX_SCAN_TUPLES),
    }
    if timeout_s is not None:
        settings["statement_timeout"] = str(max(1, round(timeout_s * 1000)))
    await conn.execute(
        "select set_config(name, value, true) from unnest(%s::text[], %s::text[]) as s (name, value)",
        (list(settings), list(settings.values())),
    )


def _statement(model: Model, question: Question, *, exact: bool) -> sql.Composed:
    half = model.dimensions > MAX_VECTOR_DIMENSIONS and not exact
    kind = sql.SQL("halfvec({})" if half else "vector({})").format(sql.Literal(model.dimensions))
    column = sql.SQL("(embedding::{})").format(kind) if half else sql.SQL("embedding")
    return sql.SQL(
        """
        with nearest as materialized (
            select id, {column} <=> %(vector)s::{kind} as distance from {table}
            where {conditions}
            order by {column} <=> %(vector)s::{kind}
            limit %(limit)s
        )
        select {columns}, 1 - n.distance as score
        from nearest as n join {table} as v on v.id = n.id
        where %(min_score)s::float8 is null or 1 - n.distance >= %(min_score)s
        order by n.distance, v.book, v.chapter, v.id
        """
    ).format(column=column, kind=kind, table=model.table, conditions=question.conditions, columns=HIT_COLUMNS)


def vector_literal(vector: NDArray[np.float32], dimensions: int) -> str:
    """Return a vector as pgvector reads it.

    Raises:
        ResponseMismatchError: It has another size, or is zero or not finite.
    """
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (dimensions,):
        raise ResponseMismatchError(
            f"A query vector of shape {array.shape} where ({dimensions},) was expected: it was made by "
            "another model than the table."
        )
    if not np.isfinite(array).all() or not array.any():
        raise ResponseMismatchError("A query vector is zero or not finite: no similarity can be computed.")
    return "[" + ",".join(map(repr, array.tolist())) + "]"
