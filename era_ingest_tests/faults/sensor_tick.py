"""One tick of the landing sensor as the daemon does it, and its points: a program that ``run_and_kill`` can run.

The daemon's own loop over sensors runs once, with the project's definitions in this process; on demand the runs that
lie in the queue then are executed here, one after another. The exit code is AT_REST where there was nothing to do.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon import sensor as daemon
from dagster._utils.hosted_user_process import recon_job_from_origin

from era_ingest.definitions import defs
from era_ingest.orchestration import sensors
from era_ingest.orchestration.instance import open_instance
from era_ingest.settings import load_settings
from era_ingest.store import catalogue, landing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["defs"]

AT_REST = 3
NO_INTERVAL_S = -1
"""0 would be Dagster's default."""
POINTS: dict[str, tuple[Any, str, int]] = {
    "scan": (landing, "scan", 1),  # the folder is looked through, nothing is written
    "seen": (catalogue, "refresh", 1),  # the catalogue is written, not committed
    "looked": (sensors, "_look", 1),  # the catalogue is committed
    "asked": (sensors, "_request", 1),  # the answer is there, the daemon does not know it
    "event": (dg.DagsterInstance, "report_runless_asset_event", 1),  # new books are no partitions yet
    "partitions": (dg.DagsterInstance, "add_dynamic_partitions", 1),  # they are, and no run is asked for
    "reserved": (daemon.SensorLaunchContext, "set_run_requests", 1),  # the tick knows its run, there is none
    "created": (dg.DagsterInstance, "create_run", 1),  # it is there, not in the queue
    "queued": (dg.DagsterInstance, "submit_run", 1),  # it is in the queue, the tick does not say so
    "ended": (dg.DagsterInstance, "update_tick", 2),  # the tick is over, the sensor has the old cursor
    "cursor": (dg.DagsterInstance, "update_instigator_state", 2),  # it has the new one
}
"""Functions of a tick that asks for a run, in order, at which return it is killed there, and what is done then."""


def arm(around: Callable[..., None], reach: Callable[[str], None]) -> None:
    """Wrap the functions at the points.

    Args:
        around: Wraps a function of an owner.
        reach: Is told of each point that is reached.
    """
    for point, (owner, name, _) in POINTS.items():
        around(owner, name, after=lambda point=point: reach(point))


def tick(*, work: bool) -> int:
    """Tick once; return the exit code.

    Args:
        work: Execute what is in the queue.
    """
    for sensor in defs.sensors or ():
        assert isinstance(sensor, dg.SensorDefinition)
        if sensor is not sensors.landing_sensor:
            sensor._default_status = dg.DefaultSensorStatus.STOPPED
    sensors.landing_sensor._min_interval = NO_INTERVAL_S
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, module_name=__name__)
    )
    target = InProcessWorkspaceLoadTarget(origin)
    with (
        open_instance(load_settings(), capture_prints=False) as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        errors = _spent(daemon.execute_sensor_iteration(workspace, logging.getLogger(__name__), None, None))
        assert not errors, errors
        queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
        for run in instance.get_runs(queued) if work else ():
            _execute(instance, run)
        return AT_REST if _is_at_rest(instance) else 0


def _spent(steps: Iterable[Any]) -> list[Any]:
    return [error for error in steps if error is not None]


def _execute(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    starting = DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
    instance.report_dagster_event(starting, run_id=run.run_id)
    started = instance.get_run_by_id(run.run_id)
    assert started is not None
    assert started.job_code_origin is not None
    execute_run(recon_job_from_origin(started.job_code_origin), started, instance)


def _is_at_rest(instance: dg.DagsterInstance) -> bool:
    """Say whether the last tick found nothing to do."""
    (state,) = [
        one for one in instance.all_instigator_state() if one.instigator_name == sensors.landing_sensor.name
    ]
    (last,) = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    return "nothing new" in (last.skip_reason or "")
