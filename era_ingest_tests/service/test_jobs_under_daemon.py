"""Jobs as they are in operation: with Dagster's daemon, a program of its own beside the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest.orchestration.dev import prepare_dagster_home
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import build_doctrine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest_tests.service_kit import Installation, Served

ROOT = Path(__file__).parents[2]
DEADLINE_S = 300.0


@contextmanager
def daemon(**variables: str) -> Iterator[None]:
    """Run Dagster's daemon beside the test."""
    environment = {**os.environ, "DAGSTER_HOME": str(prepare_dagster_home(load_settings())), **variables}
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "era_ingest.definitions"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            yield
        finally:
            running.terminate()
            running.wait(60)
            with suppress(ProcessLookupError):  # its code server waits for runs that it started itself
                os.killpg(running.pid, signal.SIGKILL)


def follow(served: Served, job_id: str) -> list[dict[str, Any]]:
    """Return what the stream of a job tells until its end."""
    body = served.ask("GET", f"/v1/jobs/{job_id}/events").body.decode()
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]


@pytest.mark.timeout(900)
def test_a_posted_book_is_loaded_by_the_daemon_and_found(installation: Installation) -> None:
    """Posted before any daemon ran, followed over a restart of the service, found by a search with its run."""
    with installation.serve() as served:
        job_id = served.ask("POST", "/v1/ingest?book=first", build_doctrine("first")).json["job_id"]
    with installation.serve() as served, daemon():
        assert follow(served, job_id)[-1]["state"] == "succeeded"
        hits = served.ask("POST", "/v1/search", {"text": "patience outlasts haste"}).json["results"]
    assert {hit["source"]["run_id"] for hit in hits} == {job_id}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_at_work_is_cancelled(installation: Installation) -> None:
    """Its embedder accepts connections and never answers; the run ends all the same, and nothing was loaded."""
    with socket.create_server(("127.0.0.1", 0)) as silent, installation.serve() as served:
        stuck = {
            "ERA_EMBEDDER": "openai",
            "ERA_EMBED_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "ERA_EMBED_MODEL": "m",
            "ERA_EMBED_API_KEY": "k",
        }
        with daemon(**stuck):
            job_id = served.ask("POST", "/v1/ingest?book=second", build_doctrine("second")).json["job_id"]
            silent.settimeout(DEADLINE_S)
            connection, _ = silent.accept()
            with connection:
                assert state(served, job_id) == "running"
                assert served.ask("DELETE", f"/v1/jobs/{job_id}").status == 202
                assert Waiter().until(lambda: state(served, job_id) == "cancelled", DEADLINE_S)
    assert installation.count("select count(*) from era.doctrine_sources") == 0


def state(served: Served, job_id: str) -> str:
    return str(served.ask("GET", f"/v1/jobs/{job_id}").json["state"])
