"""Domains: which changed since their files and indexes were built, and their statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from psycopg import AsyncConnection


@dataclass(frozen=True, slots=True)
class DomainState:
    """Where one domain stands.

    Attributes:
        domain: Its name.
        change_no: Raised with any of its rows.
        doctrine_no: Raised with any of its doctrine entries.
        built_no: The ``doctrine_no`` that its minister files were built from last.
        indexed_no: The ``change_no`` that its view and index were looked after at last.
        updated_at: Latest modification time of a source whose load changed its doctrine.
        changed_at: When it changed last, by the database's clock.
    """

    domain: str
    change_no: int
    doctrine_no: int
    built_no: int
    indexed_no: int
    updated_at: datetime | None
    changed_at: datetime

    @property
    def files_stale(self) -> bool:
        """True if its minister files must be built."""
        return self.doctrine_no > self.built_no

    @property
    def index_stale(self) -> bool:
        """True if its view and index must be looked after."""
        return self.change_no > self.indexed_no


async def bump_domains(
    conn: AsyncConnection[Any],
    *,
    changed: Iterable[str],
    doctrine_changed: Collection[str],
    modified_at: datetime | None,
) -> None:
    """Note that domains changed, in the transaction that changes them, as its last step.

    The rows are locked in the order of their names until the end of the transaction: writers that share
    domains wait for each other, and never both ways.

    Args:
        conn: A connection in a transaction.
        changed: Domains of which any row changed.
        doctrine_changed: Those of which a doctrine entry changed.
        modified_at: Modification time of the source that changed them; None leaves ``updated_at``.
    """
    names = sorted(set(changed) | set(doctrine_changed))
    if not names:
        return
    await conn.execute(
        """
        insert into era.domains as d (domain, change_no, doctrine_no, updated_at)
        select name, 1, doctrine::int, case when doctrine then %(at)s::timestamptz end
        from unnest(%(names)s::text[], %(doctrine)s::bool[]) as touched (name, doctrine)
        order by name collate "C"
        on conflict (domain) do update set
            change_no = d.change_no + 1,
            changed_at = clock_timestamp(),
            doctrine_no = d.doctrine_no + excluded.doctrine_no,
            updated_at = greatest(d.updated_at, excluded.updated_at)
        """,
        {"at": modified_at, "names": names, "doctrine": [name in doctrine_changed for name in names]},
    )


async def domain_states(
    conn: AsyncConnection[Any], domains: Collection[str] | None = None
) -> dict[str, DomainState]:
    """Return the states of domains by name, in order; None: of all."""
    async with conn.cursor(row_factory=class_row(DomainState)) as cursor:
        await cursor.execute(
            """
            select domain, change_no, doctrine_no, built_no, indexed_no, updated_at, changed_at
            from era.domains
            where %(domains)s::text[] is null or domain = any(%(domains)s)
            order by domain collate "C"
            """,
            {"domains": None if domains is None else list(domains)},
        )
        return {state.domain: state for state in await cursor.fetchall()}


async def stale_domains(conn: AsyncConnection[Any]) -> list[DomainState]:
    """Return the domains whose minister files or index must be looked after, by name."""
    return [state for state in (await domain_states(conn)).values() if state.files_stale or state.index_stale]


async def mark_indexed(conn: AsyncConnection[Any], looked_after: Mapping[str, int]) -> None:
    """Note of domains at which ``change_no`` their view and index were looked after."""
    await conn.execute(
        """
        update era.domains as d set indexed_no = n.change_no
        from (select name, change_no from unnest(%s::text[], %s::bigint[]) as given (name, change_no)) as n
        where d.domain = n.name and d.indexed_no < n.change_no
        """,
        (list(looked_after), list(looked_after.values())),
    )


async def count_rows(conn: AsyncConnection[Any], domain: str) -> int:
    """Return how many rows with a vector a domain has under the active model."""
    cursor = await conn.execute(
        "select count(*) from era.doctrine_embeddings_all where domains @> array[%s::text]", (domain,)
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def category_counts(conn: AsyncConnection[Any], domains: Collection[str]) -> dict[str, dict[str, int]]:
    """Return how many rows with a vector domains have under the active model, by domain and category.

    One query for all, which finds the rows of each by its index; a domain without rows has no counts.
    """
    cursor = await conn.execute(
        """
        select d.name, c.category, c.rows
        from unnest(%s::text[]) as d (name)
        cross join lateral (
            select category, count(*) as rows from era.doctrine_embeddings_all
            where domains @> array[d.name] group by category
        ) as c order by d.name, c.category
        """,
        (list(domains),),
    )
    counts: dict[str, dict[str, int]] = {domain: {} for domain in domains}
    for domain, category, rows in await cursor.fetchall():
        counts[domain][category] = int(rows)
    return counts
