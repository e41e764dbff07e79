"""The audit: does the database hold what the sources say, do the files hold what the database says.

Small checks that each return findings, cheap enough to run after each load where they are restricted to its
books and domains; ``era verify`` runs them over everything. ``audit`` puts them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from era_ingest.core.audit import Finding, error, warning
from era_ingest.store.audit_files import MAX_FINDINGS, check_ministers, check_sources
from era_ingest.store.indexes import list_indexes
from era_ingest.store.models import active_model
from era_ingest.store.views import existing_views

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from psycopg import AsyncConnection

    from era_ingest.store.models import Model


_ROW_FINDINGS = {
    "orphaned_row": "of a book that no source row stands for. Ingest it again, or remove it",
    "zero_vector": "with a zero vector, which matches nothing. Ingest it with --force",
    "bad_vector": "whose vector is not of unit length. Ingest it with --force",
    "wrong_size": "whose vector has the wrong size. Ingest it with --force",
    "missing_vector": "without a vector that are not in quarantine. Ingest it again",
    "wrong_hash": "whose text is not what its hash says. Ingest it with --force",
    "foreign_vector": "with another vector than the embedding store has. Ingest it with --force",
}


async def audit(
    conn: AsyncConnection[Any],
    *,
    books: Collection[str] | None = None,
    domains: Collection[str] | None = None,
    ministers_dir: Path | None = None,
    read_sources: bool = False,
) -> tuple[Finding, ...]:
    """Return everything that is not as it should be, sorted; nothing is changed.

    Args:
        conn: A connection.
        books: Names of the books to look at; None: all, and the structure with them.
        domains: Domains whose files to look at; None: all.
        ministers_dir: The ministers' folder; None: files are not looked at.
        read_sources: Read the source files, to find those that changed since they were loaded.
    """
    findings = [
        *await check_counts(conn, books),
        *await check_rows(conn, books),
        *await check_doubled(conn, books),
        *await check_quarantine(conn, books),
    ]
    if books is None:
        findings += await check_structure(conn)
    if read_sources:
        findings += await check_sources(conn, books)
    if ministers_dir is not None:
        findings += await check_ministers(conn, ministers_dir, domains)
    return tuple(sorted(findings))


async def check_counts(conn: AsyncConnection[Any], books: Collection[str] | None = None) -> list[Finding]:
    """Compare the rows of each book with the counts that its source had, from file to table."""
    model = await active_model(conn)
    if model is None:
        return []
    cursor = await conn.execute(
        sql.SQL(
            """
            select s.book, s.entries, s.passages, coalesce(r.entries, 0), coalesce(r.passages, 0),
                   m.content_fingerprint is not distinct from s.content_fingerprint
            from era.doctrine_sources as s
            left join era.book_models as m on m.book = s.book and m.model_id = %(model)s
            left join (
                select book, count(*) filter (where category <> 'passage') as entries,
                       count(*) filter (where category = 'passage') as passages
                from {table} where %(books)s::text[] is null or book = any(%(books)s) group by book
            ) as r on r.book = s.book
            where (%(books)s::text[] is null or s.book = any(%(books)s))
              and ((s.entries, s.passages) is distinct from (coalesce(r.entries, 0), coalesce(r.passages, 0))
                   or m.content_fingerprint is distinct from s.content_fingerprint)
            order by s.book limit %(limit)s
            """
        ).format(table=model.table),
        {"model": model.id, "books": _names(books), "limit": MAX_FINDINGS},
    )
    findings = []
    for book, entries, passages, found_entries, found_passages, current in await cursor.fetchall():
        if not current:
            findings.append(
                error(
                    "not_loaded",
                    book,
                    f"The table of {model.name} holds another version of it. Ingest it again.",
                )
            )
            continue
        for kind, wanted, found in (
            ("entries", entries, found_entries),
            ("passages", passages, found_passages),
        ):
            if wanted != found:
                code = "lost_rows" if found < wanted else "doubled_rows"
                detail = f"{wanted} {kind} in the source, {found} in the table. Ingest it again with --force."
                findings.append(error(code, book, detail))
    return findings


async def check_rows(conn: AsyncConnection[Any], books: Collection[str] | None = None) -> list[Finding]:
    """Look at every row: its source, its vector's size, length and origin, its text's hash."""
    model = await active_model(conn)
    if model is None:
        return []
    cursor = await conn.execute(
        sql.SQL(
            """
            with wrong as (
                select v.book, v.id, unnest(array_remove(array[
                    case when s.book is null then 'orphaned_row' end,
                    case when v.embedding is null and q.id is null then 'missing_vector' end,
                    case when vector_dims(v.embedding) <> %(dimensions)s then 'wrong_size' end,
                    case when vector_norm(v.embedding) = 0 then 'zero_vector'
                         when not abs(vector_norm(v.embedding) - 1) < 0.001 then 'bad_vector' end,
                    case when sha256(convert_to(v.text, 'UTF8')) <> v.content_hash then 'wrong_hash' end,
                    case when v.embedding is distinct from e.embedding and v.embedding is not null
                         then 'foreign_vector' end
                ], null)) as code
                from {table} as v
                left join era.doctrine_sources as s on s.book = v.book
                left join era.embeddings as e on e.model_id = %(model)s and e.content_hash = v.content_hash
                left join lateral (
                    select id from era.quarantine where kind = 'text' and model = %(name)s
                      and content_hash = v.content_hash limit 1
                ) as q on v.embedding is null
                where %(books)s::text[] is null or v.book = any(%(books)s)
            )
            select code, book, count(*), min(id::text) from wrong group by code, book
            order by code, book limit %(limit)s
            """
        ).format(table=model.table),
        {
            "dimensions": model.dimensions,
            "model": model.id,
            "name": model.name,
            "books": _names(books),
            "limit": MAX_FINDINGS,
        },
    )
    return [
        error(code, book, f"{count} rows {_ROW_FINDINGS[code]}; the first id is {example}.")
        for code, book, count, example in await cursor.fetchall()
    ]


async def check_doubled(conn: AsyncConnection[Any], books: Collection[str] | None = None) -> list[Finding]:
    """Find texts that stand twice in one chapter and category."""
    model = await active_model(conn)
    if model is None:
        return []
    cursor = await conn.execute(
        sql.SQL(
            """
            select book, chapter, category, count(*) from {table}
            where %(books)s::text[] is null or book = any(%(books)s)
            group by book, chapter, category, content_hash having count(*) > 1
            order by book, chapter, category limit %(limit)s
            """
        ).format(table=model.table),
        {"books": _names(books), "limit": MAX_FINDINGS},
    )
    return [
        error("doubled_rows", book, f"A {category} of chapter {chapter} stands there {count} times.")
        for book, chapter, category, count in await cursor.fetchall()
    ]


async def check_quarantine(conn: AsyncConnection[Any], books: Collection[str] | None = None) -> list[Finding]:
    """Name the books that something was refused of."""
    cursor = await conn.execute(
        """
        select coalesce(book, ''), count(*), string_agg(distinct reason, ', ' order by reason)
        from era.quarantine where %(books)s::text[] is null or book = any(%(books)s)
        group by book order by 1 limit %(limit)s
        """,
        {"books": _names(books), "limit": MAX_FINDINGS},
    )
    return [
        warning("quarantine", book, f"{count} refused ({reasons}): see `era quarantine`.")
        for book, count, reasons in await cursor.fetchall()
    ]


async def check_structure(conn: AsyncConnection[Any]) -> list[Finding]:
    """Find tables or vectors without a model, models without a table, domains without a view, broken indexes."""
    findings = []
    cursor = await conn.execute(
        """
        select coalesce(c.relname, 'vectors_' || m.id), m.id is null
        from (select relname from pg_class
              where relnamespace = to_regnamespace('era') and relkind = 'r'
                and relname ~ '^vectors_[0-9]+$') as c
        full join era.models as m on c.relname = 'vectors_' || m.id
        where m.id is null or c.relname is null order by 1
        """
    )
    for table, extra in await cursor.fetchall():
        what = "A table of vectors that belongs to no model." if extra else "The table of a model is missing."
        findings.append(error("orphaned_table" if extra else "lost_table", table, what))
    findings += await _check_owners(conn)
    model = await active_model(conn)
    if model is None:
        return findings
    for name, valid in (await list_indexes(conn, model)).items():
        if not valid:
            findings.append(
                warning("broken_index", name, "Left over from a build that crashed. Run `era ingest`.")
            )
    return findings + await _check_views(conn, model)


async def _check_owners(conn: AsyncConnection[Any]) -> list[Finding]:
    """Find vectors of models that are not there; each model costs one look into the index, not its rows."""
    cursor = await conn.execute(
        """
        with recursive stored (model_id) as (
            select min(model_id) from era.embeddings
            union all
            select (select min(e.model_id) from era.embeddings as e where e.model_id > stored.model_id)
            from stored where stored.model_id is not null
        )
        select model_id from stored where model_id is not null and model_id not in (select id from era.models)
        """
    )
    return [
        error("orphaned_vectors", str(number), "Vectors in the embedding store that belong to no model.")
        for (number,) in await cursor.fetchall()
    ]


async def _check_views(conn: AsyncConnection[Any], model: Model) -> list[Finding]:
    cursor = await conn.execute(
        sql.SQL("select distinct unnest(domains) as domain from {table} order by domain").format(
            table=model.table
        )
    )
    with_rows = {str(row[0]) for row in await cursor.fetchall()}
    with_view = await existing_views(conn)
    return [
        *(
            error("lost_view", name, "A domain with rows has no view.")
            for name in sorted(with_rows - with_view)
        ),
        *(warning("empty_view", name, "A view of no row.") for name in sorted(with_view - with_rows)),
    ][:MAX_FINDINGS]


def _names(books: Collection[str] | None) -> list[str] | None:
    return None if books is None else list(books)
