"""`era bench growth`: whether memory grows with the number of texts, and where the time of a large ingestion goes.

The whole command, with the ``hashing`` backend, on a scratch database: first a hundred texts, which tells what the
program holds when it does next to nothing, then all of them. What it and its children hold is looked at all the time;
growth is the slope over the second half of the run, when every buffer has been filled long ago.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from era_ingest.bench.measure import Benchmark, collect, load_average
from era_ingest.bench.programs import Era, Ground
from era_ingest.bench.scratch import scratch_database, scratch_home
from era_ingest.bench.workload import Kind, Workload
from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from era_ingest.bench.process import Finished
    from era_ingest.settings import Settings

TEXTS_A_BOOK = 5_000
IDLE_TEXTS = 100
DIMENSIONS = 768
_PER = 100_000


def bench_growth(
    settings: Settings, *, texts: int = 1_000_000, on_step: Callable[[str], None] = lambda _: None
) -> Benchmark:
    """Ingest many short texts once.

    Args:
        settings: Where the database is (scratch ones are created there; unset: a scratch embedded server).
        texts: How many, >= 100.
        on_step: Told what was done, a line at a time.

    Raises:
        EraError: The program failed, or did other work than it should.
    """
    workload = Workload(Kind.ENTRIES, texts, books=-(-texts // TEXTS_A_BOOK))
    with scratch_home(settings) as (home, database_server):
        idle = _ingest(Workload(Kind.ENTRIES, IDLE_TEXTS, books=1), home / "idle", database_server)
        on_step(f"{IDLE_TEXTS} texts: {idle.peak_mb:.0f} MB")
        done = _ingest(workload, home / "all", database_server)
        on_step(f"{texts:,} texts: {done.peak_mb:.0f} MB in {done.wall_s:.1f} s")
    stages = {f"stage_{name}_s": float(busy) for name, busy in done.told["stage_seconds"].items()}
    figures = {
        "wall_s": done.wall_s,
        "cpu_s": done.cpu_s,
        "rows_per_s": texts / float(done.told["work_seconds"]),
        "idle_mb": idle.peak_mb,
        "peak_mb": done.peak_mb,
        "above_idle_mb": done.peak_mb - idle.peak_mb,
        "growth_mb_per_100k": growth_mb(done.memory, texts),
        **stages,
    }
    return Benchmark(
        name="growth",
        workload={"texts": texts, "books": workload.books, "dimensions": DIMENSIONS, "embedder": "hashing"},
        figures=collect([figures]),
        ratios={},
        load_average=load_average(),
    )


def growth_mb(memory: Sequence[tuple[float, float]], texts: int) -> float:
    """Return by how much memory grows over 100,000 texts, in 10^6 bytes; 0 for too few samples to tell.

    Args:
        memory: Pairs of seconds and 10^6 bytes, over a run whose texts went by evenly.
        texts: Texts of the run, > 0.
    """
    second_half = memory[len(memory) // 2 :]
    if len(second_half) < 2:  # noqa: PLR2004 - a slope needs two points
        return 0.0
    slope, _ = statistics.linear_regression(*zip(*second_half, strict=True))
    return slope * memory[-1][0] * _PER / texts


def _ingest(workload: Workload, folder: Path, database_server: str) -> Finished:
    """Ingest books into a database of their own."""
    program = Era(DIMENSIONS, embedder="hashing")
    with scratch_database(database_server) as url:
        ground = Ground(folder / "landing", folder / "era", "", url)
        workload.write(ground.landing)
        program.prepare(ground)
        done = program.run(ground)
        if (rows := program.count_rows(url)) != workload.texts:
            raise EraError(f"{rows:,} rows of {workload.texts:,} texts; the figures would mean nothing.")
    return done
