"""Who may come in: many posts at once are decided together, in one short transaction under a lock.

So no more jobs wait than may, however many are posted at once and by however many processes; and fifty posts ask the
database and the queue once instead of fifty times.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from era_ingest.errors import ConflictError, EraError, QueueFullError
from era_ingest.store import jobs as rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from era_ingest.pipelines.posted import PostedBook
    from era_ingest.pipelines.services import Services

LOST_AFTER_S = 30.0
"""A job that was accepted so long ago and is still not requested is taken for left behind by a crash."""
RETRY_AFTER_S = 5.0
MAX_TOGETHER = 100
"""Posts that are decided in one transaction, at most."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job that came in.

    Attributes:
        job_id: Its id.
        repeated: True if it did before, with the same idempotency key.
        placed: True if its book lies in the landing folder already. Whoever posts a book again that does not yet
            puts it there too: nobody knows whether the first one still will.
    """

    job_id: UUID
    repeated: bool = False
    placed: bool = False


@dataclass(slots=True)
class _Post:
    book: PostedBook
    priority: int
    key_digest: bytes | None
    body_digest: bytes
    decided: asyncio.Future[Admitted] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Admission:
    """Decides on posts.

    Args:
        services: Open services.
        waiting: Returns the ids of the runs that wait in the queue.
    """

    def __init__(self, services: Services, waiting: Callable[[], Awaitable[set[str]]]) -> None:
        self._services = services
        self._waiting = waiting
        self._posts: list[_Post] = []
        self._deciding: asyncio.Task[None] | None = None

    async def admit(
        self, book: PostedBook, *, priority: int, key_digest: bytes | None, body_digest: bytes
    ) -> Admitted:
        """Return the job of a post.

        Raises:
            ConflictError: The key came with another body before.
            QueueFullError: As many runs wait as may.
            StoreUnavailableError: The database does not answer.
        """
        post = _Post(book, priority, key_digest, body_digest)
        self._posts.append(post)
        if self._deciding is None:
            self._deciding = asyncio.create_task(self._decide_all())
        return await asyncio.shield(post.decided)

    async def _decide_all(self) -> None:
        while self._posts:
            together, self._posts = self._posts[:MAX_TOGETHER], self._posts[MAX_TOGETHER:]
            try:
                verdicts = await self._decide(together)
            except Exception as error:  # noqa: BLE001 - a task's boundary: each caller is told
                verdicts = [error] * len(together)
            for post, verdict in zip(together, verdicts, strict=True):
                if isinstance(verdict, Admitted):
                    post.decided.set_result(verdict)
                else:
                    post.decided.set_exception(verdict)
                    post.decided.exception()  # a caller who went away is told nothing
        self._deciding = None

    async def _decide(self, posts: Sequence[_Post]) -> Sequence[Admitted | Exception]:
        async with self._services.database.connection() as conn:
            await rows.lock_admission(conn)
            desk = _Desk(await rows.find_keys(conn, {post.key_digest for post in posts if post.key_digest}))
            if any(desk.needs_room(post) for post in posts):
                desk.room = await self._find_room(conn)
            verdicts = [desk.decide(post, self._services.settings.serve_max_waiting) for post in posts]
            await rows.insert(conn, desk.accepted)
        return verdicts

    async def _find_room(self, conn: AsyncConnection[object]) -> int:
        """Return how many more may wait. First the jobs on their way, then the queue: none is missed between."""
        unrequested = await rows.unrequested(conn)
        on_their_way = {str(row.id) for row in unrequested if row.placed_at is not None or not is_old(row)}
        waiting = on_their_way | await self._waiting()
        return self._services.settings.serve_max_waiting - len(waiting)


class _Desk:
    """Decides on the posts of one transaction, one after another."""

    def __init__(self, known: dict[bytes, rows.JobRow]) -> None:
        self.room = 0
        self.accepted: list[rows.NewJob] = []
        self._known = known
        self._new: dict[bytes, rows.NewJob] = {}

    def needs_room(self, post: _Post) -> bool:
        """Say whether a post may be a job that does not wait yet."""
        known = self._known.get(post.key_digest) if post.key_digest else None
        return known is None or (known.placed_at is None and is_old(known))

    def decide(self, post: _Post, bound: int) -> Admitted | EraError:
        """Return the job of a post, or why it is none."""
        known = self._known.get(post.key_digest) if post.key_digest else None
        twin = self._new.get(post.key_digest) if post.key_digest else None
        earlier = twin or known
        if earlier is not None and earlier.body_digest != post.body_digest:
            return ConflictError(
                "This Idempotency-Key came with another request before.", reason="key_reused"
            )
        if twin is not None:
            return Admitted(twin.id, repeated=True)
        if known is not None and not self.needs_room(post):
            return Admitted(known.id, repeated=True, placed=known.placed_at is not None)
        if self.room <= 0:
            return QueueFullError(
                f"As many runs wait as may (ERA_SERVE_MAX_WAITING is {bound:,}): try again later.",
                retry_after_s=RETRY_AFTER_S,
            )
        self.room -= 1
        book = post.book
        new = rows.NewJob(
            known.id if known else uuid4(),
            book.name,
            book.slug,
            post.priority,
            post.key_digest,
            post.body_digest,
        )
        self.accepted.append(new)
        if post.key_digest:
            self._new[post.key_digest] = new
        return Admitted(new.id)


def is_old(row: rows.JobRow) -> bool:
    """Say whether a job that is not requested yet was left behind by a crash."""
    return row.age_s > LOST_AFTER_S
