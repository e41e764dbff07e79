"""Who notices that a process is dead: run monitoring, and the watch over code servers of ``era dev``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from era_ingest.orchestration.dev import CodeServers
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.launcher import EraRunLauncher
from era_ingest.settings import load_settings
from era_ingest_tests.faults.kit import Installation, Library, write_book

if TYPE_CHECKING:
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Forge


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
