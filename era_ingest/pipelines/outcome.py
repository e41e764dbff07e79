"""What one ``era ingest`` is asked for, and what it comes to: loading, then ministers, then indexes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from era_ingest.core.model import Defect
    from era_ingest.pipelines.ministers import MinistersReport
    from era_ingest.pipelines.report import IngestReport


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Switches of an ingestion.

    Attributes:
        force: Work on unchanged books too.
        retry_refused: Ask again for texts that the server refused before.
        allow_removals: Take every book that is not in its folder any more for removed, however many.
    """

    force: bool = False
    retry_refused: bool = False
    allow_removals: bool = False


@dataclass(slots=True)
class IngestOutcome:
    """What came of an ingestion.

    Attributes:
        ingest: What became of the books.
        ministers: What became of the minister files; None if the loading stopped before them.
        landing_defects: What of the folders was no book; it stands in the quarantine too.
        work_seconds: Wall time of the work itself: from looking for books to the last index.
        seconds: Wall time in all, Dagster's recording included.
        run_ids: The Dagster runs that recorded it.
        held_back: Removals that were not believed, and why.
    """

    ingest: IngestReport
    ministers: MinistersReport | None
    landing_defects: tuple[Defect, ...] = ()
    work_seconds: float = 0.0
    seconds: float = 0.0
    run_ids: tuple[str, ...] = field(default_factory=tuple)
    held_back: tuple[str, ...] = ()

    @property
    def quarantined(self) -> int:
        """Quarantine rows that the books of this ingestion have, from now or before."""
        return self.ingest.total("quarantined") + len(self.landing_defects)

    def summary(self) -> dict[str, Any]:
        """The one object that ``era ingest --json`` prints."""
        summary = self.ingest.summary()
        summary["quarantined"] = self.quarantined
        summary["seconds"] = round(self.seconds, 3)
        summary["work_seconds"] = round(self.work_seconds, 3)
        if self.ministers is not None:
            summary["minister_files_written"] = self.ministers.files_written
            summary["domains"] = self.ministers.domains
            summary["stage_seconds"]["minister_files"] = round(self.ministers.seconds, 3)
        summary["run_ids"] = list(self.run_ids)
        if self.held_back:
            summary["held_back"] = list(self.held_back)
        return summary
