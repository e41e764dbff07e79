"""Minister files: each domain built whole from the database, and the combined index beside them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from era_ingest.errors import EraError
from era_ingest.pipelines.groups import first_error
from era_ingest.pipelines.retrying import patient, retry_transient
from era_ingest.store import ministers
from era_ingest.store.domains import domain_states
from era_ingest.store.minister_files import FileChanges, folders

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from era_ingest.pipelines.services import Services
    from era_ingest.store.ministers import PublishedDomain


@dataclass(slots=True)
class MinistersReport:
    """What became of the minister files.

    Attributes:
        published: What became of each domain that was looked at, by name.
        removed: Domains that have no entries any more; their files are gone.
        changes: Files written, removed and left alone, the combined index among them.
        seconds: Wall time.
    """

    published: dict[str, PublishedDomain] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    changes: FileChanges = field(default_factory=FileChanges)
    seconds: float = 0.0

    @property
    def domains(self) -> int:
        """Domains that were looked at and have entries."""
        return len(self.published) - len(self.removed)

    @property
    def files_written(self) -> int:
        """Files that are new or changed."""
        return len(self.changes.written)


@patient
async def stale_ministers(services: Services) -> list[str]:
    """Return the domains whose files must be built, sorted: the database changed, or the folder lacks them.

    Folders of domains that the database never knew are somebody else's; `era verify` names them.
    """
    present = set(await asyncio.to_thread(folders, services.settings.ministers_dir))
    async with services.database.connection() as conn:
        states = await domain_states(conn)
        cursor = await conn.execute(
            "select domain from era.domains where (statistics->>'total_entries')::int > 0"
        )
        filled = {str(row[0]) for row in await cursor.fetchall()}
    stale = {name for name, state in states.items() if state.files_stale}
    missing = filled - present
    return sorted(stale | missing)


async def build_ministers(services: Services, domains: Collection[str] | None = None) -> MinistersReport:
    """Build the files of domains, and the combined index; unchanged files are not written.

    Args:
        services: Open services.
        domains: Domains in normal form; None: those that are stale.

    Raises:
        StoreUnavailableError: The database or the disk is away or full; every file is whole.
    """
    started = time.monotonic()
    root = services.settings.ministers_dir
    report = MinistersReport()
    names = await stale_ministers(services) if domains is None else sorted(set(domains))
    report.published = await _publish_all(services, root, names)
    for name, published in report.published.items():
        report.changes += published.changes
        if published.statistics.total_entries == 0:
            report.removed.append(name)
    if names:
        report.changes += await retry_transient(lambda: _publish_combined(services, root))
    report.seconds = time.monotonic() - started
    return report


async def _publish_all(services: Services, root: Path, names: Sequence[str]) -> dict[str, PublishedDomain]:
    turn = asyncio.Semaphore(max(1, services.settings.bounds.pool_connections - 1))
    failed: EraError | None = None
    tasks: dict[str, asyncio.Task[PublishedDomain]] = {}
    try:
        async with asyncio.TaskGroup() as group:
            for name in names:
                tasks[name] = group.create_task(_publish_in_turn(services, root, name, turn))
    except* EraError as errors:
        failed = first_error(errors)
    if failed is not None:
        raise failed
    return {name: task.result() for name, task in tasks.items()}


async def _publish_in_turn(
    services: Services, root: Path, domain: str, turn: asyncio.Semaphore
) -> PublishedDomain:
    """Publish a domain when there is a connection to spare: most of it is waiting for the disk."""
    async with turn:
        return await retry_transient(lambda: _publish(services, root, domain))


async def _publish(services: Services, root: Path, domain: str) -> PublishedDomain:
    async with services.database.connection() as conn:
        return await ministers.publish_domain(conn, root, domain)


async def _publish_combined(services: Services, root: Path) -> FileChanges:
    async with services.database.connection() as conn:
        return await ministers.publish_combined(conn, root)
