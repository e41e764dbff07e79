"""``era ingest`` as a function: loads, rebuilds, and leaves real runs behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from era_ingest.errors import ConfigurationError
from era_ingest.orchestration import recorded
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.local_run import run_ingest
from era_ingest.pipelines.outcome import IngestOptions
from era_ingest.pipelines.report import BookStatus, Stage
from era_ingest.settings import Settings, load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import write_book

if TYPE_CHECKING:
    from pathlib import Path

    from era_ingest.pipelines.outcome import IngestOutcome
    from era_ingest.pipelines.report import Progress


@pytest.fixture
def settings(dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name, value in {
        "ERA_HOME": str(tmp_path / "home"),
        "ERA_DATABASE_URL": dagster_database_url,
        "ERA_EMBEDDER": "hashing",
        "ERA_MINISTERS_DIR": str(tmp_path / "ministers"),
        "ERA_LANDING_DIR": str(tmp_path / "landing"),
    }.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def ingest(settings: Settings, *paths: Path, force: bool = False) -> IngestOutcome:
    return run_ingest(paths, settings, IngestOptions(force=force), lambda _progress: None)


def statuses(outcome: IngestOutcome) -> dict[str, BookStatus]:
    return {book.slug: book.status for book in outcome.ingest.books}


def test_everything_is_loaded_and_recorded(settings: Settings, tmp_path: Path) -> None:
    """Books, minister files and indexes are made, and each partition of each asset has its materialization."""
    for name in ("first", "second"):
        write_book(tmp_path / "landing", name)
    shown: list[Progress] = []
    outcome = run_ingest([tmp_path / "landing"], settings, IngestOptions(), shown.append)
    assert statuses(outcome) == {"first": BookStatus.LOADED, "second": BookStatus.LOADED}
    assert shown[-1].books_done == 2
    assert outcome.ministers is not None
    assert outcome.ministers.files_written > 0
    with open_instance(settings) as instance:
        for stage in Stage:
            assert instance.get_materialized_partitions(dg.AssetKey(stage.value)) == {"first", "second"}
        assert instance.get_materialized_partitions(dg.AssetKey("minister_files")) == {"ethics"}
        assert instance.get_materialized_partitions(dg.AssetKey("domain_index")) == {"ethics"}
        runs = [instance.get_run_by_id(run_id) for run_id in outcome.run_ids]
    assert [run.job_name for run in runs if run] == ["ingest", "ministers"]
    assert all(run.is_success for run in runs if run)


def test_again_leaves_no_trace(settings: Settings, tmp_path: Path) -> None:
    """An unchanged folder makes no request, writes nothing, and records no run."""
    write_book(tmp_path / "landing", "book")
    ingest(settings, tmp_path / "landing")
    outcome = ingest(settings, tmp_path / "landing")
    assert statuses(outcome) == {"book": BookStatus.UNCHANGED}
    assert outcome.run_ids == ()
    assert outcome.ingest.requests == 0
    with open_instance(settings) as instance:
        assert instance.get_runs_count() == 2


def test_scattered_books_need_no_range(settings: Settings, tmp_path: Path) -> None:
    """Single books out of many are loaded and recorded, without touching those between them."""
    for name in ("alpha", "beta", "gamma"):
        write_book(tmp_path / "landing", name)
    ingest(settings, tmp_path / "landing")
    for name in ("alpha", "gamma"):
        write_book(tmp_path / "landing", name, chapters=3)
    outcome = ingest(settings, tmp_path / "landing" / "alpha", tmp_path / "landing" / "gamma")
    assert statuses(outcome) == {"alpha": BookStatus.LOADED, "gamma": BookStatus.LOADED}
    with open_instance(settings) as instance:
        logs = instance.all_logs(outcome.run_ids[0], of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        events = [entry.get_dagster_event() for entry in logs]
    chunks = [event.partition for event in events if event.asset_key == dg.AssetKey("chunks")]
    assert sorted(map(str, chunks)) == ["alpha", "gamma"]


def test_a_removed_book_is_removed(settings: Settings, tmp_path: Path) -> None:
    """A book that left its landing folder is taken out, with its partition and its domain's files."""
    write_book(tmp_path / "landing", "stays", domains=("Ethics",))
    write_book(tmp_path / "landing", "goes", domains=("War",))
    ingest(settings, tmp_path / "landing")
    shutil.rmtree(tmp_path / "landing" / "goes")
    outcome = ingest(settings, tmp_path / "landing")
    assert statuses(outcome) == {"stays": BookStatus.UNCHANGED, "goes": BookStatus.REMOVED}
    assert not (tmp_path / "ministers" / "war").exists()
    with open_instance(settings) as instance:
        assert instance.get_dynamic_partitions("books") == ["stays"]
        assert instance.get_dynamic_partitions("domains") == ["ethics"]


def test_a_refused_book_is_told_and_takes_no_other_down(settings: Settings, tmp_path: Path) -> None:
    """A broken book is refused with its reason; its neighbour is loaded."""
    write_book(tmp_path / "landing", "good")
    broken = write_book(tmp_path / "landing", "broken")
    (broken / "02_doctrine.json").write_text("[{", encoding="utf-8")
    outcome = ingest(settings, tmp_path / "landing")
    assert statuses(outcome) == {"good": BookStatus.LOADED, "broken": BookStatus.REFUSED}
    assert outcome.quarantined == 1


def test_only_broken_books(settings: Settings, tmp_path: Path) -> None:
    """Where nothing can be loaded, the outcome says why, and so does the run."""
    broken = write_book(tmp_path / "landing", "broken")
    (broken / "02_doctrine.json").write_text("[{", encoding="utf-8")
    outcome = ingest(settings, tmp_path / "landing")
    assert statuses(outcome) == {"broken": BookStatus.REFUSED}
    with open_instance(settings) as instance:
        run = instance.get_run_by_id(outcome.run_ids[0])
    assert run is not None
    assert not run.is_success


def test_a_wrong_path_is_an_error_before_any_run(settings: Settings, tmp_path: Path) -> None:
    """A path that does not exist raises, and nothing is recorded."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        ingest(settings, tmp_path / "nowhere")
    with open_instance(settings) as instance:
        assert instance.get_runs_count() == 0


def test_a_stopped_embedder_is_in_the_outcome(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no server answers, the error stands in the outcome and the run is a failure."""
    write_book(tmp_path / "landing", "book")
    monkeypatch.setenv("ERA_EMBEDDER", "ollama")
    monkeypatch.setenv("ERA_EMBED_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ERA_EMBED_RETRY_BUDGET_S", "0")
    outcome = ingest(load_settings(), tmp_path / "landing")
    assert outcome.ingest.error is not None
    assert outcome.ministers is None
    with open_instance(settings) as instance:
        run = instance.get_run_by_id(outcome.run_ids[0])
    assert run is not None
    assert not run.is_success


def test_an_interrupt_leaves_no_run_behind(settings: Settings, tmp_path: Path) -> None:
    """Ctrl-C while a server keeps silent ends the program with 130, and the run is not at work for ever."""
    write_book(tmp_path / "landing", "book")
    with socket.create_server(("127.0.0.1", 0)) as silent, open_instance(settings) as instance:
        command = [sys.executable, "-m", "era_ingest", "ingest", "-q", str(tmp_path / "landing")]
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "ERA_EMBEDDER": "ollama", "ERA_EMBED_URL": url}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as program:
            started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
            assert Waiter().until(lambda: instance.get_runs_count(started) == 1, 60)
            program.send_signal(signal.SIGINT)
            _, told = program.communicate(timeout=60)
        assert program.returncode == 130, told
        assert "interrupted" in told
        assert instance.get_runs_count(started) == 0


def test_ctrl_c_before_the_first_step_is_an_interrupt(settings: Settings) -> None:
    """Dagster keeps it until the first step and then calls it a failure of the run; `era ingest` waited for ever."""

    @dg.resource
    def bell() -> None:
        signal.raise_signal(signal.SIGINT)

    @dg.op(required_resource_keys={"bell"})
    def step() -> None:
        """Never comes to this."""

    @dg.job(resource_defs={"bell": bell}, executor_def=dg.in_process_executor)
    def rung() -> None:
        step()

    with open_instance(settings) as instance, pytest.raises(KeyboardInterrupt):
        recorded._execute(rung, instance, config={})
