"""`era bench embed`: the two forms of the local model, measured side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from click.testing import CliRunner

from era_ingest.bench.embed import LONG_CHARS, make_long_texts, shared_neighbours
from era_ingest.cli import cli
from era_ingest.cli.app import load_commands

if TYPE_CHECKING:
    from pathlib import Path


def test_int8_is_set_beside_float32(models_dir: Path) -> None:
    """Speeds are positive, and the vectors of both forms are nearly the same."""
    load_commands()
    arguments = ["bench", "embed", "-n", "1", "--short", "24", "--long", "2", "--json"]
    done = CliRunner().invoke(cli, arguments, env={"ERA_MODELS_DIR": str(models_dir)})
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    figures = {name: series["median"] for name, series in found["figures"].items()}
    assert all(value > 0 for value in figures.values())
    assert 0.95 < figures["int8_cosine_least"] <= figures["int8_cosine_mean"] < 0.9999
    assert set(found["ratios"]) == {"int8_over_float32_short", "int8_over_float32_long"}


def test_neighbours_are_counted_by_text() -> None:
    """The same vectors keep all ten; vectors of opposite order keep few."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert shared_neighbours(vectors, vectors) == 1.0
    assert shared_neighbours(vectors, vectors[::-1].copy()) < 0.6


def test_long_texts_are_distinct_and_just_over_their_length() -> None:
    """Whole sentences, none twice."""
    texts = make_long_texts(5)
    assert len(set(texts)) == 5
    assert all(LONG_CHARS <= len(text) < LONG_CHARS + 120 for text in texts)
