"""Soak: books arrive, change and go for a long time; what the process holds stays flat."""

from __future__ import annotations

import gc
import os
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from era_ingest.orchestration.resources import EraResource
from era_ingest.pipelines.work import BookWork
from era_ingest_tests.faults.kit import Installation, Library, write_book
from era_ingest_tests.faults.scale import FACTOR, FIRST_SEED

if TYPE_CHECKING:
    from collections.abc import Callable

TURN_S = 2.0
"""Books arrive this often, seconds: an hour of work, not of a full machine."""
SOAK_S = float(os.environ.get("ERA_TORTURE_SOAK_S", str(3600 * FACTOR)))
BOOKS = 40
WARM_UP = 0.2
MEMORY_GROWTH_BYTES = 32 << 20


def measure(installation: Installation) -> dict[str, float]:
    """Return what could leak: memory, descriptors, threads, connections, temporary files, sessions' tables."""
    gc.collect()
    process = psutil.Process()
    with psycopg.connect(installation.database_url or "") as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchone()
        assert row is not None
    return {
        "memory": process.memory_info().rss,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
        "connections": row[0],
        "temporary files": sum(1 for _ in installation.folder.rglob(".era-*")),
    }


def arrive(installation: Installation, rng: random.Random, library: Library, turn: int) -> None:
    """Write or remove one of the books; their number is bounded, their contents never come again."""
    name = f"book-{rng.randrange(BOOKS)}"
    path = installation.landing / f"{name}.json"
    if path.exists() and rng.random() < 0.2:
        path.unlink()
    else:
        write_book(installation.landing, name, library.book(), version=turn)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_an_hour_of_arrivals_leaves_everything_flat(
    applied: Installation, note: Callable[[str, float], None]
) -> None:
    """After a warm-up nothing grows: what ``everything`` runs of one process hold at the end, they held before."""
    rng, library = random.Random(FIRST_SEED), Library(FIRST_SEED)
    resource = EraResource()
    measures: deque[tuple[float, dict[str, float]]] = deque()
    begun = time.monotonic()
    turn = 0
    while (elapsed := time.monotonic() - begun) < SOAK_S:
        turn += 1
        for _ in range(rng.randint(1, 4)):
            arrive(applied, rng, library, turn)
        loaded = resource.load(BookWork(everything=True, run_id=f"soak {turn}"), lambda _progress: None)
        assert loaded.report.error is None
        assert not loaded.findings
        resource.build_ministers(None)
        resource.refresh_indexes(None)
        if turn % 10 == 0:
            measures.append((elapsed, measure(applied)))
        time.sleep(max(0.0, begun + turn * TURN_S - time.monotonic()))
    settled = [figures for at, figures in measures if at >= WARM_UP * SOAK_S]
    half = len(settled) // 2
    assert half >= 3, "too short a soak to tell anything"
    for name in settled[0]:
        before, after = _most(settled[:half], name), _most(settled[half:], name)
        note(
            f"soak of {SOAK_S:.0f} s, {turn} turns: {name}, second half over first", after / max(1.0, before)
        )
        allowed = before + (MEMORY_GROWTH_BYTES if name == "memory" else 2)
        assert after <= allowed, f"{name}: {before} in the first half, {after} in the second"


def _most(figures: list[dict[str, Any]], name: str) -> float:
    return float(max(one[name] for one in figures))
