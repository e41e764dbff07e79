"""Programs beside the bound: what is believed of them, what is counted, and how they are shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from era_ingest.bench.ingest import Stage, compare_programs
from era_ingest.bench.measure import Benchmark, Series
from era_ingest.bench.process import Finished, run_process
from era_ingest.bench.programs import Bound, Ground, Peer, parse_peers
from era_ingest.bench.reading import cut_passages, read_rows
from era_ingest.bench.server import Asked, Latency, fetch_asked, running_server
from era_ingest.bench.side_by_side import build_program_table, plot_programs, programs_of
from era_ingest.bench.workload import Kind, Workload, make_chapters
from era_ingest.core.chunking import PassageSizes, split_passages
from era_ingest.core.text import clean_prose
from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOY = str(Path(__file__).with_name("toy_peer.py"))
ENTRIES = Workload(Kind.ENTRIES, 200, books=2)


@pytest.fixture(scope="module")
def embedding_server() -> Iterator[str]:
    """A fast one, for all tests of this module."""
    with running_server(Latency(1.0, 0.0, 16)) as url:
        yield url


@pytest.fixture
def compare(tmp_path: Path, server_url: str, embedding_server: str) -> Compare:
    """Compare the bound with a toy peer of some manner, once."""
    return Compare(tmp_path, server_url, embedding_server)


class Compare:
    """The fixture's callable: a manner of the toy peer to a run's figures."""

    def __init__(self, folder: Path, database_server: str, server_url: str) -> None:
        self._where = (folder, database_server, server_url)

    def __call__(self, manner: str) -> Mapping[str, float]:
        peer = Peer("toy", (sys.executable, TOY, manner), batch_texts=128, in_flight=8, dimensions=16)
        folder, database_server, server_url = self._where
        (found,) = compare_programs(
            [Bound(128, 8), peer], ENTRIES, folder, database_server, server_url, runs=1
        )
        return found


def _ground(folder: Path) -> Ground:
    return Ground(folder / "landing", folder / "state", "http://127.0.0.1:1", "postgresql://127.0.0.1:1/x")


def test_an_honest_peer_is_measured_beside_the_bound(compare: Compare, tmp_path: Path) -> None:
    """Three times: all texts, none, then those that changed; it has its tables and its folder from before."""
    found = compare("honest")
    for name in ("bound", "toy"):
        assert [found[f"{name}_{stage}texts"] for stage in Stage] == [200, 0, 2]
        assert found[f"{name}_wall_s"] > 0
        assert found[f"{name}_cpu_s"] > 0
    assert [found[f"bound_{stage}requests"] for stage in Stage] == [2, 0, 1]
    assert "bound_inner_s" in found
    assert "toy_inner_s" not in found, "it tells none"
    assert (tmp_path / "run-0" / "toy" / "runs").read_text() == "xxxx", "its folder is kept"


def test_what_is_embedded_again_is_a_figure(compare: Compare) -> None:
    """Some tools do it; it is counted at the server."""
    found = compare("embeds_again")
    assert [found[f"toy_{stage}texts"] for stage in Stage] == [200, 200, 200]


def test_a_peer_that_fails_is_quoted_by_its_name(compare: Compare) -> None:
    """With the end of what it said."""
    with pytest.raises(EraError, match=r"^toy ended after .* with 1: no such luck"):
        compare("fails")


def test_a_peer_that_stores_fewer_rows_than_it_says_is_refused(compare: Compare) -> None:
    """Its rows are counted in the database."""
    with pytest.raises(EraError, match=r"toy: rows in the database.*it says.*: 199 where 200 was right"):
        compare("stores_less")


def test_a_peer_that_leaves_what_is_gone_is_refused(compare: Compare) -> None:
    """It did less work than the others."""
    with pytest.raises(EraError, match="toy changed: rows in the database: 202 where 200 was right"):
        compare("keeps_old")


def test_only_vectors_of_length_one_are_counted(database_url: str) -> None:
    """In any table; a missing or a zero vector is none."""
    peer = Peer("toy", ("true",), batch_texts=1, in_flight=1, dimensions=2)
    assert peer.count_rows(database_url) == 0
    with psycopg.connect(database_url) as conn:
        conn.execute("create extension if not exists vector")
        conn.execute("create schema other")
        conn.execute("create table other.one (v vector)")
        conn.execute("create table two (v vector, w text)")
        conn.execute("insert into other.one values ('[0.6,0.8]'), ('[0,0]'), (null)")
        conn.execute("insert into two values ('[1,0]', 'x'), ('[3,4]', 'y')")
    assert peer.count_rows(database_url) == 2


def test_a_peer_sees_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ERA_*, but what it is asked for."""
    monkeypatch.setenv("ERA_EMBED_API_KEY", "secret")
    show = "import json, os; print(json.dumps({'texts': 0, **os.environ}))"
    peer = Peer("toy", (sys.executable, "-c", show), batch_texts=7, in_flight=9, dimensions=5)
    told = peer.run(_ground(tmp_path)).told
    assert not [name for name in told if name.startswith("ERA_")]
    assert (told["BENCH_BATCH"], told["BENCH_IN_FLIGHT"], told["BENCH_DIMENSIONS"]) == ("7", "9", "5")
    assert told["BENCH_STATE"] == str(tmp_path / "state")
    assert told["PATH"] == os.environ["PATH"]


def test_a_peer_that_tells_no_texts_told_none() -> None:
    """-1 is never right."""
    peer = Peer("toy", ("true",), batch_texts=1, in_flight=1, dimensions=2)
    assert peer.told_texts(Finished(1.0, 1.0, 1.0, {"texts": "many"})) == -1


def test_peers_are_named_on_the_command_line() -> None:
    """NAME=COMMAND, the command as a shell would part it."""
    found = parse_peers(["a_1=python -m x", "b='/some where/python' y=z"])
    assert found == {"a_1": ("python", "-m", "x"), "b": ("/some where/python", "y=z")}


@pytest.mark.parametrize(
    "text", ["", "x", "x=", "=true", "X=true", "a b=true", "era=true", "bound=true", "a='"]
)
def test_a_peer_that_cannot_be_named_so_is_said(text: str) -> None:
    """Before anything runs."""
    with pytest.raises(ValueError, match=r"NAME=COMMAND|taken|quotation"):
        parse_peers([text])


def test_a_name_is_taken_once() -> None:
    """Figures are told apart by it."""
    with pytest.raises(ValueError, match="taken"):
        parse_peers(["a=true", "a=false"])


def test_chapters_are_cut_as_era_cuts_them(tmp_path: Path) -> None:
    """By hand with the same splitter, or the comparison would be of different work."""
    texts = make_chapters(40)
    for text in texts:
        assert clean_prose(text).text == text
        assert cut_passages(text) == [text[start:end] for start, end in split_passages(text, PassageSizes())]
    lengths = [len(passage) for text in texts for passage in cut_passages(text)]
    assert max(lengths) <= 1024
    assert sorted(lengths)[len(lengths) // 20] >= 300, "few are short"


def test_a_workload_of_passages_changes_as_told(tmp_path: Path) -> None:
    """One chapter in a hundred has another text; all passages are distinct."""
    workload = Workload(Kind.PASSAGES, 1000, books=3)
    workload.write(tmp_path)
    before = read_rows(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert len({row[:3] for row in before.values()}) == len(before)
    assert workload.chapters == 106
    assert 700 < len(before) < 1400
    workload.write(tmp_path, changed=True)
    after = read_rows(tmp_path)
    new = [row for digest, row in after.items() if digest not in before]
    assert len({row[1:3] for row in new}) == 2, "two chapters of 106"
    assert new


def test_the_bound_embeds_only_the_passages_that_changed(
    tmp_path: Path, server_url: str, embedding_server: str
) -> None:
    """All, none, and those of one chapter in ten that is another; checked as it goes."""
    workload = Workload(Kind.PASSAGES, 100)
    (found,) = compare_programs([Bound(128, 8)], workload, tmp_path, server_url, embedding_server, runs=1)
    assert found["bound_texts"] > 70
    assert found["bound_unchanged_texts"] == 0
    assert 0 < found["bound_changed_texts"] < 30


def test_the_server_answers_with_numbers_where_they_are_asked_for(embedding_server: str) -> None:
    """The same vectors in both forms; what was asked for is counted."""
    before = fetch_asked(embedding_server)
    code = (
        "import base64, json, sys, urllib.request, array\n"
        "def ask(**more):\n"
        "    body = json.dumps({'model': 'm', 'input': ['a', 'b'], **more}).encode()\n"
        "    with urllib.request.urlopen(sys.argv[1] + '/v1/embeddings', body) as reply:\n"
        "        return [item['embedding'] for item in json.load(reply)['data']]\n"
        "packed = [array.array('f', base64.b64decode(x)).tolist() for x in ask(encoding_format='base64')]\n"
        "print(json.dumps({'texts': 0, 'numbers': ask(), 'packed': packed}))"
    )
    told = run_process([sys.executable, "-c", code, embedding_server], {}).told
    assert len(told["numbers"]) == 2
    for numbers, packed in zip(told["numbers"], told["packed"], strict=True):
        assert numbers == pytest.approx(packed)
    assert fetch_asked(embedding_server) - before == Asked(requests=2, texts=4)


def test_memory_is_the_program_s_own() -> None:
    """However large the benchmark is."""
    held = bytearray(200_000_000)
    assert run_process(["/bin/sh", "-c", "echo {}"], {}).peak_mb < 40
    del held


def test_a_program_that_hangs_is_ended() -> None:
    """And said."""
    with pytest.raises(EraError, match="with -9"):
        run_process(["/bin/sh", "-c", "exec sleep 60"], {"PATH": os.environ["PATH"]}, timeout_s=0.2)


@pytest.mark.parametrize("line", ["[1]", "done", ""])
def test_a_program_that_prints_no_object_is_said(line: str) -> None:
    """Though it ended well."""
    with pytest.raises(EraError, match="no JSON object"):
        run_process(["/bin/echo", line], {})


def test_a_program_that_is_not_there_is_said() -> None:
    """By its name."""
    with pytest.raises(EraError, match="toy cannot be started"):
        run_process(["/no/such/program"], {}, name="toy")


def test_programs_are_shown_side_by_side(tmp_path: Path) -> None:
    """A row each, the fastest first; and a picture."""
    figures = {}
    for name, wall in (("bound", 1.0), ("era", 3.0), ("toy", 2.0)):
        for stage in Stage:
            figures[f"{name}_{stage}wall_s"] = Series((wall, wall * 2))
            figures[f"{name}_{stage}texts"] = Series((1.0, 1.0))
        figures[f"{name}_cpu_s"] = Series((1.0, 1.0))
        figures[f"{name}_peak_mb"] = Series((100.0, 100.0))
    ratios = {"era_wall_over_bound": 3.0, "toy_wall_over_bound": 2.0}
    workload = {"workload": "entries", "texts": 1, "request_ms": 60.0, "text_ms": 0.2, "runs": 2}
    found = Benchmark("ingest", workload, figures, ratios, 0.5)
    assert programs_of(found) == ["bound", "era", "toy"]
    table = build_program_table(found)
    assert list(table.columns[0].cells) == ["bound", "toy", "era"]
    plot_programs(found, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_no_scratch_database_stays_after_a_refusal(compare: Compare, server_url: str) -> None:
    """Whatever went wrong."""
    with pytest.raises(EraError):
        compare("fails")
    with psycopg.connect(server_url, autocommit=True) as conn:
        found = conn.execute("select datname from pg_database where datname like 'era_bench%'").fetchall()
    assert not found
