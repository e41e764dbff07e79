"""The parts of the benchmarks: paired ratios, made-up books, the raw payload, scratch databases, the bound."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from era_ingest.bench.growth import growth_mb
from era_ingest.bench.load import BOOK_ROWS, bench_load, make_rows
from era_ingest.bench.measure import Benchmark, Series, build_tables, collect, plot_seconds
from era_ingest.bench.process import run_process
from era_ingest.bench.scratch import scratch_database
from era_ingest.bench.server import Latency, running_server
from era_ingest.bench.workload import change_sentences, make_sentences, write_books
from era_ingest.core.text import clean_line
from era_ingest.errors import EraError, StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


def _databases(url: str) -> list[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("select datname from pg_database where datname like 'era_bench%'")
        return [row[0] for row in found.fetchall()]


def test_ratios_are_taken_run_by_run() -> None:
    """A run on a busy machine slows both sides, and does not move the ratio."""
    figures = collect([{"a": 1.0, "b": 2.0}, {"a": 10.0, "b": 20.0}, {"a": 1.0, "b": 2.0}])
    assert figures["b"].over(figures["a"]) == 2.0
    assert figures["b"].median == 2.0


def test_sentences_are_distinct_and_change_as_told() -> None:
    """One in a hundred is another one; the rest stays in its place."""
    sentences = make_sentences(1000)
    assert len(set(sentences)) == 1000
    assert sentences == make_sentences(1000)
    changed = change_sentences(sentences, 0.01, seed=2)
    assert sum(old != new for old, new in zip(sentences, changed, strict=True)) == 10
    assert len(set(changed)) == 1000


def test_books_hold_every_sentence_once(tmp_path: Path) -> None:
    """In any category and book."""
    sentences = make_sentences(333)
    write_books(tmp_path / "landing", sentences, books=4)
    found = [
        text
        for path in (tmp_path / "landing").iterdir()
        for chapter in json.loads(path.read_text())["chapters"]
        for name in ("principles", "rules", "claims", "warnings")
        for text in chapter[name]
    ]
    assert sorted(found) == sorted(sentences)
    assert len(list((tmp_path / "landing").iterdir())) == 4


def test_rows_come_in_books_of_bounded_length() -> None:
    """All of them, with a vector each."""
    rows = make_rows(BOOK_ROWS + 7)
    assert [len(book.table) for book in rows.books] == [BOOK_ROWS, 7]
    assert rows.vectors.shape == (BOOK_ROWS + 7, 768)


async def test_loading_is_measured_and_leaves_nothing_behind(server_url: str) -> None:
    """Figures and ratios have the documented shape; no scratch database stays."""
    seen: list[int] = []
    found = (await bench_load(server_url, rows=50, runs=2, on_run=seen.append)).as_dict()
    assert seen == [1, 2]
    assert found["bench"] == "load"
    assert found["workload"] == {"rows": 50, "dimensions": 768, "books": 1, "runs": 2}
    assert set(found["figures"]) == {"raw_copy_s", "store_vectors_s", "load_books_s", "both_s"}
    assert all(len(figure["runs"]) == 2 for figure in found["figures"].values())
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert not _databases(server_url)


def test_a_scratch_database_is_dropped_after_a_failure(server_url: str) -> None:
    """Even while somebody is connected."""
    with pytest.raises(ZeroDivisionError), scratch_database(server_url) as url:  # noqa: PT012
        connection = psycopg.connect(url)
        assert connection.info.dbname in _databases(server_url)
        raise ZeroDivisionError
    connection.close()
    assert not _databases(server_url)


def test_a_database_that_is_away_is_one_error() -> None:
    """With a remedy, and without the password."""
    with pytest.raises(StoreUnavailableError) as caught, scratch_database("postgresql://u:pw9@127.0.0.1:1/x"):
        pass
    assert "era doctor" in str(caught.value)
    assert "pw9" not in str(caught.value)


def test_the_bound_does_the_work_and_only_what_is_new(tmp_path: Path, database_url: str) -> None:
    """All texts first, none again, then those that changed; what is gone is deleted."""
    sentences = make_sentences(300)
    with running_server(Latency(1.0, 0.0, 16)) as server:
        told = []
        for now in (sentences, sentences, change_sentences(sentences, 0.01, seed=2)):
            write_books(tmp_path, now, books=3)
            command = [sys.executable, "-m", "era_ingest.bench.bound", str(tmp_path), server, database_url]
            done = run_process([*command, "--batch", "64"], {})
            assert done.peak_mb > 10
            assert done.wall_s > done.told["seconds"] > 0
            told.append((done.told["texts"], done.told["requests"]))
    assert told == [(300, 5), (0, 0), (3, 1)]
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("select text, vector_dims(embedding) from public.bound").fetchall()
    assert {row[0] for row in rows} == set(change_sentences(sentences, 0.01, seed=2))
    assert {row[1] for row in rows} == {16}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what other processes hold")
def test_the_memory_of_children_counts() -> None:
    """A program that holds 50 MB and starts another that does so too has a peak of more than 100 MB."""
    hold = "import sys; held = bytearray(50_000_000); print('{}')"
    both = f"{hold}; import subprocess as s; s.run([sys.executable, '-c', {hold + '; import time; time.sleep(.3)'!r}])"
    assert run_process([sys.executable, "-c", both], os.environ).peak_mb > 100


def test_growth_is_the_slope_of_the_second_half() -> None:
    """What is filled once at the start is no growth."""
    filled = [(second / 10, 100.0) for second in range(50)]
    growing = [(second / 10, 100.0 + (second - 50) * 0.1) for second in range(50, 101)]
    assert growth_mb([*filled, *growing], 1_000_000) == pytest.approx(1.0)
    assert growth_mb([*filled, (5.0, 100.0)], 1_000_000) == pytest.approx(0.0)
    assert growth_mb([], 100) == 0.0


def test_a_program_that_fails_is_quoted() -> None:
    """With the end of what it said."""
    with pytest.raises(EraError, match="no such luck"):
        run_process([sys.executable, "-c", "raise SystemExit('no such luck')"], {})


def test_entries_are_clean_already() -> None:
    """So that both sides embed the same texts."""
    for sentence in make_sentences(50):
        assert re.fullmatch(r"[A-Z][a-z ]+, case 1-\d+\.", sentence)
        assert clean_line(sentence).text == sentence


def test_figures_are_shown_and_drawn(tmp_path: Path) -> None:
    """As two tables and a picture."""
    found = Benchmark("x", {"rows": 1}, {"a_s": Series((1.0, 2.0))}, {"r": 1.5}, 0.5)
    assert [table.row_count for table in build_tables(found)] == [1, 1]
    plot_seconds(found, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
