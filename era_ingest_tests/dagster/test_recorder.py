"""The process that records what ``era ingest`` does: what it is told becomes runs, whoever dies meanwhile."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg
import psutil
import pytest

from era_ingest.errors import PermanentError, StoreUnavailableError
from era_ingest.orchestration.followed import FollowedWork
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.recorder import Message, Recorder, Topic
from era_ingest.orchestration.recorder_worker import RemoteWork
from era_ingest.pipelines.messages import write_message
from era_ingest.pipelines.report import BookReport, BookStatus, IngestReport, Progress
from era_ingest.pipelines.work import BookWork, Loaded
from era_ingest.settings import Settings, load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import write_book

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def settings(dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("ERA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERA_DATABASE_URL", dagster_database_url)
    return load_settings()


@pytest.fixture
def work() -> FollowedWork:
    """Two books that are on their way."""
    work = FollowedWork()
    work.order.set_result(BookWork(slugs=("one", "two"), run_id=str(uuid4()), audit=False))
    return work


def made(slug: str) -> BookReport:
    return BookReport(slug, slug.title(), BookStatus.LOADED, chapters=1, entries=2, rows_written=2)


def test_what_it_is_told_becomes_a_run(
    settings: Settings, work: FollowedWork, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each book has its materializations, and the run is a success, when the ids come back; nothing is said."""
    work.progress = Progress(1, 2, books=[made("one")])
    work.loaded.set_result(Loaded(IngestReport([made("one"), made("two")], model="hashing/1")))
    work.ministers.set_result(None)
    work.indexes.set_result([])
    with Recorder(settings) as recorder:
        run_ids = recorder.record(work)
    assert recorder._process.returncode == 0
    assert capfd.readouterr().err == ""
    assert run_ids == (work.order.result().run_id,)
    with open_instance(settings) as instance:
        run = instance.get_run_by_id(run_ids[0])
        assert instance.get_materialized_partitions(dg.AssetKey("vector_tables")) == {"one", "two"}
    assert run is not None
    assert run.is_success


def test_what_the_work_failed_with_comes_back(settings: Settings, work: FollowedWork) -> None:
    """The error is the work's own, with its remedy; the run says that it failed, and why."""
    work.fail(StoreUnavailableError("The disk is full: make room."))
    with Recorder(settings) as recorder, pytest.raises(StoreUnavailableError, match="make room"):
        recorder.record(work)
    with open_instance(settings) as instance:
        run = instance.get_run_by_id(work.order.result().run_id)
        assert run is not None
        failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert "make room" in str(failures[0].get_dagster_event().step_failure_data.error)


def test_a_recorder_that_dies_is_told(settings: Settings, work: FollowedWork) -> None:
    """The work goes on to its end, and then the command fails: its run is not recorded."""
    work.fail(StoreUnavailableError("away"))
    with Recorder(settings) as recorder:
        recorder._process.kill()
        with pytest.raises(PermanentError, match=r"ended early \(status -9\)"):
            recorder.record(work)


def test_a_recorder_that_fails_by_itself_is_told(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    """An error that nobody foresaw stands on stderr; neither of the two processes waits for the other."""
    work = FollowedWork()
    work.order.set_result("no work at all")  # type: ignore[arg-type]
    work.fail(StoreUnavailableError("away"))
    with Recorder(settings) as recorder, pytest.raises(PermanentError, match=r"ended early \(status 1\)"):
        recorder.record(work)
    assert "AttributeError" in capfd.readouterr().err


def test_a_recorder_that_was_not_needed_leaves_nothing(settings: Settings) -> None:
    """It was started since a file was touched; the books turned out to be what they were."""
    with Recorder(settings) as recorder:
        process = recorder._process
    assert process.returncode == -signal.SIGKILL
    with open_instance(settings) as instance:
        assert instance.get_runs_count() == 0


@pytest.fixture
def silent_program(settings: Settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``era ingest``, at a server that never answers, its run at work."""
    write_book(tmp_path / "landing", "book")
    with socket.create_server(("127.0.0.1", 0)) as silent, open_instance(settings) as instance:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "era_ingest", "ingest", "-q", str(tmp_path / "landing")]
        environment = {**os.environ, "ERA_EMBEDDER": "ollama", "ERA_EMBED_URL": url}
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as program:
            started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
            assert Waiter().until(lambda: instance.get_runs_count(started) == 1, 60)
            yield program
            program.kill()


def test_a_killed_program_leaves_a_failed_run(
    settings: Settings, silent_program: subprocess.Popen[bytes]
) -> None:
    """After kill -9 of the program its run is a failure within seconds, and no process stays behind."""
    recorders = psutil.Process(silent_program.pid).children()
    silent_program.kill()
    with open_instance(settings) as instance:
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
        assert Waiter().until(lambda: instance.get_runs_count(failed) == 1, 60)
    _, alive = psutil.wait_procs(recorders, timeout=30)
    assert recorders
    assert not alive


def test_figures_that_come_at_the_end_are_those_of_earlier_books_too() -> None:
    """A book that finished long ago is recorded with its quarantine as it was counted at the end."""
    work = RemoteWork()
    reading, writing = os.pipe()
    book = made("one")
    with os.fdopen(writing, "wb") as stream:
        for message in _told(book):
            write_message(stream, message)
    with os.fdopen(reading, "rb") as stream:
        work.follow(stream)
    assert work.progress is not None
    assert [(found.slug, found.quarantined) for found in work.progress.books] == [("one", 3)]


def test_a_message_that_is_none_fails_what_waits_for_it() -> None:
    """As where the package is replaced while a program runs: nobody waits for ever."""
    work = RemoteWork()
    work.follow(io.BytesIO((4).to_bytes(8, "little") + b"what"))
    with pytest.raises(PermanentError, match="run the same command again"):
        work.loaded.result(0)


def _told(book: BookReport) -> list[object]:
    counted = replace(book, quarantined=3)
    return [
        Message(Topic.PROGRESS, Progress(1, 1, books=[book])),
        Message(Topic.LOADED, Loaded(IngestReport([counted]))),
    ]
