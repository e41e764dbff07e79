"""`era bench post`: how long whoever hands in a book waits, and how long it takes until the book is found.

A service of its own takes the posts, each a small book of its own. First one after another, then so many at once; no
daemon runs, so that this is what acceptance alone costs. Then, with ``era dev`` beside it, one book at a time on an
idle machine, in parts: *post* until the answer; *queued* until the daemon takes the run; *launch* until the run's
process says that it began (the first is a new Python, and does not count; the others are forked from a warm process);
*to step* until it works on the book; *chunk*, *embed* and *load*, where the job tells them, within *step*, which is
until the run ends. *Searchable* is from the post until a search finds the book.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg

from era_ingest.bench.caller import calling, serving
from era_ingest.bench.measure import Benchmark, collect, load_average
from era_ingest.bench.scratch import scratch_database, scratch_home
from era_ingest.bench.workload import make_sentences
from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from era_ingest.settings import Settings

ENTRIES = 40
_LOOK_EVERY_S = 0.05
_LONGEST_S = 300.0
_WARM_UP_S = 15.0
"""After the first run, until there is a warm process from which those that follow are forked."""
_STOP_S = 60.0
_ACCEPTED = 202
_EVENTS = {
    "PIPELINE_STARTING": "taken",
    "PIPELINE_START": "began",
    "STEP_START": "step",
    "PIPELINE_SUCCESS": "ended",
}
_STAGES = {"chunks": "chunk_s", "embeddings": "embed_s", "vector_tables": "load_s"}


@dataclass(frozen=True, slots=True)
class Posting:
    """Where books are posted to.

    Attributes:
        service: URL of the service.
        database: URL of its database.
        environment: What its processes find in theirs.
    """

    service: str
    database: str
    environment: Mapping[str, str]


def bench_posts(
    settings: Settings,
    *,
    at_once: int = 50,
    singles: int = 20,
    runs: int = 3,
    on_step: Callable[[str], None] = lambda _: None,
) -> Benchmark:
    """Measure posts by themselves.

    Args:
        settings: ERA_DATABASE_URL says on which server; else on an embedded one of its own.
        at_once: Books posted at once, >= 1.
        singles: Books posted one after another, >= 1.
        runs: Repetitions, >= 1.
        on_step: Told what is done next.

    Raises:
        EraError: A post was refused, or the service did not start.
    """
    found = []
    for number in range(runs):
        on_step(f"posts: run {number + 1} of {runs}")
        with _posting(settings) as posting:
            alone = [_post(posting, f"alone {one}") for one in range(singles)]
            with ThreadPoolExecutor(at_once) as threads:
                began = time.perf_counter()
                together = list(threads.map(lambda one: _post(posting, f"at once {one}"), range(at_once)))
                wall_s = time.perf_counter() - began
        figures = {**_percentiles("alone", alone), **_percentiles("at_once", together)}
        found.append({**figures, "at_once_all_s": wall_s})
    workload = {"at_once": at_once, "singles": singles, "entries": ENTRIES, "runs": runs}
    return Benchmark("post", workload, collect(found), {}, load_average())


def bench_searchable(
    settings: Settings, *, runs: int = 3, on_step: Callable[[str], None] = lambda _: None
) -> Benchmark:
    """Measure from a post until a search finds the book, with ``era dev`` at work; the first book does not count.

    Args:
        settings: ERA_DATABASE_URL says on which server; else on an embedded one of its own.
        runs: Books, one after another, >= 1.
        on_step: Told what is done next.

    Raises:
        EraError: A run failed, or took longer than five minutes.
    """
    found = []
    with _posting(settings) as posting, _daemon(posting.environment):
        for number in range(runs + 1):
            on_step(f"searchable: {'warm-up' if number == 0 else f'book {number} of {runs}'}")
            found.append(_follow(posting, f"followed {number}", seed=100 + number))
            time.sleep(_WARM_UP_S if number == 0 else 0.0)
    return Benchmark("searchable", {"entries": ENTRIES, "runs": runs}, collect(found[1:]), {}, load_average())


@contextmanager
def _posting(settings: Settings) -> Iterator[Posting]:
    """Yield a service of an empty installation."""
    with scratch_home(settings) as (home, server), scratch_database(server) as url:
        landing = home / "landing"
        landing.mkdir()
        environment = {
            **os.environ,
            "ERA_DATABASE_URL": url,
            "ERA_HOME": str(home / "home"),
            "ERA_LANDING_DIR": str(landing),
            "ERA_MINISTERS_DIR": str(home / "ministers"),
            "ERA_EMBEDDER": "hashing",
            "ERA_SERVE_MAX_WAITING": "100000",
            "ERA_SERVE_RATE_PER_S": "0",
        }
        environment.pop("DAGSTER_HOME", None)
        with serving(environment) as service:
            yield Posting(service, url, environment)


@contextmanager
def _daemon(environment: Mapping[str, str]) -> Iterator[None]:
    """Run ``era dev`` for the length of a context."""
    command = [sys.executable, "-m", "era_ingest", "dev", "--port", "0", "--serve-port", "0"]
    with subprocess.Popen(  # noqa: S603 - this very program
        command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _post(posting: Posting, name: str) -> float:
    """Post a book; return the seconds until the answer, connection included."""
    book = build_book(name, seed=1)
    began = time.perf_counter()
    with calling(posting.service) as caller:
        answer = caller.post(f"/v1/ingest?book={name.replace(' ', '%20')}", book)
    took_s = time.perf_counter() - began
    if answer.status != _ACCEPTED:
        raise EraError(f"A post was refused: {answer.json}")
    return took_s


def build_book(name: str, *, seed: int) -> dict[str, Any]:
    """Return a book of ``ENTRIES`` principles in one chapter, in sentences of its own for each seed."""
    chapter = {"chapter_index": 1, "domains": ["bench"], "principles": make_sentences(ENTRIES, seed)}
    return {"title": name, "chapters": [chapter]}


def _follow(posting: Posting, name: str, *, seed: int) -> dict[str, float]:
    """Post a book and wait until it is found; return what each part took."""
    book = build_book(name, seed=seed)
    give_up_at = time.monotonic() + _LONGEST_S
    with calling(posting.service) as caller:
        posted_at = time.time()
        answer = caller.post(f"/v1/ingest?book={name.replace(' ', '%20')}", book)
        answered_at = time.time()
        job = answer.json["status_url"]
        query = {"text": book["chapters"][0]["principles"][0], "k": 1, "book": name}
        while not _is_found(caller, query):
            if time.monotonic() > give_up_at:
                raise EraError(f"The book was not found within {_LONGEST_S:.0f} s: {caller.get(job).json}")
            time.sleep(_LOOK_EVERY_S)
        found_at = time.time()
        while (status := caller.get(job).json)["state"] in {"queued", "running"}:
            time.sleep(_LOOK_EVERY_S)
    if status["state"] != "succeeded":
        raise EraError(f"The run of the book ended as {status['state']}: {status['error']}")
    told = {stage["name"]: stage["seconds"] for stage in status["stages"]}
    stages = {figure: told[name] for name, figure in _STAGES.items() if told.get(name) is not None}
    at = _event_times(posting.database, str(answer.json["job_id"]))
    ended_at = at["ended"]
    return {
        "post_s": answered_at - posted_at,
        "queued_s": at["taken"] - answered_at,
        "launch_s": at["began"] - at["taken"],
        "to_step_s": at["step"] - at["began"],
        **stages,
        "step_s": ended_at - at["step"],
        "searchable_s": found_at - posted_at,
        "ended_s": ended_at - posted_at,
    }


def _is_found(caller: Any, query: dict[str, Any]) -> bool:
    answer = caller.post("/v1/search", query)
    return bool(answer.status == 200 and answer.json["results"])  # noqa: PLR2004 - OK


def _event_times(database: str, run_id: str) -> dict[str, float]:
    """Return when a run's first event of each kind was, seconds since 1970, from Dagster's own records."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            """
            select dagster_event_type, min(extract(epoch from timestamp))::float8 from dagster.event_logs
            where run_id = %s and dagster_event_type = any(%s) group by dagster_event_type
            """,
            (run_id, list(_EVENTS)),
        ).fetchall()
    return {_EVENTS[kind]: float(at) for kind, at in rows}


def _percentiles(name: str, took_s: Sequence[float]) -> dict[str, float]:
    return {f"{name}_p{share}_s": float(np.percentile(took_s, share)) for share in (50, 95)}
