"""What goes by the clock: every night, whatever is missing or stale."""

from __future__ import annotations

import asyncio

import dagster as dg

from era_ingest.clients.factory import build_embedder
from era_ingest.orchestration.jobs import books_config, ingest_job
from era_ingest.orchestration.partitions import BOOKS, build_target, register
from era_ingest.orchestration.resources import EraResource
from era_ingest.pipelines.loading import find_books
from era_ingest.pipelines.planning import plan_books
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.work import BookWork


@dg.schedule(
    name="nightly_backfill",
    job=ingest_job,
    cron_schedule="0 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 3 (UTC): loads, in ONE run, whatever is missing or stale: books that a run did not "
    "come to, that were refused, or that were loaded by another model, other settings or an older version of the "
    "code.",
)
def nightly_backfill(
    context: dg.ScheduleEvaluationContext, era: EraResource
) -> dg.RunRequest | dg.SkipReason:
    """Ask for one run of the books that are missing or stale."""
    missing, removed = asyncio.run(_missing(era))
    if not (missing or removed):
        return dg.SkipReason("every book is loaded as its files are")
    register(context.instance, BOOKS, missing)
    keys = context.instance.get_dynamic_partitions(str(BOOKS.name))
    target = build_target(keys, missing) if missing else None
    return dg.RunRequest(
        run_key=f"nightly:{context.scheduled_execution_time.isoformat()}",
        run_config=books_config(target, removed=removed),
        tags=dict(target.tags) if target else {},
    )


async def _missing(era: EraResource) -> tuple[list[str], tuple[str, ...]]:
    """Return the slugs of books that are not loaded as they are, and those of books that are gone."""
    async with era.services() as services:
        found, removed = await find_books(services, BookWork(everything=True))
        embedder = build_embedder(services.settings)
        try:
            plan = await plan_books(services, IngestRequest(tuple(found.values())), embedder.name)
        finally:
            await embedder.aclose()
    return [source.slug for source in plan.work], removed
