"""`era bench search` and `era bench post` as a user types them, in their short forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from era_ingest.bench.load_tool import _parse
from era_ingest.bench.post import build_book
from era_ingest.bench.search_corpus import DOMAINS, TOPICS, Corpus
from era_ingest.cli import cli
from era_ingest.errors import EraError

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner

HEY = """
Summary:
  Requests/sec:\t291.5310

Latency distribution:
  50%% in 0.0031 secs
  95%% in 0.0104 secs

Status code distribution:
  [200]\t580 responses
  [429]\t3 responses
"""


def test_search_prints_times_and_recall_by_filter(runner: CliRunner, tmp_path: Path) -> None:
    """Exact below the size of an index; a row a filter and way; a table and a picture."""
    picture = tmp_path / "search.png"
    arguments = ["--rows", "300", "--dimensions", "32", "-n", "2", "--plot", str(picture)]
    done = runner.invoke(cli, ["bench", "search", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {row["way"] for row in found["rows"]} == {"store", "http"}
    assert {row["recall"] for row in found["rows"] if row["filter"] == "all"} == {1.0, None}
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in found["rows"])
    assert len(found["rows"]) == 14
    assert picture.stat().st_size > 1000


@pytest.mark.slow
def test_post_prints_the_parts_from_post_to_searchable(runner: CliRunner) -> None:
    """With a daemon beside it; the parts are in the order of time, and add up to no more than the whole."""
    done = runner.invoke(cli, ["bench", "post", "-n", "1", "--at-once", "5", "--json"])
    assert done.exit_code == 0, done.output
    posts, searchable = (json.loads(line) for line in done.stdout.splitlines())
    assert posts["figures"]["at_once_p95_s"]["median"] > 0
    parts = {name: series["median"] for name, series in searchable["figures"].items()}
    assert all(parts[name] >= 0 for name in ("post_s", "queued_s", "launch_s", "to_step_s", "step_s"))
    assert parts["searchable_s"] >= parts["post_s"] + parts["queued_s"] + parts["launch_s"]


def test_made_up_rows_are_the_same_each_time_and_their_domains_as_large_as_said() -> None:
    """Thirty, five and half a percent; vectors of unit length; questions are none of the rows."""
    corpus = Corpus(4_000, 48)
    rows = list(corpus._rows())
    assert [row[6] for row in rows] == [row[6] for row in corpus._rows()]
    assert len({row[6] for row in rows}) == len(rows) == 4_000
    for name, topics in DOMAINS.items():
        share = sum(row[9] == [name] for row in rows) / len(rows)
        assert share == pytest.approx(len(topics) / TOPICS, abs=0.02)
    questions = corpus.questions(5, DOMAINS["small"])
    assert all(abs(float(question.vector @ question.vector) - 1) < 1e-5 for question in questions)
    assert not {question.text for question in questions} & {row[11] for row in rows}


def test_what_hey_says_is_read() -> None:
    """Requests a second, the 95th percentile, and what was refused; anything else is an error."""
    said = _parse(HEY, 4)
    assert (said.callers, said.per_s, said.refused) == (4, 291.531, 3)
    assert said.p95_ms == pytest.approx(10.4)
    with pytest.raises(EraError, match="nothing of requests"):
        _parse("connection refused", 1)


def test_posted_books_hold_texts_of_their_own() -> None:
    """By seed, so that none is embedded already."""
    first, second = (set(build_book("x", seed=seed)["chapters"][0]["principles"]) for seed in (1, 2))
    assert len(first) == 40
    assert not first & second
