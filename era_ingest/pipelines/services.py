"""What every pipeline works with: settings, database, files."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.pipelines.retrying import retry_transient
from era_ingest.store import location, schema
from era_ingest.store.chunk_files import ChunkFiles
from era_ingest.store.database import POOL_TIMEOUT_S, Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from era_ingest.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """The open parts of one process.

    Attributes:
        settings: The process settings.
        database: A pool, its schema up to date.
        chunk_files: Where chunks are kept as Parquet.
    """

    settings: Settings
    database: Database
    chunk_files: ChunkFiles


@asynccontextmanager
async def open_services(
    settings: Settings, *, database_timeout_s: float = POOL_TIMEOUT_S
) -> AsyncIterator[Services]:
    """Yield the services.

    The embedded server is started where it is meant; the schema is brought up to date.

    Args:
        settings: The process settings.
        database_timeout_s: How long a caller waits for a connection, or a server that went away, seconds.

    Raises:
        ConfigurationError: The database (no pgvector, too old, wrong password) or a folder is not fit.
        StoreUnavailableError: The database cannot be reached.
    """
    with location.database(settings) as url:
        size = settings.bounds.pool_connections
        async with Database.opened(url, max_connections=size, timeout_s=database_timeout_s) as database:
            await retry_transient(lambda: schema.migrate(database))
            yield Services(settings, database, ChunkFiles(settings.chunks_location))
