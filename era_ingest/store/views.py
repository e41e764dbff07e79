"""The views ``doctrine_embeddings_<domain>``: one for each domain that has rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from era_ingest.core.names import VIEW_PREFIX, DomainName
from era_ingest.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from psycopg import AsyncConnection

    from era_ingest.store.database import Database

_LOCK = 0x65726105
"""Key of the advisory lock under which views are made and dropped."""

_BATCH = 50
"""Views a transaction: each needs a few entries in the server's lock table."""

_LOCK_TIMEOUT = "2s"
_ALL = f"{VIEW_PREFIX}all"


async def existing_views(conn: AsyncConnection[Any]) -> set[str]:
    """Return the domains that have a view."""
    cursor = await conn.execute(
        "select viewname from pg_views where schemaname = 'era' and starts_with(viewname, %s)", (VIEW_PREFIX,)
    )
    names = {str(row[0]) for row in await cursor.fetchall()}
    return {name.removeprefix(VIEW_PREFIX) for name in names if name != _ALL}


async def ensure_views(db: Database, domains: Iterable[str]) -> list[str]:
    """Create the views that are missing; return their domains.

    In short transactions of its own. Making a view locks nothing that readers or loaders hold, only other
    makers of views.

    Raises:
        InvalidNameError: A domain is not in normal form; the views of others may have been made.
    """
    wanted = [DomainName(domain) for domain in sorted(set(domains))]
    async with db.connection() as conn:
        present = await existing_views(conn)
    missing = [domain for domain in wanted if domain.value not in present]
    created: list[str] = []
    for start in range(0, len(missing), _BATCH):
        async with db.connection() as conn:
            await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            present = await existing_views(conn)
            for domain in missing[start : start + _BATCH]:
                if domain.value not in present:
                    await _create(conn, domain)
                    created.append(domain.value)
    return created


async def drop_empty_views(db: Database, domains: Collection[str] | None = None) -> list[str]:
    """Drop the views of domains without any row; return their domains.

    A view that somebody reads at the moment is left for the next time (after 2 s of waiting).

    Args:
        db: The database.
        domains: Which to look at; None: all that have a view.
    """
    async with db.connection() as conn:
        cursor = await conn.execute(
            """
            select name from unnest(%s::text[]) as v (name)
            where not exists (select from era.doctrine_embeddings_all where domains @> array[name])
              and not exists (select from era.minister_entries where domains @> array[name])
            order by name
            """,
            (sorted((await existing_views(conn)) & set(domains or await existing_views(conn))),),
        )
        empty = [DomainName(row[0]) for row in await cursor.fetchall()]
    dropped = []
    for domain in empty:
        try:
            async with db.connection() as conn:
                await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
                await conn.execute("select set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
                await conn.execute(sql.SQL("drop view if exists {}").format(_identifier(domain)))
        except (errors.LockNotAvailable, StoreUnavailableError):
            continue
        dropped.append(domain.value)
    return dropped


async def _create(conn: AsyncConnection[Any], domain: DomainName) -> None:
    await conn.execute(
        sql.SQL(
            "create view {view} as select * from era.doctrine_embeddings_all where domains @> array[{domain}]"
        ).format(view=_identifier(domain), domain=sql.Literal(domain.value))
    )
    await conn.execute(
        sql.SQL("comment on view {view} is {text}").format(
            view=_identifier(domain), text=sql.Literal(f"Entries and passages of the domain {domain}.")
        )
    )


def _identifier(domain: DomainName) -> sql.Identifier:
    return sql.Identifier("era", domain.view.value)
