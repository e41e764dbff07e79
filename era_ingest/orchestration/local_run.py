"""``era ingest``: the pipelines at once, in a thread; Dagster, which records real runs of them, in another process.

Importing Dagster takes a second of CPU time, which the pipelines would have to share with it (one interpreter lock);
see `orchestration.recorder`. So that process is started before the pipelines are imported, and given up again where
nothing changed: then no run is recorded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from era_ingest.orchestration.recorder import record, start_recorder
from era_ingest.pipelines.outcome import IngestOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from era_ingest.pipelines.outcome import IngestOptions
    from era_ingest.pipelines.report import Progress
    from era_ingest.settings import Settings


def run_ingest(
    paths: Sequence[Path], settings: Settings, options: IngestOptions, report: Callable[[Progress], None]
) -> IngestOutcome:
    """Load books from paths, rebuild what depends on them, and record it as Dagster materializations.

    Args:
        paths: Landing folders, books' folders, or files.
        settings: The process settings.
        options: Switches of the ingestion.
        report: Told how far it is, from another thread, at most five times a second.

    Returns:
        What came of it; what stopped the loading early stands in its ``ingest.error``.

    Raises:
        ConfigurationError: A path, a setting or the database is not fit for use.
        StoreUnavailableError: The database or a disk is away. What was finished is kept.
    """
    started = time.monotonic()
    with start_recorder(settings) as recorder:
        from era_ingest.orchestration.local_work import LocalWork

        with LocalWork(paths, settings, options, report) as work:
            arrivals = work.arrivals.result()
            run_ids = record(settings, work, recorder)
            loaded = work.loaded.result()
            ministers = work.ministers.result()
    return IngestOutcome(
        ingest=loaded.report,
        ministers=ministers,
        landing_defects=arrivals.defects,
        work_seconds=work.seconds,
        seconds=time.monotonic() - started,
        run_ids=run_ids,
        held_back=arrivals.held_back,
    )
