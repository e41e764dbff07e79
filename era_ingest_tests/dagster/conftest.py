"""A stand-in for the pipelines, where a test is about Dagster alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from era_ingest.orchestration.instance import open_instance
from era_ingest.pipelines.ministers import MinistersReport
from era_ingest.pipelines.report import BookReport, BookStatus, IngestReport, Progress
from era_ingest.pipelines.work import BookWork, Loaded
from era_ingest.settings import load_settings
from era_ingest_tests.dagster.house import House, open_house

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import dagster as dg

    from era_ingest.core.audit import Finding
    from era_ingest.errors import EraError
    from era_ingest.pipelines.indexes import DomainIndexReport


@dataclass
class FakeEra:
    """Loads books by saying so.

    Attributes:
        statuses: How a book ends that does not end as ``loaded``.
        findings: What the audit finds.
        error: What stops the loading.
        quarantine: What is in quarantine then.
        works: What was asked for.
        while_loading: Called after each book.
    """

    statuses: dict[str, BookStatus] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    error: EraError | None = None
    quarantine: dict[str, int] = field(default_factory=dict)
    works: list[BookWork] = field(default_factory=list)
    retries: bool = False
    while_loading: Callable[[], None] = lambda: None

    def load(self, work: BookWork, report: Callable[[Progress], None]) -> Loaded:
        self.works.append(work)
        books = [self._book(slug) for slug in work.slugs]
        books += [BookReport(slug, slug, BookStatus.REMOVED) for slug in work.removed]
        for number in range(len(books)):
            report(Progress(number, len(books), books=books[:number]))
            self.while_loading()
        result = IngestReport(books=books, model="hashing/768", requests=3, seconds=1.0, error=self.error)
        result.changed_domains = {"ethics"}
        return Loaded(result, self.findings, (), self.quarantine, audited=work.audit)

    def _book(self, slug: str) -> BookReport:
        status = self.statuses.get(slug, BookStatus.LOADED)
        error = "It is no JSON." if status is BookStatus.REFUSED else None
        return BookReport(slug, slug.title(), status, chapters=2, entries=5, passages=7, error=error)

    def build_ministers(self, domains: tuple[str, ...] | None) -> MinistersReport:
        del domains
        return MinistersReport()

    def refresh_indexes(self, domains: tuple[str, ...] | None) -> Sequence[DomainIndexReport]:
        del domains
        return []

    def audit_ministers(self, domains: tuple[str, ...] | None) -> Sequence[Finding]:
        del domains
        return []


@pytest.fixture
def quiet_instance(dagster_instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The project's Dagster instance, not capturing what steps print (which would start processes)."""
    del dagster_instance  # set up: its database, its settings in the environment
    with open_instance(load_settings(), capture_prints=False) as instance:
        yield instance


@pytest.fixture
def era() -> FakeEra:
    """The stand-in."""
    return FakeEra()


@pytest.fixture
def house(
    quiet_instance: dg.DagsterInstance,
    dagster_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> House:
    """An installation with an empty landing folder."""
    return open_house(quiet_instance, dagster_database_url, tmp_path, monkeypatch)
