"""SIGKILL of what runs beside the books: daemon, webserver, code server, run worker, ``era ingest``, the database.

Nobody starts anything again by hand: ``era dev`` does, or the embedded server's warden, or the next command.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import psycopg
import pytest

from era_ingest.orchestration.dev import CodeServers
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.launcher import EraRunLauncher
from era_ingest.settings import load_settings
from era_ingest.store.embedded import hold, status
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.faults.conftest import ROOT
from era_ingest_tests.faults.kit import (
    Installation,
    Library,
    cases,
    differences,
    picture,
    write_book,
    write_corpus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Databases, Forge

RECOVERY_S = 180.0
VICTIMS = {
    "webserver": "dagster_webserver",
    "daemon": "dagster._daemon",
    "service": "era_ingest serve",
    "code server": "code-server",
    "code process": "api grpc",
    "database": "postgres",
}


def eventually(condition: Callable[[], bool], seconds: float = RECOVERY_S) -> bool:
    return Waiter().until(condition, seconds)


class Dev:
    """A running ``era dev``."""

    def __init__(self, installation: Installation, port: int, process: subprocess.Popen[bytes]) -> None:
        self.installation = installation
        self.port = port
        self.process = process

    def answers(self) -> bool:
        """Say whether the UI answers and a daemon beats."""
        query = json.dumps(
            {"query": "{instance{daemonHealth{allDaemonStatuses{healthy required}}}}"}
        ).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", query, {"Content-Type": "application/json"}
        )
        with suppress(OSError, ValueError, KeyError):
            with urllib.request.urlopen(request, timeout=10) as reply:
                found = json.loads(reply.read())["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
            return all(one["healthy"] for one in found if one["required"])
        return False

    def victims(self, kind: str) -> set[psutil.Process]:
        """Return the living processes of a kind."""
        if kind == "database":
            pid = status(self.installation.home).pid
            return {psutil.Process(pid)} if pid else set()
        found = set()
        with suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if VICTIMS[kind] in " ".join(process.cmdline()):
                        found.add(process)
        return found

    def books(self) -> int:
        """Return how many books are loaded; -1 while the database is away."""
        url = status(self.installation.home).url
        with suppress(psycopg.Error):
            with psycopg.connect(url or "") as connection:
                row = connection.execute("select count(*) from era.doctrine_sources").fetchone()
            return int(row[0]) if row else -1
        return -1


@contextmanager
def running_dev(installation: Installation) -> Iterator[Dev]:
    """Run ``era dev`` for the length of a context."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "era_ingest", "dev", "--port", str(port), "--serve-port", "0"]
    with (
        installation.log.open("ab") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=installation.environment(), stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield Dev(installation, port, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(90)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", cases(0, 50))
def test_a_killed_part_of_era_dev_comes_back(
    tmp_path: Path, seed: int, note: Callable[[str, float], None]
) -> None:
    """Each part is killed once, in any order; the UI is there again, and a book that arrives then is loaded."""
    rng = random.Random(seed)
    installation = Installation(tmp_path, None, {"ERA_EMBEDDER": "hashing"})
    library = Library(seed)
    with running_dev(installation) as dev:
        assert eventually(dev.answers), installation.log.read_text()[-3000:]
        order = rng.sample(sorted(VICTIMS), k=len(VICTIMS))
        for kind in order:
            old = dev.victims(kind)
            assert old, kind
            begun = time.monotonic()
            for victim in old:
                victim.kill()
            assert eventually(partial(_are_new, dev, kind, old)), f"{kind}, {order}"
            assert eventually(dev.answers), f"{kind}, {order}: {installation.log.read_text()[-3000:]}"
            note(f"era dev: {kind} killed: seconds until it is back", time.monotonic() - begun)
        write_book(installation.landing, "arrives", library.book())
        assert eventually(lambda: dev.books() == 1), installation.log.read_text()[-3000:]
    assert not status(installation.home).running


def _are_new(dev: Dev, kind: str, old: set[psutil.Process]) -> bool:
    found = dev.victims(kind)
    return bool(found) and not found & old


@pytest.mark.parametrize("seed", cases(2, 50))
def test_era_ingest_killed_leaves_no_server_and_the_next_goes_on(
    forge: Forge, tmp_path: Path, seed: int, embedded_control: dict[str, object]
) -> None:
    """On the embedded server: killed at any time from its start on; the server stops, the next run completes."""
    rng = random.Random(seed)
    installation = Installation(tmp_path, None, {"ERA_EMBEDDER": "hashing"})
    write_corpus(installation.landing, 13)
    if rng.random() < 0.5:
        hold(installation.home).close()  # half of them meet a database that was made before
    command = ("era", "ingest", "-q", str(installation.landing))
    forge.run(installation, *command, kill_after_s=rng.uniform(0.0, 3.0))
    assert eventually(lambda: not status(installation.home).running, 60)
    assert forge.run(installation, *command) == 0, installation.log.read_text()[-3000:]
    assert eventually(lambda: not status(installation.home).running, 60)
    with hold(installation.home) as lease:
        assert not differences(picture(installation, lease.url), embedded_control)


@pytest.fixture(scope="module")
def embedded_control(
    forge: Forge, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, object]]:
    """What the same books come to, undisturbed."""
    url = databases.create("embedded_control")
    installation = Installation(tmp_path_factory.mktemp("control"), url, {"ERA_EMBEDDER": "hashing"})
    write_corpus(installation.landing, 13)
    assert forge.run(installation, "era", "ingest", "-q", str(installation.landing)) == 0
    yield picture(installation)
    databases.drop("embedded_control")


@pytest.mark.parametrize("program", ["era ingest", "dagster job execute"])
def test_a_killed_run_is_not_at_work_for_ever(
    forge: Forge, applied: Installation, tmp_path: Path, program: str
) -> None:
    """Run monitoring finds out that the process is gone: the run fails, and its pool's slot is free again."""
    applied.settings["ERA_EMBEDDER"] = "ollama"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        applied.settings["ERA_EMBED_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        write_book(applied.landing, "book", Library(1).book())
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"ops": {"load_books": {"config": {"everything": True}}}}))
        commands = {
            "era ingest": ("era", "ingest", "-q", str(applied.landing)),
            "dagster job execute": tuple(
                f"dagster job execute -m era_ingest.definitions -j ingest -c {config}".split()
            ),
        }
        forge.run(applied, *commands[program], kill_after_s=8.0 if program == "era ingest" else 3.0)
    with open_instance(load_settings()) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert isinstance(instance.run_launcher, EraRunLauncher)
        health = instance.run_launcher.check_run_worker_health(run)
        assert health.status.value == "NOT_FOUND", health
        assert str(forge.pid) in str(health.msg)


def test_a_living_run_and_one_elsewhere_are_left_alone(applied: Installation) -> None:
    """The health of a run whose process lives, or that runs on another machine, is good."""

    @dg.op
    def check(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Dagster reads the hint
        launcher = context.instance.run_launcher
        run = context.instance.get_run_by_id(context.run_id)
        assert run is not None
        assert launcher.check_run_worker_health(run).status.value == "RUNNING"
        elsewhere = run.with_tags({**run.tags, "era/host": "another machine"})
        assert launcher.check_run_worker_health(elsewhere).status.value == "RUNNING"

    @dg.job
    def job() -> None:
        check()

    with open_instance(load_settings(), capture_prints=False) as instance:
        assert job.execute_in_process(instance=instance).success


def test_code_servers_that_died_are_missed_after_a_while() -> None:
    """Not while both kinds live, nor for the seconds that a reload takes; then they are."""
    now = [0.0]

    def look_after(seconds: float) -> bool:
        now[0] += seconds
        return watch.are_lost()

    idle = [sys.executable, "-c", "import time; time.sleep(300)"]
    with (
        subprocess.Popen([*idle, "code-server", "start"]) as proxy,
        subprocess.Popen([*idle, "api", "grpc", "x"]) as code,
    ):
        watch = CodeServers(os.getpid(), clock=lambda: now[0])
        assert not look_after(60.0)
        code.kill()
        code.wait()
        assert not look_after(10.0)
        assert look_after(11.0)
        proxy.kill()
