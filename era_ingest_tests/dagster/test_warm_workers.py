"""Workers that are forked from a warm process: Dagster's own code server starts, watches and cancels them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import DefaultRunLauncher
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.impl import start_run_in_subprocess
from dagster._grpc.types import CancelExecutionRequest

from era_ingest.definitions import defs
from era_ingest.orchestration import warm
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.jobs import INGEST_JOB, LANDING_JOB, books_config
from era_ingest.orchestration.partitions import BOOKS, build_target
from era_ingest.orchestration.run_queue import DEFINITIONS, DagsterRunQueue
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import write_book

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork is not safe")

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
LAUNCHES = 50
"""So many runs may go before one is forked: the first ones come before the warm process, or find it importing."""


@dataclass
class CodeServer:
    """A code server, and an embedder that takes connections and never answers: runs that embed stay at work.

    Attributes:
        instance: Dagster's.
        process: The code server.
        client: Asks it.
        embedder: The silent embedder.
        temporary: Its folder for temporary files.
        landing: The landing folder.
        numbers: Of the books that are put there.
    """

    instance: dg.DagsterInstance
    process: psutil.Process
    client: DagsterGrpcClient
    embedder: socket.socket
    temporary: Path
    landing: Path
    numbers: Iterator[int] = field(default_factory=count)

    def launch(self, job: str, config: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Have a run started as the daemon does; return its id."""
        ingest = DagsterRunQueue(self.instance, defs.resolve_job_def(INGEST_JOB))._origin()
        run = self.instance.create_run_for_job(
            defs.resolve_job_def(job),
            run_config=dict(config),
            tags=dict(tags),
            status=dg.DagsterRunStatus.STARTING,
            remote_job_origin=ingest.repository_origin.get_job_origin(job),
        )
        DefaultRunLauncher.launch_run_from_grpc_client(self.instance, run, self.client)
        return run.run_id

    def launch_stuck(self) -> tuple[str, psutil.Process]:
        """Have a run started that waits for the embedder; return its id and its worker, once it does."""
        book = f"book-{next(self.numbers)}"  # two runs do not embed the same texts at once
        write_book(self.landing, book)
        self.instance.add_dynamic_partitions(str(BOOKS.name), [book])
        run_id = self.launch(INGEST_JOB, books_config(None), build_target([book], [book]).tags)
        connection, _ = self.embedder.accept()
        connection.detach()  # stays open as long as the test
        return run_id, self.worker(run_id)

    def launch_stuck_and_forked(self) -> tuple[str, psutil.Process, psutil.Process]:
        """Do so until the worker is one that was forked; return the warm process too."""
        for _ in range(LAUNCHES):
            run_id, worker = self.launch_stuck()
            parent = worker.parent()
            if parent is not None and parent != self.process:
                return run_id, worker, parent
            worker.kill()
            self.ends_as(run_id, dg.DagsterRunStatus.FAILURE)
        pytest.fail("No worker was forked.")

    def worker(self, run_id: str) -> psutil.Process:
        """Return the process of a run."""
        started = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START)
        pid = started[0].get_dagster_event().pid
        assert pid is not None
        return psutil.Process(pid)

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def ends_as(self, run_id: str, status: dg.DagsterRunStatus) -> None:
        """Wait until a run has ended in one way."""
        assert Waiter().until(lambda: self.status(run_id) is status, DEADLINE_S), self.status(run_id)

    def cancel(self, run_id: str) -> None:
        """Cancel a run as the UI does."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_run_canceling(run)
        self.client.cancel_execution(CancelExecutionRequest(run_id=run_id))


@pytest.fixture
def code_server(
    dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CodeServer]:
    """A code server with an empty landing folder before it."""
    (tmp_path / "landing").mkdir()
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as embedder, TemporaryDirectory() as temporary:
        embedder.settimeout(DEADLINE_S)
        for name, value in {
            "TMPDIR": temporary,  # a short path: sockets will lie in it
            "ERA_DATABASE_URL": dagster_database_url,
            "ERA_HOME": str(tmp_path / "home"),
            "ERA_LANDING_DIR": str(tmp_path / "landing"),
            "ERA_MINISTERS_DIR": str(tmp_path / "ministers"),
            "ERA_EMBEDDER": "openai",
            "ERA_EMBED_URL": f"http://127.0.0.1:{embedder.getsockname()[1]}",
            "ERA_EMBED_MODEL": "m",
            "ERA_EMBED_API_KEY": "k",
            "ERA_EMBED_TIMEOUT_S": "3600",  # a run that is stuck makes one connection
        }.items():
            monkeypatch.setenv(name, value)
        with open_instance(load_settings(), capture_prints=False) as instance, running(tmp_path) as process:
            client = DagsterGrpcClient(socket=str(tmp_path / "socket"))
            assert Waiter().until(lambda: answers(client), DEADLINE_S)
            yield CodeServer(instance, process, client, embedder, Path(temporary), tmp_path / "landing")


@contextmanager
def running(folder: Path) -> Iterator[psutil.Process]:
    """Run a code server, in a session of its own."""
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--socket", str(folder / "socket")]
    with subprocess.Popen(
        [*command, "-m", DEFINITIONS],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def answers(client: DagsterGrpcClient) -> bool:
    try:
        return bool(client.ping("there?")["echo"] == "there?")
    except Exception:  # noqa: BLE001 - not yet, in whatever way
        return False


def are_gone(*processes: psutil.Process) -> bool:
    """Wait until processes have ended; whether their parent has taken note of it is the parent's affair."""
    return all(Waiter().until(partial(has_ended, one), DEADLINE_S) for one in processes)


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.timeout(400)
def test_forked_workers_are_runs_like_others(code_server: CodeServer) -> None:
    """One succeeds, one is cancelled, one is killed and fails; their parent has one thread, and no child at the end."""
    cancelled, worker, parent = code_server.launch_stuck_and_forked()
    assert parent.parent() == code_server.process
    assert len(parent.threads()) == 1
    code_server.cancel(cancelled)
    code_server.ends_as(cancelled, dg.DagsterRunStatus.CANCELED)
    assert are_gone(worker)
    killed, worker = code_server.launch_stuck()
    assert worker.parent() == parent
    worker.kill()
    code_server.ends_as(killed, dg.DagsterRunStatus.FAILURE)
    succeeded = code_server.launch(LANDING_JOB, {}, {})
    code_server.ends_as(succeeded, dg.DagsterRunStatus.SUCCESS)
    assert Waiter().until(lambda: parent.children() == [], DEADLINE_S)


@pytest.mark.timeout(400)
def test_runs_outlive_the_warm_process_which_does_not_outlive_the_code_server(
    code_server: CodeServer,
) -> None:
    """Killed, it takes no run with it: that can be cancelled; another one forks the next; and ends with the server."""
    orphan, worker, parent = code_server.launch_stuck_and_forked()
    parent.kill()
    assert are_gone(parent)
    following, other, heir = code_server.launch_stuck_and_forked()
    assert heir != parent
    assert code_server.status(orphan) is dg.DagsterRunStatus.STARTED
    code_server.cancel(orphan)
    code_server.ends_as(orphan, dg.DagsterRunStatus.CANCELED)
    assert are_gone(worker)
    code_server.process.kill()
    assert code_server.status(following) is dg.DagsterRunStatus.STARTED
    other.kill()
    assert are_gone(other, heir)
    assert not list(code_server.temporary.glob("pymp-*"))


def test_a_run_gets_a_python_of_its_own_where_the_code_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither old code nor what others ask of the standard library comes from the warm process."""
    parent = warm.WarmParent(pause_s=0.0)
    monkeypatch.setattr(warm.WarmParent, "_prove", lambda made: made._ready.set())
    parent.make_process(start_run_in_subprocess)
    assert parent._ready.wait(10)
    assert isinstance(parent.make_process(start_run_in_subprocess), warm.WarmProcess)
    assert not isinstance(parent.make_process(print), warm.WarmProcess)
    monkeypatch.setattr(warm, "_code_on_disk", dict)
    assert not isinstance(parent.make_process(start_run_in_subprocess), warm.WarmProcess)


def test_a_code_server_asks_us() -> None:
    """Where the definitions are loaded, a spawned process is one that we make."""
    assert vars(multiprocessing.get_context("spawn"))["Process"] == warm._WARM_PARENT.make_process
