"""What the routes work with, opened once a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

    from era_ingest.pipelines.search import Searcher
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """The open parts of the service.

    Attributes:
        services: Database and files.
        searcher: Answers searches; keeps the model.
    """

    services: Services
    searcher: Searcher

    @property
    def settings(self) -> Settings:
        """The process settings."""
        return self.services.settings

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
