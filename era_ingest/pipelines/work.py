"""What the steps of the graph do, as one object that a step is given: the pipelines, without Dagster.

Runs of the daemon and the UI get `EraResource`; ``era ingest`` gives its steps what it has at hand already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from era_ingest.pipelines.report import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from era_ingest.core.audit import Finding
    from era_ingest.pipelines.indexes import DomainIndexReport
    from era_ingest.pipelines.ministers import MinistersReport
    from era_ingest.pipelines.report import IngestReport, Progress, Stage


@dataclass(frozen=True, slots=True)
class BookWork:
    """What one run is to do with books.

    Attributes:
        slugs: Books to take through the stages; those that no landing folder has any more are left alone.
        removed: Books whose rows and files are to go.
        everything: Find out instead what is new, changed, removed or stale.
        stages: Stages to run.
        run_id: What provenance rows name as the run.
        force: Work on unchanged books too.
        retry_refused: Ask again for texts that the embedder refused before.
        audit: Check afterwards what was loaded.
    """

    slugs: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    everything: bool = False
    stages: frozenset[Stage] = ALL_STAGES
    run_id: str = ""
    force: bool = False
    retry_refused: bool = False
    audit: bool = True


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of `BookWork`.

    Attributes:
        report: What became of each book.
        findings: What the audit of the loaded books found wrong; empty where all is well or none was asked for.
        unknown: Slugs that no landing folder has.
        quarantine: How much is in quarantine, by what and why.
        audited: Whether the audit was run.
    """

    report: IngestReport
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()
    quarantine: Mapping[str, int] = field(default_factory=dict)
    audited: bool = False


class Era(Protocol):
    """The pipelines, as the steps of the graph see them."""

    @property
    def retries(self) -> bool:
        """Whether a step that failed for a passing reason may be tried again."""
        ...

    def load(self, work: BookWork, report: Callable[[Progress], None]) -> Loaded:
        """Take books through the stages; see `pipelines.ingest.ingest_books`."""
        ...

    def build_ministers(self, domains: tuple[str, ...] | None) -> MinistersReport:
        """Build the minister files of domains; None: of those that are out of date."""
        ...

    def refresh_indexes(self, domains: tuple[str, ...] | None) -> Sequence[DomainIndexReport]:
        """Look after view, statistics and index of domains; None: of those that are out of date."""
        ...

    def audit_ministers(self, domains: tuple[str, ...] | None) -> Sequence[Finding]:
        """Compare the files of domains with the database; None: of all."""
        ...
