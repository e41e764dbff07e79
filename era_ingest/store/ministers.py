"""From the database to minister files: a domain is built whole from its rows, never changed in place."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from era_ingest.core.minister import DomainEncoder, DomainStatistics, MinisterEntry, build_combined
from era_ingest.core.model import DOCTRINE_CATEGORIES
from era_ingest.store.domains import domain_states
from era_ingest.store.minister_files import DomainWriter, FileChanges, write_combined
from era_ingest.store.models import active_model

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from psycopg import AsyncConnection

    from era_ingest.core.minister import Pieces

_DOMAIN_LOCKS = 0x65726103
"""First key of the advisory locks of domains' files."""
_COMBINED_LOCK = 0x65726104
_CATEGORIES = {category.value: category for category in DOCTRINE_CATEGORIES}
_BATCH_ROWS = 2_000
"""Entries between the database and the files at a time."""


@dataclass(frozen=True, slots=True)
class PublishedDomain:
    """What publishing a domain came to.

    Attributes:
        domain: Its name.
        statistics: Its counts.
        changes: What became of its files.
    """

    domain: str
    statistics: DomainStatistics
    changes: FileChanges


async def digest_files(conn: AsyncConnection[Any], domain: str) -> dict[str, bytes]:
    """Return the SHA-256 of a domain's files as the database says they should be, by name; nothing is written."""
    cursor = await conn.execute("select updated_at from era.domains where domain = %s", (domain,))
    row = await cursor.fetchone()
    encoder = DomainEncoder(domain, last_updated=None if row is None else row[0])
    digests: dict[str, Any] = {}

    def digest(pieces: Pieces) -> None:
        for name, piece in pieces.items():
            digests.setdefault(name, hashlib.sha256()).update(piece)

    async with aclosing(_entries(conn, domain)) as parts:
        async for entries in parts:
            digest(await asyncio.to_thread(encoder.add, entries))
    digest(encoder.finish())
    return {name: found.digest() for name, found in digests.items()}


async def publish_domain(conn: AsyncConnection[Any], root: Path, domain: str) -> PublishedDomain:
    """Build a domain's files and put them into place; note in ``era.domains`` from which change.

    Call it in a transaction of its own: a lock on the domain is held to its end, so that an older picture
    never replaces a newer one. A change that is committed meanwhile counts as not built yet.

    Args:
        conn: A connection.
        root: The ministers' folder.
        domain: Its name in normal form.

    Raises:
        StoreUnavailableError: The disk is full, read-only or away.
    """
    await conn.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_DOMAIN_LOCKS, domain))
    state = (await domain_states(conn, [domain])).get(domain)
    encoder = DomainEncoder(domain, last_updated=None if state is None else state.updated_at)
    with DomainWriter(root, domain) as writer:
        async with aclosing(_entries(conn, domain)) as parts:  # a full disk must not leave the cursor open
            async for entries in parts:
                await asyncio.to_thread(_write_on, writer, encoder, entries)
        changes = await asyncio.to_thread(_finish, writer, encoder)
    statistics = encoder.statistics
    if state is not None:
        await conn.execute(
            """
            update era.domains set built_no = %(no)s, built_at = now(), statistics = %(statistics)s
            where domain = %(domain)s
              and (built_no, statistics) is distinct from (%(no)s, %(statistics)s)
            """,
            {"no": state.doctrine_no, "statistics": Jsonb(statistics.to_dict()), "domain": domain},
        )
    return PublishedDomain(domain, statistics, changes)


async def build_combined_index(conn: AsyncConnection[Any]) -> bytes:
    """Return the combined index over all domains that were published."""
    cursor = await conn.execute(
        "select domain, statistics from era.domains where statistics is not null order by domain"
    )
    statistics = {domain: DomainStatistics(**raw) for domain, raw in await cursor.fetchall()}
    model = await active_model(conn)
    return build_combined(
        statistics,
        model=None if model is None else model.name,
        dimensions=None if model is None else model.dimensions,
    )


async def publish_combined(conn: AsyncConnection[Any], root: Path) -> FileChanges:
    """Build the combined index and put it into place; in a transaction of its own, after the domains.

    Raises:
        StoreUnavailableError: The disk is full, read-only or away.
    """
    await conn.execute("select pg_advisory_xact_lock(%s, 0)", (_COMBINED_LOCK,))
    payload = await build_combined_index(conn)
    return await asyncio.to_thread(write_combined, root, payload)


def _write_on(writer: DomainWriter, encoder: DomainEncoder, entries: Sequence[MinisterEntry]) -> None:
    writer.append(encoder.add(entries))


def _finish(writer: DomainWriter, encoder: DomainEncoder) -> FileChanges:
    writer.append(encoder.finish())
    return writer.publish()


async def _entries(conn: AsyncConnection[Any], domain: str) -> AsyncGenerator[list[MinisterEntry]]:
    """Yield a domain's entries as ``DomainEncoder`` takes them, some thousands at a time, all of one moment."""
    async with conn.cursor("era_minister_entries", binary=True) as cursor:
        await cursor.execute(
            """
            select id::text, text, book, chapter, category, weight, embedding_id::text
            from era.minister_entries where domains @> array[%s::text]
            order by array_position(%s::text[], category), book collate "C", chapter, text collate "C", id
            """,
            (domain, list(_CATEGORIES)),
        )
        while rows := await cursor.fetchmany(_BATCH_ROWS):
            yield [
                MinisterEntry(identifier, text, book, chapter, _CATEGORIES[category], weight, embedding_id)
                for identifier, text, book, chapter, category, weight, embedding_id in rows
            ]
