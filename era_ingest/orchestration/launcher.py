"""Dagster's default run launcher, which also notices workers that died without anybody to tell.

A worker's own code server notices its death within a second. But a worker that outlived its code server, an
``era ingest`` and a ``dagster job execute`` have nobody: killed, their runs would stay "started" for ever, and hold
their pool's only slot with it. So run monitoring asks here, every ten seconds, whether a worker is alive.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import psutil
from dagster import DagsterEventType
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

if TYPE_CHECKING:
    from dagster import DagsterRun

HOST_TAG = "era/host"
"""Name of the machine (or container) on which a run is executed by the process that made it."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CLOCK_SLACK_S = 30.0


class EraRunLauncher(DefaultRunLauncher):
    """Starts runs as the default launcher does; see the module."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Say whether the process of a started run is alive; one on another machine, or unknown, counts as alive."""
        if _host_of(run) != socket.gethostname():
            return CheckRunHealthResult(WorkerStatus.RUNNING, "it runs on another machine")
        started = self._instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_START)
        pid = started[0].get_dagster_event().pid if started else None
        if pid is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "it does not say which process it is")
        if _is_alive(pid, started[0].timestamp):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"the process {pid} that executed it is gone")


def _host_of(run: DagsterRun) -> str | None:
    """Return the machine on which a run is executed, where that can be told."""
    if server := run.tags.get(GRPC_INFO_TAG):
        return socket.gethostname() if json.loads(server).get("host") in _LOOPBACK else None
    return run.tags.get(HOST_TAG)


def _is_alive(pid: int, since: float) -> bool:
    """Say whether a process lives that was there already at a time, seconds since 1970."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False
