"""`era bench embed`: the local model in float32 and in int8, side by side: how fast, and how alike.

Speeds are texts a second of CPU time, so that other programs disturb them little; the clock's seconds are given
too. What int8 costs in quality is said in two ways: the cosine of each vector with its float32 twin, and how many of
a text's ten nearest neighbours stay among the ten.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_ingest.bench.measure import Benchmark, collect, load_average
from era_ingest.bench.workload import make_sentences
from era_ingest.clients.local import LocalEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from era_ingest.bench.measure import Series

LONG_CHARS = 800
BATCH_TEXTS = 128
NEIGHBOURS = 10
_WARM_UP = 16


class Timed(NamedTuple):
    """Vectors of texts, float32[n, 384], and what they took: CPU and wall time, seconds."""

    vectors: NDArray[np.float32]
    cpu_s: float
    wall_s: float


def bench_embed(
    models_dir: Path,
    *,
    short: int = 1_000,
    long: int = 100,
    runs: int = 3,
    on_run: Callable[[int], None] = lambda _: None,
) -> Benchmark:
    """Measure the local model.

    Args:
        models_dir: Where it was fetched to.
        short: Sentences of about 60 characters, > 10.
        long: Texts of about 800 characters, >= 1.
        runs: Repetitions, >= 1; float32 goes first in one, last in the next.
        on_run: Called with each run's number, from 1, when it is done.

    Raises:
        ModelNotFoundError: It was not fetched yet.
    """
    sentences, texts = make_sentences(short), make_long_texts(long)
    embedders = [LocalEmbedder(models_dir, int8=int8) for int8 in (False, True)]
    for embedder in embedders:
        embedder.compute(sentences[:_WARM_UP])
    found = []
    for number in range(runs):
        figures: dict[str, float] = {}
        vectors: dict[str, NDArray[np.float32]] = {}
        for embedder in embedders if number % 2 == 0 else reversed(embedders):
            kind = "int8" if embedder.name.endswith("int8") else "float32"
            for size, chosen in (("short", sentences), ("long", texts)):
                timed = _embed(embedder, chosen)
                figures[f"{kind}_{size}_texts_per_cpu_s"] = len(chosen) / timed.cpu_s
                figures[f"{kind}_{size}_texts_per_s"] = len(chosen) / timed.wall_s
                vectors[f"{kind} {size}"] = timed.vectors
        cosines = np.concatenate(
            [(vectors[f"float32 {size}"] * vectors[f"int8 {size}"]).sum(axis=1) for size in ("short", "long")]
        )
        figures["int8_cosine_mean"], figures["int8_cosine_least"] = (
            float(cosines.mean()),
            float(cosines.min()),
        )
        figures["int8_neighbours_kept"] = shared_neighbours(vectors["float32 short"], vectors["int8 short"])
        found.append(dict(sorted(figures.items())))
        on_run(number + 1)
    series = collect(found)
    return Benchmark(
        name="embed",
        workload={"short": short, "long": long, "long_chars": LONG_CHARS, "runs": runs},
        figures=series,
        ratios={
            f"int8_over_float32_{size}": series[f"int8_{size}_texts_per_cpu_s"].over(
                series[f"float32_{size}_texts_per_cpu_s"]
            )
            for size in ("short", "long")
        },
        load_average=load_average(),
    )


def _gain(series: Mapping[str, Series], size: str) -> float:
    return series[f"int8_{size}_texts_per_cpu_s"].over(series[f"float32_{size}_texts_per_cpu_s"])


def make_long_texts(count: int) -> list[str]:
    """Return so many distinct texts of whole sentences, each just over ``LONG_CHARS``."""
    texts: list[str] = []
    sentences = iter(make_sentences(count * (LONG_CHARS // 40), seed=3))
    for _ in range(count):
        text = next(sentences)
        while len(text) < LONG_CHARS:
            text += " " + next(sentences)
        texts.append(text)
    return texts


def shared_neighbours(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the share, 0 to 1, of each text's ten nearest by one set of vectors that are so by the other.

    Args:
        first: float32[n, d], rows of length 1, n > 10.
        second: Of the same texts.
    """
    both = [_nearest(vectors) for vectors in (first, second)]
    kept = [len(set(mine) & set(theirs)) for mine, theirs in zip(*both, strict=True)]
    return float(np.mean(kept)) / NEIGHBOURS


def _nearest(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def _embed(embedder: LocalEmbedder, texts: Sequence[str]) -> Timed:
    cpu, wall = time.process_time(), time.perf_counter()
    parts = [
        embedder.compute(texts[start : start + BATCH_TEXTS]).vectors
        for start in range(0, len(texts), BATCH_TEXTS)
    ]
    return Timed(np.concatenate(parts), time.process_time() - cpu, time.perf_counter() - wall)
