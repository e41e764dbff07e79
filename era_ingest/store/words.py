"""Full text: the rows that hold the words of a query.

Words are folded to their English stems (PostgreSQL's configuration ``english``) in texts and queries alike. Text in
another language is folded by the same rules on both sides, so that its words are found too; only their inflected forms
are not, and a corpus of mixed books needs no setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from uuid import UUID

    from psycopg import AsyncConnection

    from era_ingest.store.models import Model

WORDS_MIN_ROWS = 1_000
"""Up to so many rows are read one by one (10 to 50 microseconds each); more get an index, which takes as long once."""
MAX_RANKED = 200
"""Rows that are ranked, at most: words that more rows hold say little, and each row's text is parsed again."""

DOCUMENT = sql.SQL("to_tsvector('pg_catalog.english', text)")
"""What the index is built on, and what a query must ask for to use it."""
_QUERY = sql.SQL("websearch_to_tsquery('pg_catalog.english', %(words)s)")


async def rows_with_words(
    conn: AsyncConnection[Any],
    model: Model,
    words: str,
    *,
    conditions: sql.Composable,
    values: dict[str, Any],
    limit: int,
) -> list[UUID]:
    """Return the ids of rows that hold the words of a query, best first.

    The query is read as search engines on the web do (``websearch_to_tsquery``, which takes any text): all words must
    occur; ``"..."`` is a phrase, ``or`` an alternative, ``-`` leaves out. Words close to one another rank first
    (``ts_rank_cd``, divided by the logarithm of the text's length).

    Args:
        conn: A connection.
        model: The model whose table is read.
        words: The query.
        conditions: What else must hold of a row, in SQL.
        values: Its values, by name.
        limit: Ids, at most.
    """
    cursor = await conn.execute(
        sql.SQL(
            """
            select id from (
                select id, text from {table} where {document} @@ {query} and {conditions} limit %(most)s
            ) as found
            order by ts_rank_cd({document}, {query}, 1) desc, id
            limit %(limit)s
            """
        ).format(table=model.table, document=DOCUMENT, query=_QUERY, conditions=conditions),
        {**values, "words": words, "most": MAX_RANKED, "limit": limit},
        prepare=False,
    )
    return [row[0] for row in await cursor.fetchall()]
