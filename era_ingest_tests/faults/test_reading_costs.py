"""No file costs more than a second of CPU time a megabyte, or ten times its size in memory.

The second is one of a machine that does a fixed piece of work in a given time (see `reading_cost`): on a slower or
busier one it is as much longer as that work takes there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from era_ingest_tests.faults.reading_cost import CLEAR, SHAPES, measure_cost
from era_ingest_tests.faults.scale import short_and_long

if TYPE_CHECKING:
    from pathlib import Path

TRIES = 3
LEAST_S = 1.0
LEAST_BYTES = 6 << 20
"""What a file may cost whatever its size: one batch of rows, one list of defects."""


@pytest.mark.skipif(not CLEAR.exists(), reason="the peak of a process is measured as Linux tells it")
@pytest.mark.parametrize("megabytes", short_and_long(1, 8))
@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_is_dear_to_read(shape: str, megabytes: int, tmp_path: Path) -> None:
    """Chapters of sixty bytes and of three, lists in lists, thousands of keys, entries, headings, feeds."""
    path = tmp_path / shape
    path.write_text(SHAPES[shape](megabytes * 1_000_000), encoding="utf-8")
    size = path.stat().st_size
    bound_s = LEAST_S + size / 1e6
    for _ in range(TRIES):  # other work on the machine makes it dearer, nothing makes it cheaper
        cost = measure_cost(path)
        if cost.cpu_s <= bound_s * cost.slowness:
            break
    assert cost.cpu_s <= bound_s * cost.slowness, cost
    assert cost.peak_bytes <= LEAST_BYTES + 10 * size, (cost, cost.peak_bytes / size)
