"""The graph as its users run it: the daemon on its own, and the lines of a CI job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import psycopg
import pytest

from era_ingest.orchestration.dev import prepare_dagster_home
from era_ingest.orchestration.instance import open_instance
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import write_book

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
DEADLINE_S = 180.0
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@pytest.fixture
def landing(dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty landing folder of an installation that the environment names."""
    folder = tmp_path / "landing"
    folder.mkdir()
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name, value in {
        "ERA_DATABASE_URL": dagster_database_url,
        "ERA_HOME": str(tmp_path / "home"),
        "ERA_EMBEDDER": "hashing",
        "ERA_LANDING_DIR": str(folder),
        "ERA_MINISTERS_DIR": str(tmp_path / "ministers"),
        "ERA_SETTLE_S": "0",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@contextmanager
def daemon(definitions: str = "era_ingest.definitions") -> Iterator[dg.DagsterInstance]:
    """Run ``dagster-daemon`` beside the test; yield the instance that it works on."""
    settings = load_settings()
    environment = {**os.environ, "DAGSTER_HOME": str(prepare_dagster_home(settings))}
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", definitions]
    with (
        open_instance(settings) as instance,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as program,
    ):
        try:
            yield instance
        finally:
            program.terminate()
            program.wait(60)
            with suppress(ProcessLookupError):  # its code server waits for runs that it started itself
                os.killpg(program.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool]) -> None:
    assert Waiter().until(condition, DEADLINE_S)


def dagster(*arguments: str) -> str:
    """Run a line of a CI job in the checkout; return what it printed."""
    command = [sys.executable, "-m", "dagster", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def count(query: str) -> int:
    with psycopg.connect(os.environ["ERA_DATABASE_URL"]) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.timeout(400)
def test_the_daemon_loads_a_burst_in_one_run_and_the_ministers_follow(landing: Path, tmp_path: Path) -> None:
    """Fifty books in the folder: one run of the daemon loads them, another one builds their domains."""
    for number in range(50):
        write_book(landing, f"book-{number:02}", domains=("Ethics", "War"))
    with daemon("era_ingest_tests.faults.quick_definitions") as instance:
        ingest, ministers = dg.RunsFilter(job_name="ingest"), dg.RunsFilter(job_name="ministers")
        wait_for(lambda: finished(instance, ingest))
        wait_for(lambda: finished(instance, ministers))
        statuses = [run.status for run in instance.get_runs()]
        assert instance.get_runs_count(ingest) == 1
        assert len(instance.get_materialized_partitions(dg.AssetKey("vector_tables"))) == 50
        assert instance.get_materialized_partitions(dg.AssetKey("minister_files")) == {"ethics", "war"}
    assert set(statuses) == {dg.DagsterRunStatus.SUCCESS}
    assert count("select count(*) from era.doctrine_embeddings_all") == 200
    files = tmp_path / "ministers" / "ethics" / "principles.json"
    assert json.loads(files.read_text())["meta"]["total_entries"] == 100


def finished(instance: dg.DagsterInstance, runs: dg.RunsFilter) -> bool:
    found = instance.get_runs(runs)
    return bool(found) and all(run.status in FINISHED for run in found)


@pytest.mark.timeout(400)
def test_a_backfill_over_a_range_is_one_run(landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill of all partitions, finished books among them, is a single run and ends as completed."""
    for number in range(6):
        write_book(landing, f"book-{number}")
    dagster("asset", "materialize", "-m", "era_ingest.definitions", "--select", "landing_catalog")
    assets = "books,chunks,embeddings,vector_tables"
    dagster(
        "asset", "materialize", "-m", "era_ingest.definitions", "--select", assets, "--partition", "book-2"
    )
    assert count("select count(*) from era.doctrine_sources") == 1
    monkeypatch.setenv("ERA_SETTLE_S", "3600")  # nothing for the sensor
    with daemon() as instance:
        backfill_id = launch_backfill([f"book-{number}" for number in range(6)])
        wait_for(lambda: status_of(instance, backfill_id).startswith("COMPLETED"))
        assert status_of(instance, backfill_id) == "COMPLETED_SUCCESS"
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    assert len(runs) == 1
    assert count("select count(*) from era.doctrine_sources") == 6


def launch_backfill(partitions: list[str]) -> str:
    """Ask for a backfill as the UI does, by its GraphQL mutation; return its id."""
    mutation = """
        mutation Launch($params: LaunchBackfillParams!) {
          launchPartitionBackfill(backfillParams: $params) {
            __typename
            ... on LaunchBackfillSuccess { backfillId }
            ... on PythonError { message }
          }
        }
    """
    assets = ("books", "chunks", "embeddings", "vector_tables")
    parameters = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": partitions}
    settings = load_settings()
    client = (sys.executable, "-c", "from dagster_graphql.cli import main; main()")
    variables = json.dumps({"params": parameters})
    done = subprocess.run(
        [*client, "-m", "era_ingest.definitions", "-t", mutation, "-v", variables],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(prepare_dagster_home(settings))},
        capture_output=True,
        text=True,
        check=True,
    )
    reply = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return str(reply["data"]["launchPartitionBackfill"]["backfillId"])


def status_of(instance: dg.DagsterInstance, backfill_id: str) -> str:
    backfill = instance.get_backfill(backfill_id)
    assert backfill is not None
    return str(backfill.status.value)


@pytest.mark.timeout(400)
def test_the_lines_of_a_ci_job(landing: Path) -> None:
    """Catalogue, a range of books, their domains: from the command line, without a daemon."""
    for name in ("first", "second", "third"):
        write_book(landing, name)
    select = ("asset", "materialize", "-m", "era_ingest.definitions", "--select")
    dagster(*select, "landing_catalog")
    dagster(*select, "books,chunks,embeddings,vector_tables", "--partition-range", "first...third")
    dagster(*select, "minister_files,domain_index", "--partition", "ethics")
    assert count("select count(*) from era.doctrine_sources") == 3
    with open_instance(load_settings()) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("domain_index")) == {"ethics"}
        assert all(run.is_success for run in instance.get_runs())
