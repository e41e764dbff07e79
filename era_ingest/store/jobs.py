"""``jobs``: what was handed in over HTTP. How a job stands, the runs in Dagster say."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection

_LOCK = 0x65726110


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job.

    Attributes:
        id: Its id, and that of its first run.
        book: The book's name.
        slug: The book's partition key.
        priority: Greater ones go first.
        key_digest: SHA-256 of caller and idempotency key; None: no key.
        body_digest: SHA-256 of what was posted.
        accepted_at: When, by the database's clock.
        placed_at: When its book lay in the landing folder; None: not yet, and nobody was told of the job.
        requested_at: When its run stood in the queue; None: on its way there.
        age_s: Seconds since ``accepted_at``.
    """

    id: UUID
    book: str
    slug: str
    priority: int
    key_digest: bytes | None
    body_digest: bytes
    accepted_at: datetime
    placed_at: datetime | None
    requested_at: datetime | None
    age_s: float


async def lock_admission(conn: AsyncConnection[Any]) -> None:
    """Let one program at a time decide whether a job is accepted, until the end of the transaction."""
    await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))


async def find_keys(conn: AsyncConnection[Any], key_digests: Collection[bytes]) -> dict[bytes, JobRow]:
    """Return the jobs that were accepted with idempotency keys, by these."""
    if not key_digests:
        return {}
    async with conn.cursor(row_factory=class_row(JobRow)) as cursor:
        await cursor.execute(_BY_KEYS, (list(key_digests),))
        return {row.key_digest: row for row in await cursor.fetchall() if row.key_digest is not None}


async def find(conn: AsyncConnection[Any], job_id: UUID) -> JobRow | None:
    """Return a job."""
    return await _one(conn, _BY_ID, job_id)


async def unrequested(conn: AsyncConnection[Any]) -> list[JobRow]:
    """Return jobs whose run is not yet known to stand in the queue, the oldest first."""
    async with conn.cursor(row_factory=class_row(JobRow)) as cursor:
        await cursor.execute(_UNREQUESTED)
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be accepted; as in ``JobRow``."""

    id: UUID
    book: str
    slug: str
    priority: int
    key_digest: bytes | None
    body_digest: bytes


async def insert(conn: AsyncConnection[Any], jobs: Sequence[NewJob]) -> None:
    """Accept jobs; one that was accepted before and whose book was never placed begins anew."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            """
            insert into era.jobs (id, book, slug, priority, key_digest, body_digest)
            values (%s, %s, %s, %s, %s, %s)
            on conflict (id) do update set accepted_at = now()
            """,
            [astuple(job) for job in jobs],
        )


async def mark_placed(conn: AsyncConnection[Any], job_id: UUID) -> bool:
    """Note that a job's book lies in the landing folder; return False if the job was forgotten meanwhile."""
    cursor = await conn.execute("update era.jobs set placed_at = now() where id = %s", (job_id,))
    return bool(cursor.rowcount)


async def mark_requested(conn: AsyncConnection[Any], job_id: UUID) -> None:
    """Note that a job's run stands in the queue."""
    await conn.execute("update era.jobs set requested_at = now() where id = %s", (job_id,))


async def withdraw(conn: AsyncConnection[Any], job_id: UUID) -> None:
    """Forget a job whose book was never placed."""
    await conn.execute("delete from era.jobs where id = %s and placed_at is null", (job_id,))


async def page(
    conn: AsyncConnection[Any], *, limit: int, after: UUID | None = None, books: Collection[str] | None = None
) -> list[JobRow]:
    """Return jobs, the latest first.

    Args:
        conn: A connection.
        limit: How many, at most.
        after: The last one of the page before; None: from the beginning.
        books: Only of these books; None: of all.
    """
    async with conn.cursor(row_factory=class_row(JobRow)) as cursor:
        await cursor.execute(
            _PAGE, {"after": after, "books": None if books is None else list(books), "limit": limit}
        )
        return await cursor.fetchall()


_JOBS = sql.SQL(
    """select id, book, slug, priority, key_digest, body_digest, accepted_at, placed_at, requested_at,
              extract(epoch from now() - accepted_at)::float8 as age_s
       from era.jobs """
)
_BY_KEYS = _JOBS + sql.SQL("where key_digest = any(%s)")
_BY_ID = _JOBS + sql.SQL("where id = %s")
_UNREQUESTED = _JOBS + sql.SQL("where requested_at is null order by accepted_at")
_PAGE = _JOBS + sql.SQL(
    """where (%(after)s::uuid is null
              or (accepted_at, id) < (select accepted_at, id from era.jobs where id = %(after)s))
         and (%(books)s::text[] is null or book = any(%(books)s))
       order by accepted_at desc, id desc limit %(limit)s"""
)


async def _one(conn: AsyncConnection[Any], query: sql.Composed, value: object) -> JobRow | None:
    async with conn.cursor(row_factory=class_row(JobRow)) as cursor:
        await cursor.execute(query, (value,))
        return await cursor.fetchone()
