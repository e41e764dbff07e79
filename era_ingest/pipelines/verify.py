"""The audit: database against files and sources; shared by ``era verify`` and the asset checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from era_ingest.core.audit import Severity
from era_ingest.pipelines.services import open_services
from era_ingest.store.audit import audit

if TYPE_CHECKING:
    from collections.abc import Collection

    from era_ingest.core.audit import Finding
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings


async def audit_books(services: Services, books: Collection[str]) -> tuple[Finding, ...]:
    """Return what is wrong with the rows of some books, by name; cheap enough to run after each load."""
    async with services.database.connection() as conn:
        return await audit(conn, books=books)


async def audit_all(services: Services, *, read_sources: bool = True) -> tuple[Finding, ...]:
    """Return everything that is not as it should be.

    Args:
        services: Open services.
        read_sources: Read the source files again, to find those that changed since they were loaded.
    """
    async with services.database.connection() as conn:
        return await audit(conn, ministers_dir=services.settings.ministers_dir, read_sources=read_sources)


async def verify_all(settings: Settings) -> tuple[Finding, ...]:
    """Open the services, audit everything, close them."""
    async with open_services(settings) as services:
        return await audit_all(services)


def is_wrong(finding: Finding) -> bool:
    """True for an error; False for a warning, which a person may want to know of."""
    return finding.severity is Severity.ERROR
