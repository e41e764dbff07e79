"""ERA_LOG_FORMAT in the programs that people run: ingest, serve, a run of Dagster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest_tests.server_faults import Fault, Rule
from era_ingest_tests.servers import EmbeddingServer, ServerOptions
from era_ingest_tests.service_kit import Served

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY = "sk-of-the-embedder"
RUN_OF_ONE_BOOK = """
from era_ingest.definitions import defs
from era_ingest.orchestration.instance import open_instance
from era_ingest.settings import load_settings

config = {"ops": {"load_books": {"config": {"books": ["broken"]}}}}
with open_instance(load_settings()) as instance:
    job = defs.resolve_job_def("ingest")
    assert not job.execute_in_process(config, instance=instance, raise_on_error=False).success
"""


@pytest.fixture
def environment(tmp_path: Path, dagster_database_url: str) -> dict[str, str]:
    """An installation whose logs are JSON; two books of it are odd, one by its name."""
    landing = tmp_path / "landing"
    landing.mkdir()
    chapter = {"chapter_index": 0, "raw_text": "", "rules": ["one rule", "a poison"]}
    (landing / "good\nbook.json").write_text(json.dumps({"chapters": [chapter]}))
    (landing / "broken.json").write_text('{"chapters": [')
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ERA_", "DAGSTER_"))}
    return {
        **clean,
        "ERA_HOME": str(tmp_path / "home"),
        "ERA_DATABASE_URL": dagster_database_url,
        "ERA_MINISTERS_DIR": str(tmp_path / "ministers"),
        "ERA_LANDING_DIR": str(landing),
        "ERA_EMBEDDER": "hashing",
        "ERA_SETTLE_S": "0",
        "ERA_LOG_FORMAT": "json",
    }


def parse(said: str) -> list[dict[str, Any]]:
    """Return log lines; every line is one."""
    return [json.loads(line) for line in said.splitlines()]


def run(
    arguments: list[str], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=dict(environment),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


async def test_era_ingest_says_what_became_of_each_book_as_json(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Loaded, refused, a text refused by a server that repeats the key: each a line with run, book and stage."""
    rules = (Rule(Fault.ECHO, text="poison"),)
    async with EmbeddingServer(ServerOptions(dimensions=8, rules=rules, api_key=KEY)) as server:
        environment |= {
            "ERA_EMBEDDER": "openai",
            "ERA_EMBED_URL": server.url,
            "ERA_EMBED_MODEL": "m",
            "ERA_EMBED_DIMENSIONS": "8",
            "ERA_EMBED_API_KEY": KEY,
        }
        arguments = ["-m", "era_ingest", "ingest", "--json", environment["ERA_LANDING_DIR"]]
        done = await asyncio.to_thread(run, arguments, environment, tmp_path)
        wrong = {**environment, "ERA_EMBED_API_KEY": "wrong-key-here"}
        failed = await asyncio.to_thread(run, [*arguments, "--force", "--retry-refused"], wrong, tmp_path)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    lines = {line["message"]: line for line in parse(done.stderr)}
    loaded, refused = lines["book loaded"], lines["book refused"]
    assert (loaded["book"], loaded["stage"], loaded["entries"]) == ("good\nbook", "vector_tables", 2)
    assert (refused["book"], refused["stage"], refused["level"]) == ("broken", "books", "warning")
    assert lines["the embedder refuses a text"]["reason"] == "RequestRejectedError"
    assert lines["books ingested"]["texts_embedded"] == summary["texts_embedded"] == 1
    assert {line["run"] for line in lines.values() if "book" in line["message"]} == {summary["run_ids"][0]}
    assert KEY not in done.stderr
    assert failed.returncode == 1
    assert parse(failed.stderr)[-1]["message"] == "the command failed"
    assert "wrong-key-here" not in failed.stderr


def test_for_a_person_era_ingest_says_what_it_always_said(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """On the console no log line stands between its own, unless they are asked for."""
    environment["ERA_LOG_FORMAT"] = "console"
    arguments = ["-m", "era_ingest", "ingest", "-q", environment["ERA_LANDING_DIR"]]
    done = run(arguments, environment, tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("2 books")
    told = run([*arguments, "--force"], {**environment, "ERA_LOG_LEVEL": "info"}, tmp_path)
    line = next(line for line in told.stderr.splitlines() if " book loaded " in line)
    assert 'book="good\\nbook" stage=vector_tables' in line


def test_era_serve_logs_jobs_and_its_own_errors_as_json(environment: dict[str, str], tmp_path: Path) -> None:
    """A book is accepted under its job and name; requests themselves only where they are asked for."""
    environment["ERA_LOG_LEVEL"] = "debug"
    command = [sys.executable, "-m", "era_ingest", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            served = Served(int(program.stdout.readline().rpartition(":")[2]))
            book = {"chapters": [{"chapter_index": 0, "raw_text": "", "rules": ["a rule"]}]}
            posted = served.ask("POST", "/v1/ingest?book=posted", book)
            assert posted.status == 202
            assert served.ask("POST", "/v1/search", {"text": "secret-query"}).status == 503
            program.send_signal(signal.SIGTERM)
            _, said = program.communicate(timeout=60)
        finally:
            program.kill()
    lines = parse(said)
    accepted = next(line for line in lines if line["message"] == "book accepted")
    assert (accepted["job"], accepted["book"]) == (posted.json["job_id"], "posted")
    answered = [line for line in lines if line["message"] == "request answered"]
    assert [(line["route"], line["status"], line["level"]) for line in answered] == [
        ("/v1/ingest", 202, "debug"),
        ("/v1/search", 503, "debug"),
    ]
    assert "secret-query" not in said


def test_a_run_of_dagster_logs_as_json(environment: dict[str, str], tmp_path: Path) -> None:
    """Dagster's events and ours, all under the run's id; a failure with its error in the same line."""
    environment["ERA_LOG_LEVEL"] = "debug"
    failed = run(["-c", RUN_OF_ONE_BOOK], environment, tmp_path)
    assert failed.returncode == 0, failed.stderr
    lines = [json.loads(line) for line in failed.stderr.splitlines() if line.startswith("{")]
    refused = next(line for line in lines if line["message"] == "book refused")
    failure = next(line for line in lines if line.get("event") == "step_failure")
    assert (refused["book"], refused["run"]) == ("broken", failure["run"])
    assert (failure["step"], failure["level"]) == ("load_books", "error")
    assert "No book could be loaded" in failure["error"]
    assert {"run_start", "run_failure"} <= {line.get("event") for line in lines}
    assert " - dagster - " not in failed.stderr
