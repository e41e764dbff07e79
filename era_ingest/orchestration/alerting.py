"""Who is on call is told: of runs that failed for good, and of assets that are late and fresh again.

One sensor reads Dagster's own record of both: run status changes after a cursor, and the state that its freshness
daemon keeps by each asset's freshness policy (https://docs.dagster.io/guides/labs/freshness). Dagster's own
``run_failure_sensor`` would not do: it goes on to the next failure where the last could not be told.

The cursor moves over what was delivered. What was not is tried again, within a tick for some seconds and then by ever
rarer ticks for a day. No run waits for any of it, nor do other sensors, which have threads of their own.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.storage.tags import WILL_RETRY_TAG

from era_ingest.errors import EraError, RequestRejectedError
from era_ingest.orchestration.jobs import JOB_TAG
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.run_views import words_of_failure
from era_ingest.pipelines.alerts import Alert, AlertKind, send
from era_ingest.pipelines.report import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.settings import Settings

TICK_S = 30
MAX_EVENTS = 100
"""Failures that one tick reads."""
MAX_SINGLE = 5
"""More failures at once are one alert."""
TICK_BUDGET_S = 20.0
"""No further alert is begun after so long: Dagster ends a tick after a minute."""
FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 3_600.0
GIVEN_UP_AFTER_S = 86_400.0
"""A failure that could not be told for a day is told no more."""
WATCHED = dg.AssetKey(Stage.VECTOR_TABLES.value)


@dataclass(frozen=True, slots=True)
class Told:
    """What was told; the sensor's cursor.

    Attributes:
        after: Storage id of the last failure that was dealt with; None: begin with what comes.
        late: Whether it was told that the watched asset is late.
        failures: Ticks in a row that delivered nothing.
        not_before: Earliest time of the next try, seconds since 1970.
    """

    after: int | None = None
    late: bool = False
    failures: int = 0
    not_before: float = 0.0

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Told:
        """Return what a cursor says; one that a person wrote, or of another version, says nothing."""
        try:
            raw = json.loads(cursor or "{}")
            return cls(int(raw["after"]), bool(raw["late"]), int(raw["failures"]), float(raw["not_before"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    def to_cursor(self) -> str:
        """Return the cursor."""
        return json.dumps(asdict(self))


def with_freshness(assets: dg.AssetsDefinition, late_h: float | None) -> dg.AssetsDefinition:
    """Return assets with a freshness policy on the vector tables among them.

    Args:
        assets: Of the graph.
        late_h: After how many hours without a loaded book they are late; None: never.
    """
    if late_h is None:
        return assets
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=late_h))
    return assets.map_asset_specs(
        lambda spec: dg.apply_freshness_policy(spec, policy) if spec.key == WATCHED else spec
    )


@dg.sensor(
    name="alert_sensor",
    minimum_interval_seconds=TICK_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells ERA_ALERT_WEBHOOK of runs that failed and are not tried again, and of books that were not "
    "loaded for ERA_ALERT_LATE_H hours. What cannot be delivered is tried again for a day.",
)
def alert_sensor(context: dg.SensorEvaluationContext, era: EraResource) -> dg.SkipReason:
    """Deliver what is to be told."""
    told, settings, now = Told.from_cursor(context.cursor), era.settings(), time.time()
    if settings.alert_webhook is None or told.after is None:
        context.update_cursor(replace(told, after=_latest(context.instance)).to_cursor())
        return dg.SkipReason(
            "nobody is told: ERA_ALERT_WEBHOOK is not set"
            if settings.alert_webhook is None
            else "what fails from now on is told"
        )
    if now < told.not_before:
        return dg.SkipReason(f"the webhook took nothing; tried again in {round(told.not_before - now)} s")
    after, alerts = _failures(context.instance, told.after, settings, now)
    alerts += _freshness(context.instance, told, settings)
    told, said = asyncio.run(_deliver(replace(told, after=after), alerts, settings, now))
    context.update_cursor(told.to_cursor())
    if said:
        context.log.warning("%s", said)
    return dg.SkipReason(said or f"{len(alerts)} alerts were sent")


def _latest(instance: dg.DagsterInstance) -> int:
    found = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    return found[0].storage_id if found else 0


@dataclass(frozen=True, slots=True)
class _Due:
    """An alert, and the cursor once it is delivered."""

    alert: Alert
    after: int | None = None
    late: bool | None = None


def _failures(
    instance: dg.DagsterInstance, after: int, settings: Settings, now: float
) -> tuple[int, list[_Due]]:
    """Return the failures that are to be told, the oldest first, and the cursor before the first of them."""
    wanted = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=after)
    records = instance.fetch_run_status_changes(wanted, limit=MAX_EVENTS, ascending=True).records
    due: list[_Due] = []
    for record in records:
        entry = record.event_log_entry
        run = instance.get_run_by_id(entry.run_id)
        if (
            run is None
            or run.status is not dg.DagsterRunStatus.FAILURE
            or run.tags.get(WILL_RETRY_TAG) == "true"
            or now - record.timestamp > GIVEN_UP_AFTER_S
        ):
            if not due:
                after = record.storage_id
            continue
        books = run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start")
        alert = Alert(
            AlertKind.RUN_FAILED,
            run.run_id,
            f"The run {run.run_id[:8]} of {run.job_name}{f' ({books})' if books else ''} failed",
            words_of_failure(instance, run.run_id),
            _iso(record.timestamp),
            run_id=run.run_id,
            job_id=run.tags.get(JOB_TAG),
            link=None if settings.dagster_url is None else f"{settings.dagster_url}/runs/{run.run_id}",
        )
        due.append(_Due(alert, after=record.storage_id))
    return after, due if len(due) <= MAX_SINGLE else [_together(due)]


def _together(due: Sequence[_Due]) -> _Due:
    """Return one alert for many failures."""
    last = due[-1]
    lines = [f"{one.alert.title}: {one.alert.detail.partition(chr(10))[0][:200]}" for one in due[:MAX_SINGLE]]
    if len(due) > MAX_SINGLE:
        lines.append(f"and {len(due) - MAX_SINGLE:,} more")
    alert = Alert(
        AlertKind.RUNS_FAILED, last.alert.id, f"{len(due):,} runs failed", "\n".join(lines), last.alert.at
    )
    return replace(last, alert=alert)


def _freshness(instance: dg.DagsterInstance, told: Told, settings: Settings) -> list[_Due]:
    """Return what is to be told of the watched asset: that it is late, or fresh again."""
    if settings.alert_late_h is None and not told.late:
        return []
    record = instance.get_freshness_state_records([WATCHED]).get(WATCHED)
    late = record is not None and record.freshness_state is FreshnessState.FAIL
    if late == told.late or record is None:
        return []
    at = record.updated_at.isoformat()
    kind = AlertKind.ASSET_LATE if late else AlertKind.ASSET_FRESH
    title = f"No book was loaded for {settings.alert_late_h:g} hours" if late else "Books are loaded again"
    return [_Due(Alert(kind, f"{kind.value}:{at}", title, "", at), late=late)]


async def _deliver(told: Told, due: Sequence[_Due], settings: Settings, now: float) -> tuple[Told, str]:
    """Send alerts in order until one cannot be delivered; return the cursor then, and what went wrong."""
    end, said = time.monotonic() + TICK_BUDGET_S, ""
    for one in due:
        if time.monotonic() >= end:
            return told, "the webhook is slow; the rest is sent at the next tick"
        try:
            await send(one.alert, settings)
        except RequestRejectedError as error:
            said = error.message
        except EraError as error:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(told.failures, 16))
            return replace(told, failures=told.failures + 1, not_before=now + pause), error.message
        told = replace(
            told,
            after=told.after if one.after is None else one.after,
            late=told.late if one.late is None else one.late,
            failures=0,
            not_before=0.0,
        )
    return told, said


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
