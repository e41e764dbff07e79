"""When a sensor asks for a run: one at a time, never twice for the same thing, again after a failure.

What there is to do has a digest. A run key is the digest and a number of the attempt, since Dagster launches a run
key once and never again, even after a failure. Pauses between attempts double from one minute to one hour, so that
an outage of any length costs at most a run an hour and ends by itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 3600.0
ASKED_BY_TAG = "era/asked_by"
ASKED_FOR_TAG = "era/asked_for"

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
LOST_AFTER = timedelta(hours=25)
"""Age of a run that nobody will start: a daemon that is killed between making a run and putting it into the queue takes
its tick up again when it is back, for a day (Dagster's MAX_TIME_TO_RESUME_TICK_SECONDS)."""


class Last(StrEnum):
    """How the last run that was asked for stands."""

    NONE = "none"
    AT_WORK = "at work"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sensor asked for last; its cursor.

    Attributes:
        digest: Of what there was to do; ``""``: nothing was asked for yet.
        attempt: Number of the attempt, from 0.
        not_before: Earliest time of another attempt for the same digest, seconds since 1970.
    """

    digest: str = ""
    attempt: int = 0
    not_before: float = 0.0

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Asked:
        """Return what a cursor says; a cursor of another version, or that a person wrote, says nothing."""
        try:
            raw = json.loads(cursor or "{}")
            return cls(str(raw["digest"]), int(raw["attempt"]), float(raw["not_before"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    def to_cursor(self) -> str:
        """Return the cursor."""
        return json.dumps(asdict(self))

    @property
    def run_key(self) -> str:
        """Key of the attempt's run."""
        return f"{self.digest}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether to ask now.

    Attributes:
        asked: The new cursor.
        ask: True: ask for a run with ``asked.run_key``.
        reason: Why not; for a person.
    """

    asked: Asked
    ask: bool
    reason: str = ""


def decide(asked: Asked, digest: str, last: Last, now: float) -> Answer:
    """Return whether a run is asked for.

    Args:
        asked: What was asked for last.
        digest: Of what there is to do now, not empty.
        last: How the run that was asked for last stands.
        now: Seconds since 1970.
    """
    if last is Last.AT_WORK:
        return Answer(
            asked, ask=False, reason="the run asked for last is still at work; what is new waits for it"
        )
    if digest != asked.digest:
        return Answer(Asked(digest, 0, now + FIRST_PAUSE_S), ask=True)
    if last is Last.DONE:
        return Answer(asked, ask=False, reason="a run was there for this already; what is left, it refused")
    if now < asked.not_before:
        seconds = round(asked.not_before - now)
        return Answer(
            asked, ask=False, reason=f"attempt {asked.attempt + 1} failed; asked again in {seconds} s"
        )
    attempt = asked.attempt + 1
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 16))
    return Answer(replace(asked, attempt=attempt, not_before=now + pause), ask=True)


def digest_of(parts: Iterable[str]) -> str:
    """Return 24 hex digits of some texts, whatever their order."""
    digest = blake2b(digest_size=12)
    for part in sorted(parts):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def last_run(instance: dg.DagsterInstance, sensor: str, asked: Asked, now: float) -> Last:
    """Return how the run that a sensor asked for last stands; any of its runs at work counts.

    Args:
        instance: Dagster's.
        sensor: The sensor's name.
        asked: What it asked for last.
        now: Seconds since 1970.
    """
    if _is_at_work(instance, sensor, now):
        return Last.AT_WORK
    if not asked.digest:
        return Last.NONE
    runs = instance.get_runs(
        dg.RunsFilter(tags={ASKED_BY_TAG: sensor, ASKED_FOR_TAG: asked.run_key}), limit=1
    )
    if not runs:
        return Last.FAILED
    if runs[0].is_complete_and_waiting_to_retry:
        return Last.AT_WORK
    return Last.DONE if runs[0].status is dg.DagsterRunStatus.SUCCESS else Last.FAILED


def _is_at_work(instance: dg.DagsterInstance, sensor: str, now: float) -> bool:
    """Say whether a run of a sensor waits or works."""
    since = datetime.fromtimestamp(now, UTC) - LOST_AFTER
    not_started = dg.DagsterRunStatus.NOT_STARTED
    started = [status for status in UNFINISHED if status is not not_started]
    asked_by = {ASKED_BY_TAG: sensor}
    return any(
        instance.get_run_ids(runs, limit=1)
        for runs in (
            dg.RunsFilter(tags=asked_by, statuses=started),
            dg.RunsFilter(tags=asked_by, statuses=[not_started], created_after=since),
        )
    )


def tags_for(sensor: str, asked: Asked) -> dict[str, str]:
    """Return the run tags by which ``last_run`` finds a run again; retries of the run carry them too."""
    return {ASKED_BY_TAG: sensor, ASKED_FOR_TAG: asked.run_key}
