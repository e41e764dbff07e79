"""Nearest neighbours of a vector, by domain, category and book; and, where asked, beside them what holds the words.

Without an ANN index the scan is exact. With one, the index is read on until enough rows pass the filters
(iterative scan, pgvector 0.8), in strict order of distance, with a list of candidates long enough for a
recall of about 0.99; ``recall`` measures it. What the index cannot find enough of is searched exactly.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import errors, sql
from psycopg.rows import class_row

from era_ingest.core.fusion import fuse
from era_ingest.core.names import DomainName
from era_ingest.errors import StoreUnavailableError
from era_ingest.store.hits import HIT_COLUMNS, Hit, Question, distinct
from era_ingest.store.indexes import index_name, list_indexes
from era_ingest.store.models import active_model
from era_ingest.store.nearest import nearest, vector_literal
from era_ingest.store.words import rows_with_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from psycopg import AsyncConnection

    from era_ingest.store.models import Model

__all__ = ["Hit", "Searched", "look_up", "recall", "search"]

FUSED_LEAST = 50
"""Texts of each ranking that are fused, at least; twice ``k`` where that is more."""
_EQUAL = 1e-6


class Searched(NamedTuple):
    """What is searched.

    Attributes:
        model: The model whose table it is.
        indexes: Its ANN indexes by name; False for one that is not valid.
    """

    model: Model
    indexes: Mapping[str, bool]


async def look_up(conn: AsyncConnection[Any], model: Model | None = None) -> Searched | None:
    """Return the table of a model (None: of the active one) with its indexes; None before there is one."""
    model = model or await active_model(conn)
    return None if model is None else Searched(model, await list_indexes(conn, model))


async def search(
    conn: AsyncConnection[Any],
    vector: NDArray[np.float32],
    *,
    words: str = "",
    domain: str | None = None,
    category: str | None = None,
    book: str | None = None,
    k: int = 10,
    min_score: float | None = None,
    doctrine_only: bool = False,
    exact: bool = False,
    model: Model | None = None,
    searched: Searched | None = None,
    timeout_s: float | None = None,
) -> list[Hit]:
    """Return the nearest texts, best first, each text once.

    Args:
        conn: A connection; settings are changed for the length of one transaction (or savepoint) only.
        vector: float32[d] made by the model, of any length but zero.
        words: Not empty: rank what holds these words too (`words.rows_with_words`), and fuse the two rankings.
        domain: Only rows of this domain, in normal form.
        category: Only rows of this category.
        book: Only rows of the book of this name.
        k: Distinct texts at most, >= 1.
        min_score: Least cosine similarity.
        doctrine_only: Leave out passages.
        exact: Read no ANN index.
        model: The model whose table is searched; None: the active one.
        searched: The same, looked up before, some seconds ago at most; None: it is looked up.
        timeout_s: How long one statement may take before the database cancels it, seconds; None: any time.

    Raises:
        ResponseMismatchError: The vector has the wrong size, or is zero or not finite.
        InvalidNameError: The domain is not in normal form.
        StoreUnavailableError: It took longer than ``timeout_s``.
    """
    if domain is not None:
        DomainName(domain)
    searched = searched or await look_up(conn, model)
    if searched is None:
        return []
    literal = vector_literal(vector, searched.model.dimensions)
    question = Question(domain, category, book, k, min_score, doctrine_only)
    near = partial(_near, conn, searched, literal, exact=exact, timeout_s=timeout_s)
    try:
        async with conn.transaction():
            if not words:
                return await near(question)
            wide = replace(question, k=max(FUSED_LEAST, 2 * k))
            by_meaning = await near(wide)
            by_words = await _with_words(conn, searched.model, literal, wide, words)
    except errors.QueryCanceled as error:
        raise StoreUnavailableError(
            f"The search took longer than {timeout_s or 0:g} seconds and was cancelled: ask for fewer results, or for "
            "one domain or book."
        ) from error
    return _fused(by_meaning, by_words)[:k]


async def recall(
    conn: AsyncConnection[Any],
    vectors: Iterable[NDArray[np.float32]],
    *,
    domain: str | None = None,
    category: str | None = None,
    book: str | None = None,
    k: int = 10,
    model: Model | None = None,
) -> float:
    """Return the share of the exact nearest texts that ``search`` finds, over some vectors; 1.0 is best.

    A found text counts when it is as near as the last of the exact ones (within 1e-6): equals are no error.

    Args:
        conn: A connection.
        vectors: Query vectors, float32[d] each.
        domain: As in ``search``; so are the others.
        category: As in ``search``.
        book: As in ``search``.
        k: As in ``search``.
        model: As in ``search``.
    """
    found = wanted = 0
    for vector in vectors:
        ask = partial(search, conn, vector, domain=domain, category=category, book=book, k=k, model=model)
        right = await ask(exact=True)
        if right:
            floor = right[-1].score - _EQUAL
            wanted += len(right)
            found += min(len(right), sum(hit.score >= floor for hit in await ask()))
    return found / wanted if wanted else 1.0


async def _near(
    conn: AsyncConnection[Any],
    searched: Searched,
    literal: str,
    question: Question,
    *,
    exact: bool,
    timeout_s: float | None,
) -> list[Hit]:
    """Return the nearest texts: by an index where one is made for the question, else exactly."""
    ask = partial(nearest, conn, searched.model, literal, question, timeout_s=timeout_s)
    if not exact and _has_index(searched, question):
        rows = await ask(exact=False)
        hits = distinct(rows, question.k)
        # Fewer than asked for: there are no more, or the index stopped short. Finding out is cheap.
        if len(hits) == question.k or (question.min_score is not None and rows):
            return hits
    return distinct(await ask(exact=True), question.k)


def _has_index(searched: Searched, question: Question) -> bool:
    """True if there is an index made for the question.

    A book, and a domain without an index of its own, are small: reading them exactly beats filtering what
    the index over all rows gives (26 against 68 ms for 3,100 of 50,000 rows).
    """
    if question.book is not None:
        return False
    return searched.indexes.get(index_name(searched.model, question.domain).value, False)


async def _with_words(
    conn: AsyncConnection[Any], model: Model, literal: str, question: Question, words: str
) -> list[Hit]:
    """Return the texts that hold the words, best first, each with its cosine similarity."""
    values = asdict(question)
    ids = await rows_with_words(
        conn, model, words, conditions=question.conditions, values=values, limit=question.k
    )
    if not ids:
        return []
    async with conn.cursor(row_factory=class_row(Hit)) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                select {columns}, 1 - (v.embedding <=> %(vector)s::vector) as score
                from unnest(%(ids)s::uuid[]) with ordinality as found (id, rank)
                join {table} as v on v.id = found.id
                where %(min_score)s::float8 is null or 1 - (v.embedding <=> %(vector)s::vector) >= %(min_score)s
                order by found.rank
                """
            ).format(columns=HIT_COLUMNS, table=model.table),
            {**values, "vector": literal, "ids": ids},
            prepare=False,
        )
        return distinct(await cursor.fetchall(), question.k)


def _fused(*rankings: list[Hit]) -> list[Hit]:
    hits = {hit.content_hash: hit for ranking in reversed(rankings) for hit in ranking}
    order = fuse([hit.content_hash for hit in ranking] for ranking in rankings)
    return [replace(hits[text], fused=score) for text, score in order]
