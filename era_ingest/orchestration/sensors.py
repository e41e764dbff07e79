"""What starts by itself: books that arrive, change or go; domains that are out of date."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from era_ingest.errors import TransientError
from era_ingest.orchestration.asking import Asked, decide, digest_of, last_run, tags_for
from era_ingest.orchestration.assets.landing import NAMES_ONLY, catalog_metadata, landing_catalog
from era_ingest.orchestration.jobs import books_config, domains_config, ingest_job, ministers_job
from era_ingest.orchestration.partitions import BOOKS, DOMAINS, PARTITION_TAG, build_target
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.run_queue import books_of_unfinished_jobs
from era_ingest.pipelines.arrivals import Landing, look, root_of
from era_ingest.pipelines.ministers import stale_ministers
from era_ingest.store.domains import stale_domains
from era_ingest.store.jobs import unrequested
from era_ingest.store.views import existing_views

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from era_ingest.store.catalogue import LandingDelta

TICK_S = 30
QUIET_S = 20.0
"""Domains are built once they have not changed for so long, seconds: a book that follows another shares the run."""
LONGEST_WAIT_S = 600.0
"""... or once they have waited so long, seconds, however busy the loading is."""


@dg.sensor(
    name="landing_sensor",
    job=ingest_job,
    minimum_interval_seconds=TICK_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks into the landing folder and asks for ONE run that loads what is new or changed (once it has "
    "not changed for ERA_SETTLE_S seconds) and takes out what was removed. A failed run is asked for again, with "
    "growing pauses. A book that was posted is left to its job.",
)
def landing_sensor(context: dg.SensorEvaluationContext, era: EraResource) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run of the books that arrived, changed or went."""
    folder = root_of(era.settings())
    if not folder.is_dir():
        return dg.SkipReason(f"there is no landing folder {folder} yet")
    try:
        landing, on_their_way = asyncio.run(_look(era))
    except TransientError as error:
        return dg.SkipReason(error.message)
    # In this order: a job that is between the two questions is in the second answer.
    delta = landing.delta.without(on_their_way | books_of_unfinished_jobs(context.instance))
    todo = [f"{s.slug}={s.fingerprint}" for s in (*delta.new, *delta.changed)] + [
        f"-{s}" for s in delta.removed
    ]
    if landing.held_back and todo:
        context.log.warning("%s", landing.held_back)
    if not todo:
        return dg.SkipReason(_quiet_reason(landing))
    asked, now = Asked.from_cursor(context.cursor), time.time()
    last = last_run(context.instance, context.sensor_name, asked, now)
    answer = decide(asked, digest_of(todo), last, now)
    if not answer.ask:
        return dg.SkipReason(f"{_summary(delta)}: {answer.reason}")
    return _request(context, replace(landing, delta=delta), answer.asked, str(folder))


async def _look(era: EraResource) -> tuple[Landing, set[str]]:
    """Return what lies in the landing folder, and the books of jobs that are on their way into the queue."""
    async with era.services() as services:
        landing = await look(services, settle_s=services.settings.settle_s)
        async with services.database.connection() as conn:
            return landing, {job.slug for job in await unrequested(conn)}


def _request(
    context: dg.SensorEvaluationContext, landing: Landing, asked: Asked, folder: str
) -> dg.SensorResult:
    """Return one run request for everything; new books become partitions with it, which is the catalogue's work."""
    delta = landing.delta
    wanted = [source.slug for source in (*delta.new, *delta.changed)]
    keys = context.instance.get_dynamic_partitions(str(BOOKS.name))
    present = set(keys)
    missing = [slug for slug in wanted if slug not in present]
    target = build_target(keys, wanted) if wanted else None
    request = dg.RunRequest(
        run_key=asked.run_key,
        run_config=books_config(target, removed=delta.removed),
        tags={**(target.tags if target else {}), **tags_for(context.sensor_name, asked)},
    )
    context.log.info("%s: asking for one run (%s)", _summary(delta), asked.run_key)
    return dg.SensorResult(
        run_requests=[request],
        cursor=asked.to_cursor(),
        dynamic_partitions_requests=[BOOKS.build_add_request(missing)] if missing else [],
        asset_events=[
            dg.AssetMaterialization(
                landing_catalog.key,
                metadata=catalog_metadata(landing, len(missing), folder),
                tags={DATA_VERSION_TAG: NAMES_ONLY.value},
            )
        ],
    )


def _summary(delta: LandingDelta) -> str:
    return f"{len(delta.new):,} new, {len(delta.changed):,} changed, {len(delta.removed):,} removed"


def _quiet_reason(landing: Landing) -> str:
    """Say why there is nothing to do."""
    parts = [*filter(None, [landing.held_back]), "nothing new in the landing folder"]
    if landing.delta.waiting:
        parts.append(f"{len(landing.delta.waiting):,} still being written")
    if landing.defects:
        first = landing.defects[0]
        parts.append(f"{len(landing.defects):,} cannot be taken, such as {first.file}: {first.detail}")
    return "; ".join(parts)


@dg.sensor(
    name="ministers_sensor",
    job=ministers_job,
    minimum_interval_seconds=TICK_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks the database which domains changed, and asks for ONE run that builds their minister files and "
    "looks after their indexes, once loading has paused.",
)
def ministers_sensor(
    context: dg.SensorEvaluationContext, era: EraResource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run of the domains that are out of date."""
    try:
        files, indexes, states, alive = asyncio.run(_stale(era))
    except TransientError as error:
        return dg.SkipReason(error.message)
    keys = context.instance.get_dynamic_partitions(str(DOMAINS.name))
    if not (files or indexes):
        return _prune(keys, alive)
    now = time.time()
    wait_s = debounce_s(states.values(), now)
    if wait_s > 0:
        return dg.SkipReason(f"{len({*files, *indexes}):,} domains changed just now; loading may go on")
    asked = Asked.from_cursor(context.cursor)
    todo = [f"{kind}:{name}" for kind, names in (("f", files), ("i", indexes)) for name in names]
    todo += [f"{name}@{at.isoformat()}" for name, at in states.items()]
    last = last_run(context.instance, context.sensor_name, asked, now)
    answer = decide(asked, digest_of(todo), last, now)
    if not answer.ask:
        return dg.SkipReason(f"{len(files):,} domains to build, {len(indexes):,} to index: {answer.reason}")
    missing = sorted({*files, *indexes} - set(keys))
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=answer.asked.run_key,
                run_config=domains_config(files=files, indexes=indexes),
                tags={PARTITION_TAG: [*files, *indexes][0], **tags_for(context.sensor_name, answer.asked)},
            )
        ],
        cursor=answer.asked.to_cursor(),
        dynamic_partitions_requests=[DOMAINS.build_add_request(missing)] if missing else [],
    )


def _prune(keys: Sequence[str], alive: Collection[str]) -> dg.SensorResult | dg.SkipReason:
    """Delete the partitions of domains that no row has any more."""
    dead = [key for key in keys if key not in alive]
    if not dead:
        return dg.SkipReason("every domain is up to date")
    return dg.SensorResult(
        skip_reason=f"{len(dead):,} domains have no rows any more",
        dynamic_partitions_requests=[DOMAINS.build_delete_request(dead)],
    )


async def _stale(era: EraResource) -> tuple[list[str], list[str], dict[str, datetime], set[str]]:
    """Return which domains' files are stale, which indexes, when the changed ones changed, and which have rows."""
    async with era.services() as services:
        files = await stale_ministers(services)
        async with services.database.connection() as conn:
            states = await stale_domains(conn)
            alive = set(await existing_views(conn))
    indexes = [state.domain for state in states if state.index_stale]
    return files, indexes, {state.domain: state.changed_at for state in states}, alive


def debounce_s(changed: Collection[datetime], now: float) -> float:
    """Return how long to wait for loading to pause, seconds; 0: build now.

    Args:
        changed: When each stale domain changed last.
        now: Seconds since 1970.
    """
    if not changed:
        return 0.0
    times = [at.timestamp() for at in changed]
    if now - min(times) >= LONGEST_WAIT_S:
        return 0.0
    return max(0.0, QUIET_S - (now - max(times)))
