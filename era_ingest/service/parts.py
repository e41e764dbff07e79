"""What the routes work with, opened once a process."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from era_ingest.service.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request

    from era_ingest.pipelines.book_reading import ReadOptions
    from era_ingest.pipelines.search import Searcher
    from era_ingest.pipelines.services import Services
    from era_ingest.pipelines.submission import Jobs
    from era_ingest.pipelines.watching import Watch
    from era_ingest.settings import Settings


@dataclass(slots=True)
class Parts:
    """The open parts of the service.

    Attributes:
        services: Database and files.
        searcher: Answers searches; keeps the model.
        jobs: Accepts books and tells how they stand.
        options: How books are read.
        watch: Gathers what there is to watch.
        registry: What this process counts itself.
        ending: Set when the service is told to end: what streams ends then.
        streams: Streams that are open.
        readiness: Whether database and run queue answer.
    """

    services: Services
    searcher: Searcher
    jobs: Jobs
    options: ReadOptions
    watch: Watch
    registry: CollectorRegistry
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    streams: int = 0
    readiness: Readiness = field(init=False)

    def __post_init__(self) -> None:
        self.readiness = Readiness({"database": self.ping_database, "run_queue": self.jobs.ping})

    @property
    def settings(self) -> Settings:
        """The process settings."""
        return self.services.settings

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream as long as the context."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    async def ends_within(self, seconds: float) -> bool:
        """Wait so long at most; return whether the service is told to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ending.wait()
        return self.ending.is_set()

    async def ping_database(self) -> None:
        """Ask the database for nothing.

        Raises:
            StoreUnavailableError: It does not answer.
        """
        async with self.services.database.connection() as conn:
            await conn.execute("select 1")


def parts_of(request: Request) -> Parts:
    """Return the parts of the application that answers a request."""
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts
