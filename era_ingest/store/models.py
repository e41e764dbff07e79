"""Embedding models: each has a table ``era.vectors_<id>``; one is active, the one that readers see.

A table of vectors holds one row a chunk: its metadata, and its vector, which is null where the embedder
refused the text. So the metadata and the vectors of a book cannot disagree, and two views over the active
table are all that readers need: ``doctrine_embeddings_all`` (rows with a vector) and ``minister_entries``
(doctrine, with or without). Both show the vector without its size, so that a switch to a model of another
size replaces these two views and none of those that stand upon them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql
from psycopg.rows import class_row

from era_ingest.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_LOCK = 0x65726101
"""Key of the advisory lock under which models are added and switched."""

_SWITCH_ATTEMPTS = 10
_SWITCH_LOCK_TIMEOUT = "2s"


@dataclass(frozen=True, slots=True)
class Model:
    """One embedding model.

    Attributes:
        id: Number of its table, >= 1.
        name: Its identity, such as ``local/all-MiniLM-L6-v2``.
        backend: What computes its vectors.
        dimensions: Size of its vectors.
        active: True for the one that search and the views use.
    """

    id: int
    name: str
    backend: str
    dimensions: int
    active: bool

    @property
    def table(self) -> sql.Identifier:
        """The table of its rows."""
        return sql.Identifier("era", f"vectors_{self.id}")


_COLUMNS = "id, name, backend, dimensions, active"


async def all_models(conn: AsyncConnection[Any]) -> list[Model]:
    """Return every model, oldest first."""
    async with conn.cursor(row_factory=class_row(Model)) as cursor:
        await cursor.execute(f"select {_COLUMNS} from era.models order by id")  # noqa: S608 - a constant
        return await cursor.fetchall()


async def find_model(conn: AsyncConnection[Any], name: str) -> Model | None:
    """Return the model of this identity, or None."""
    return next((model for model in await all_models(conn) if model.name == name), None)


async def active_model(conn: AsyncConnection[Any]) -> Model | None:
    """Return the model that search uses; None before the first one is there."""
    return next((model for model in await all_models(conn) if model.active), None)


async def ensure_model(conn: AsyncConnection[Any], *, name: str, backend: str, dimensions: int) -> Model:
    """Return the model of this identity, made with its table if it is new.

    The first model of an installation is active at once; a later one by ``activate_when_complete``.

    Raises:
        ConfigurationError: The model is known with vectors of another size.
    """
    model = await find_model(conn, name)
    if model is None:
        await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
        model = await find_model(conn, name) or await _add(conn, name, backend, dimensions)
    if model.dimensions != dimensions:
        raise ConfigurationError(
            f"The model {name} has vectors of {model.dimensions} dimensions in this database, the embedder "
            f"now gives {dimensions}: set ERA_EMBED_DIMENSIONS={model.dimensions}, or name another model."
        )
    return model


async def _add(conn: AsyncConnection[Any], name: str, backend: str, dimensions: int) -> Model:
    async with conn.cursor(row_factory=class_row(Model)) as cursor:
        await cursor.execute(
            f"insert into era.models (name, backend, dimensions) values (%s, %s, %s) returning {_COLUMNS}",  # noqa: S608
            (name, backend, dimensions),
        )
        model = await cursor.fetchone()
    assert model is not None
    await _create_table(conn, model)
    if await active_model(conn) is None:
        await _activate(conn, model)
        model = Model(model.id, name, backend, dimensions, active=True)
    return model


async def _create_table(conn: AsyncConnection[Any], model: Model) -> None:
    """Create the table of a model's rows, its vectors inside the rows where they fit in a page."""
    name = f"vectors_{model.id}"
    await conn.execute(
        sql.SQL(
            """
            create table {table} (
                id            uuid not null,
                digest        uuid not null,
                weight        double precision not null,
                chapter       integer not null,
                start_char    integer,
                end_char      integer,
                content_hash  bytea not null check (octet_length(content_hash) = 32),
                category      text not null
                              check (category in ('principle', 'rule', 'claim', 'warning', 'passage')),
                book          text not null,
                domains       text[] not null,
                chapter_title text,
                text          text not null,
                embedding     vector({dimensions}),
                primary key (id)
            ) with (toast_tuple_target = 8160)
            """
        ).format(table=model.table, dimensions=sql.Literal(model.dimensions))
    )
    await conn.execute(
        sql.SQL("comment on table {table} is {text}").format(
            table=model.table, text=sql.Literal(f"Chunks with vectors of {model.name}; null: refused.")
        )
    )
    for suffix, definition in (
        ("book", sql.SQL("(book)")),
        ("domains", sql.SQL("using gin (domains)")),
        ("unembedded", sql.SQL("(content_hash, book) where embedding is null")),
    ):
        await conn.execute(
            sql.SQL("create index {index} on {table} {definition}").format(
                index=sql.Identifier(f"{name}_{suffix}"), table=model.table, definition=definition
            )
        )


async def note_speed(conn: AsyncConnection[Any], model: Model, texts_per_s: float) -> None:
    """Keep how fast a run embedded, texts a second, > 0; a later plan tells its time from it."""
    await conn.execute("update era.models set texts_per_s = %s where id = %s", (texts_per_s, model.id))


async def last_speed(conn: AsyncConnection[Any], model: Model) -> float | None:
    """Return how fast the last run with a model embedded, texts a second; None before the first."""
    cursor = await conn.execute("select texts_per_s from era.models where id = %s", (model.id,))
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else float(row[0])


async def activate_when_complete(conn: AsyncConnection[Any], model: Model) -> bool:
    """Let search and the views use a model once it holds every loaded book; return True if it is active now.

    Complete: for each row of ``doctrine_sources`` the model holds the same content. The switch is one
    transaction; readers see the old model or the new one. Call it in a transaction of its own.

    Raises:
        StoreUnavailableError: Long-running readers kept the views busy for 10 times 2 s.
    """
    current = await active_model(conn)
    if current is not None and current.id == model.id:
        return True
    await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
    cursor = await conn.execute(
        """
        select exists (
            select from era.doctrine_sources as s
            where not exists (
                select from era.book_models as m
                where m.book = s.book and m.model_id = %s and m.content_fingerprint = s.content_fingerprint))
        """,
        (model.id,),
    )
    row = await cursor.fetchone()
    if row is None or row[0]:
        return False
    await _activate(conn, model)
    return True


async def _activate(conn: AsyncConnection[Any], model: Model) -> None:
    """Point the views at a model, and note that every domain may have changed by it."""
    for _ in range(_SWITCH_ATTEMPTS):
        try:
            async with conn.transaction():
                await conn.execute(
                    "select set_config('lock_timeout', %s, true)",
                    (_SWITCH_LOCK_TIMEOUT,),
                )
                await _replace_views(conn, model)
                await conn.execute("select set_config('lock_timeout', '0', true)")
            break
        except errors.LockNotAvailable:
            continue
    else:
        raise StoreUnavailableError(
            f"The views could not be moved to the model {model.name}: other sessions read from them all the "
            "time. Try again later; until then search goes on with the old model."
        )
    await conn.execute("update era.models set active = false where active and id <> %s", (model.id,))
    await conn.execute(
        "update era.models set active = true, activated_at = now() where id = %s and not active", (model.id,)
    )
    await conn.execute(
        sql.SQL(
            """
            insert into era.domains as d (domain, change_no, doctrine_no)
            select name, 1, 1 from (
                select domain from era.domains union select distinct unnest(domains) from {table}
            ) as touched (name) order by name collate "C"
            on conflict (domain) do update
            set change_no = d.change_no + 1, doctrine_no = d.doctrine_no + 1, changed_at = now()
            """
        ).format(table=model.table)
    )


async def _replace_views(conn: AsyncConnection[Any], model: Model) -> None:
    names = {"table": model.table, "model": sql.Literal(model.name)}
    await conn.execute(
        sql.SQL(
            """
            create or replace view era.doctrine_embeddings_all as
            select id, book, chapter, category, domains, text, weight, content_hash, {model}::text as model,
                   embedding::vector as embedding, chapter_title, start_char, end_char
            from {table} where embedding is not null
            """
        ).format(**names)
    )
    await conn.execute(
        sql.SQL(
            """
            create or replace view era.minister_entries as
            select id, book, chapter, chapter_title, category, domains, text, weight, content_hash,
                   case when embedding is not null then id end as embedding_id, {model}::text as model
            from {table} where category <> 'passage'
            """
        ).format(**names)
    )
