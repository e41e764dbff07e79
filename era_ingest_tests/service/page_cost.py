"""What the pages cost: server time of each over a folder of books, loaded without a model into an embedded server.

Run it with ``python -m era_ingest_tests.service.page_cost FOLDER``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from era_ingest.definitions import defs
from era_ingest.orchestration.run_queue import open_run_queue
from era_ingest.settings import load_settings
from era_ingest.store.embedded import hold
from era_ingest_tests.service.page_kit import WHOLE, load_books, post
from era_ingest_tests.service_kit import Served, serve

ROUNDS = 100
PATHS = ("/", "/books", "/domains", "/jobs", "/quarantine", "/search?q=patience", "/jobs/latest", "/speed")


def main(folder: Path) -> None:
    """Print the median and the 95th percentile of each page, milliseconds."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERA_HOME", home)
        patch.setenv("ERA_LANDING_DIR", f"{home}/landing")
        patch.setenv("ERA_MINISTERS_DIR", f"{home}/ministers")
        patch.setenv("ERA_EMBEDDER", "hashing")
        with hold(Path(home) / "postgres") as lease:
            patch.setenv("ERA_DATABASE_URL", lease.url)
            load_books(folder)
            with serve(load_settings(), (), partial(open_run_queue, definitions=defs)) as served:
                for number in range(6):
                    post(served, f"handed-in-{number}", WHOLE)
                for path in PATHS:
                    _print(path, [_time(served, path) for _ in range(ROUNDS + 1)][1:])


def _time(served: Served, path: str) -> float:
    begun = time.perf_counter()
    answer = served.ask("GET", path, headers={"Accept": "text/html"})
    assert answer.status == 200, answer.body
    return 1000 * (time.perf_counter() - begun)


def _print(path: str, times_ms: list[float]) -> None:
    p95 = statistics.quantiles(times_ms, n=20)[-1]
    print(f"{path:20} p50 {statistics.median(times_ms):6.1f} ms   p95 {p95:6.1f} ms")  # noqa: T201 - what it is for


if __name__ == "__main__":
    main(Path(sys.argv[1]))
