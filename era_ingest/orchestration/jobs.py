"""Jobs, and the run config by which sensors, schedules and the command line say what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from era_ingest.pipelines.report import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.orchestration.partitions import Target

INGEST_JOB = "ingest"
MINISTERS_JOB = "ministers"
LANDING_JOB = "landing"
JOB_TAG = "era/job"
"""Tag of the runs of a job that was handed in over HTTP: its id."""

ingest_job = dg.define_asset_job(
    INGEST_JOB,
    selection=dg.AssetSelection.assets(*(stage.value for stage in Stage)),
    description="Load books: all books of a run together, from their files to the vector tables.",
)
ministers_job = dg.define_asset_job(
    MINISTERS_JOB,
    selection=dg.AssetSelection.assets("minister_files", "domain_index"),
    description="Build the minister files of domains, and look after their views and indexes.",
)
landing_job = dg.define_asset_job(
    LANDING_JOB,
    selection=dg.AssetSelection.assets("landing_catalog"),
    description="Look into the landing folder and make every book there a partition.",
)


def books_config(
    target: Target | None,
    *,
    removed: Sequence[str] = (),
    force: bool = False,
    retry_refused: bool = False,
    audit: bool = True,
) -> dict[str, Any]:
    """Return the run config of ``ingest``.

    Args:
        target: Which books; None: only those to be removed.
        removed: Books whose rows and files are to go.
        force: Work on unchanged books too.
        retry_refused: Ask again for texts that the embedder refused before.
        audit: Check afterwards what was loaded.
    """
    config = {
        "books": list(target.listed) if target else [],
        "removed": list(removed),
        "everything": target.everything if target else False,
        "force": force,
        "retry_refused": retry_refused,
        "audit": audit,
    }
    return {"ops": {"load_books": {"config": config}}}


def domains_config(*, files: Sequence[str], indexes: Sequence[str]) -> dict[str, Any]:
    """Return the run config of ``ministers``.

    Args:
        files: Domains whose files are to be built.
        indexes: Domains whose view and index are to be looked after.
    """
    return {
        "ops": {
            "minister_files": {"config": {"domains": list(files), "listed": True}},
            "domain_index": {"config": {"domains": list(indexes), "listed": True}},
        }
    }
