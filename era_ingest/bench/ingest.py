"""`era bench ingest`: the whole command against a local server of given latency, beside a hand-written bound.

Each run takes a copy of a database that `era doctor` has prepared (schema, Dagster's tables), and does four
things, each as a process of its own: the bound, `era ingest`, `era ingest` again unchanged, and again with one
text in a hundred replaced. Bound and `era ingest` take turns at going first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from era_ingest.bench.measure import Benchmark, collect, load_average
from era_ingest.bench.scratch import scratch_database, scratch_home
from era_ingest.bench.server import Latency, running_server
from era_ingest.bench.workload import change_sentences, make_sentences, write_books
from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from era_ingest.settings import Settings

CHANGED_SHARE = 0.01
_TIMEOUT_S = 3600.0
_ERROR_CHARS = 500
_KIB_PER_MB = 1000 / 1.024 if sys.platform != "darwin" else 1e6
_REPLACED = ("ERA_EMBED_API_KEY", "ERA_CHUNKS_URL", "ERA_EMBED_MAX_TOKENS", "ERA_EMBED_MAX_COST")


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended well.

    Attributes:
        wall_s: Seconds from its start to its end, imports included.
        cpu_s: CPU seconds of it and its children.
        peak_mb: Greatest memory of it or one of its children, resident, 10^6 bytes.
        told: The JSON object on the last line of its output.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stand:
    """Where one run takes place.

    Attributes:
        settings: Batch size and bound of requests in flight come from here.
        folder: The run's own folder; ``landing`` in it holds the books.
        server_url: The embedding server.
        database_url: The run's own database.
        dimensions: Size of the vectors.
    """

    settings: Settings
    folder: Path
    server_url: str
    database_url: str
    dimensions: int

    @property
    def landing(self) -> Path:
        """The landing folder."""
        return self.folder / "landing"

    def era(self, *arguments: str) -> Finished:
        """Run ``era`` on this stand."""
        mine = {
            "ERA_HOME": str(self.folder / "home"),
            "ERA_DATABASE_URL": self.database_url,
            "ERA_MINISTERS_DIR": str(self.folder / "ministers"),
            "ERA_LANDING_DIR": str(self.landing),
            "ERA_EMBEDDER": "openai",
            "ERA_EMBED_URL": self.server_url,
            "ERA_EMBED_MODEL": "bench",
            "ERA_EMBED_DIMENSIONS": str(self.dimensions),
        }
        kept = {name: value for name, value in os.environ.items() if name not in _REPLACED}
        return run_process([sys.executable, "-m", "era_ingest", *arguments], {**kept, **mine})

    def ingest(self) -> Finished:
        """Run ``era ingest``."""
        return self.era("ingest", str(self.landing), "--json", "--quiet")

    def bound(self) -> Finished:
        """Run the bound with the same batch size and as many requests in flight at most."""
        command = [sys.executable, "-m", "era_ingest.bench.bound"]
        command += [str(self.landing), self.server_url, self.database_url]
        command += ["--batch", str(self.settings.batch_texts)]
        command += ["--in-flight", str(self.settings.bounds.max_in_flight)]
        return run_process(command, os.environ)


def run_process(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run a program to its end.

    Raises:
        EraError: It failed; the message holds the end of what it said.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)  # noqa: S603 - our own modules
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().decode().splitlines()
        if process.returncode != 0 or not lines:
            err.seek(0)
            said = err.read().decode(errors="replace")[-_ERROR_CHARS:]
            raise EraError(f"{' '.join(command[1:4])} ended with {process.returncode}: {said}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Finished(wall_s, cpu_s, usage.ru_maxrss / _KIB_PER_MB, json.loads(lines[-1]))


def bench_ingest(
    settings: Settings,
    *,
    texts: int = 10_000,
    runs: int = 3,
    latency: Latency | None = None,
    on_run: Callable[[int], None] = lambda _: None,
) -> Benchmark:
    """Measure ingestion end to end.

    Args:
        settings: Where the database is (a scratch one is created there; unset: a scratch embedded server),
            batch size, bound of requests in flight.
        texts: Short distinct texts, >= 100.
        runs: Repetitions, >= 1.
        latency: The server's; None: 60 ms a request and 0.2 ms a text, 768 dimensions.
        on_run: Called with each run's number, from 1, when it is done.

    Raises:
        EraError: One of the programs failed, or did other work than it should.
    """
    latency = latency or Latency()
    found = []
    with (
        scratch_home(settings) as (home, database_server),
        running_server(latency) as server_url,
        scratch_database(database_server) as prepared,
    ):
        Stand(settings, home / "prepared", server_url, prepared, latency.dimensions).era("doctor", "--json")
        for number in range(runs):
            with scratch_database(database_server, template=prepared) as url:
                stand = Stand(settings, home / f"run-{number}", server_url, url, latency.dimensions)
                found.append(_measure(stand, texts, bound_first=number % 2 == 0))
            on_run(number + 1)
    return _summarise(found, texts, latency, settings)


def _measure(stand: Stand, texts: int, *, bound_first: bool) -> dict[str, float]:
    sentences = make_sentences(texts)
    write_books(stand.landing, sentences)
    bound = stand.bound() if bound_first else None
    whole = stand.ingest()
    bound = bound or stand.bound()
    again = stand.ingest()
    changed = change_sentences(sentences, CHANGED_SHARE, seed=2)
    write_books(stand.landing, changed)
    after_change = stand.ingest()
    new = len(set(changed) - set(sentences))
    _check("bound", bound.told["texts"], texts)
    _check("era ingest", whole.told["texts_embedded"], texts)
    _check("era ingest, unchanged", again.told["requests"] + again.told["rows_written"], 0)
    _check("era ingest, changed", after_change.told["texts_embedded"], new)
    return {
        "bound_wall_s": bound.wall_s,
        "bound_inner_s": bound.told["seconds"],
        "bound_cpu_s": bound.cpu_s,
        "bound_peak_mb": bound.peak_mb,
        "era_wall_s": whole.wall_s,
        "era_inner_s": whole.told["seconds"],
        "era_cpu_s": whole.cpu_s,
        "era_peak_mb": whole.peak_mb,
        "era_unchanged_wall_s": again.wall_s,
        "era_changed_wall_s": after_change.wall_s,
        "era_requests": whole.told["requests"],
        "era_rate_limited": whole.told["rate_limited"],
        "era_unchanged_requests": again.told["requests"],
        "era_changed_texts": after_change.told["texts_embedded"],
    }


def _check(what: str, found: int, expected: int) -> None:
    """Refuse to report the speed of work that was not done."""
    if found != expected:
        raise EraError(f"{what}: {found:,} where {expected:,} was right; the figures would mean nothing.")


def _summarise(
    found: Sequence[Mapping[str, float]], texts: int, latency: Latency, settings: Settings
) -> Benchmark:
    figures = collect(found)
    return Benchmark(
        name="ingest",
        workload={
            "texts": texts,
            "request_ms": latency.request_ms,
            "text_ms": latency.text_ms,
            "dimensions": latency.dimensions,
            "batch_texts": settings.batch_texts,
            "max_in_flight": settings.bounds.max_in_flight,
            "runs": len(found),
        },
        figures=figures,
        ratios={
            "era_wall_over_bound_wall": figures["era_wall_s"].over(figures["bound_wall_s"]),
            "era_inner_over_bound_wall": figures["era_inner_s"].over(figures["bound_wall_s"]),
            "era_inner_over_bound_inner": figures["era_inner_s"].over(figures["bound_inner_s"]),
            "era_cpu_over_bound_cpu": figures["era_cpu_s"].over(figures["bound_cpu_s"]),
        },
        load_average=load_average(),
    )
