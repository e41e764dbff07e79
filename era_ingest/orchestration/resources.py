"""The resource that assets, sensors and schedules do their work with."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from era_ingest.logs import set_up
from era_ingest.orchestration.interrupts import run_interruptibly
from era_ingest.pipelines.indexes import DomainIndexReport, refresh_domain_indexes
from era_ingest.pipelines.loading import audit_ministers, load_books
from era_ingest.pipelines.ministers import MinistersReport, build_ministers
from era_ingest.pipelines.services import Services, open_services
from era_ingest.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from era_ingest.core.audit import Finding
    from era_ingest.pipelines.report import Progress
    from era_ingest.pipelines.work import BookWork, Loaded


class EraResource(dg.ConfigurableResource[Any]):
    """The pipelines on this installation's database and files.

    Everything is set by ``ERA_*`` variables of the process; ``overrides`` wins over them, for a deployment that
    runs several installations from one environment.
    """

    overrides: dict[str, Any] = Field(
        default_factory=dict, description="fields of the settings, such as {'landing_dir': '/data/books'}"
    )

    @property
    def retries(self) -> bool:
        """A step that failed for a passing reason may be tried again."""
        return True

    def settings(self) -> Settings:
        """Return the settings of this process.

        Raises:
            ConfigurationError: One does not parse; the message names it.
        """
        return load_settings(**self.overrides)

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Services]:
        """Yield open services, for the length of one step or tick.

        Raises:
            ConfigurationError: The database or a folder is not fit for use.
            StoreUnavailableError: The database cannot be reached.
        """
        settings = self.settings()
        set_up(settings.log_format, settings.log_level or "info", secrets=settings.secrets)
        async with open_services(settings) as services:
            yield services

    def load(self, work: BookWork, report: Callable[[Progress], None]) -> Loaded:
        """Take books through the stages, in a loop of its own that a termination of the run cancels."""
        return run_interruptibly(self._load(work, report))

    def build_ministers(self, domains: tuple[str, ...] | None) -> MinistersReport:
        """Build the minister files of domains; None: of those that are out of date."""
        return run_interruptibly(self._build_ministers(domains))

    def refresh_indexes(self, domains: tuple[str, ...] | None) -> Sequence[DomainIndexReport]:
        """Look after view, statistics and index of domains; None: of those that are out of date."""
        return run_interruptibly(self._refresh_indexes(domains))

    def audit_ministers(self, domains: tuple[str, ...] | None) -> Sequence[Finding]:
        """Compare the files of domains with the database; None: of all."""
        return run_interruptibly(self._audit_ministers(domains))

    async def _load(self, work: BookWork, report: Callable[[Progress], None]) -> Loaded:
        async with self.services() as services:
            return await load_books(services, work, report)

    async def _build_ministers(self, domains: tuple[str, ...] | None) -> MinistersReport:
        async with self.services() as services:
            return await build_ministers(services, domains)

    async def _refresh_indexes(self, domains: tuple[str, ...] | None) -> list[DomainIndexReport]:
        async with self.services() as services:
            return await refresh_domain_indexes(services, domains)

    async def _audit_ministers(self, domains: tuple[str, ...] | None) -> Sequence[Finding]:
        async with self.services() as services:
            return await audit_ministers(services, domains)
