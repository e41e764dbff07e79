"""The landing sensor among files that come, grow, move and go, while it and its runs are cut off again and again."""

from __future__ import annotations

import json
import os
import shutil
import time
from itertools import count as count_up
from types import SimpleNamespace
from typing import TYPE_CHECKING

import dagster as dg
import psycopg
import pytest

from era_ingest.orchestration import sensors as sensors_module
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.sensors import landing_sensor
from era_ingest.settings import load_settings
from era_ingest_tests.dagster.house import House, open_house, the_reason
from era_ingest_tests.faults.mutators import MUTATORS, mutate, read_samples
from era_ingest_tests.faults.scale import seeded, short_and_long
from era_ingest_tests.servers import running_server

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

TICK_BAR_S = 5.0
"""What a tick over 100,000 files may take."""


@pytest.fixture
def house(
    dagster_instance: dg.DagsterInstance,
    dagster_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[House]:
    del dagster_instance  # its database, its settings in the environment
    with open_instance(load_settings(), capture_prints=False) as instance:
        yield open_house(instance, dagster_database_url, tmp_path, monkeypatch)


class Shelf:
    """A landing folder and what should come of it.

    Attributes:
        books: Statements of each book that lies there whole.
        broken: Books whose file is no JSON just now; what was loaded of them stays.
        ever: All statements that were to be loaded at any time.
    """

    def __init__(self, landing: Path, rng: random.Random) -> None:
        self._landing = landing
        self._rng = rng
        self._number = 0
        self.books: dict[str, list[str]] = {}
        self.broken: dict[str, list[str]] = {}
        self.ever: set[str] = set()
        self.add()

    def change(self) -> None:
        """Do something to the folder."""
        actions = [self.add, self.add]
        if self.books:
            actions += [self.grow, self.grow, self.touch, self.write_again, self.break_off]
        if len(self.books) > 2:
            actions += [self.rename, self.remove]
        if self.broken:
            actions += [self.heal]
        self._rng.choice(actions)()

    def add(self) -> None:
        self._number += 1
        self._write(f"Book {self._number}", [f"Statement 1 of book {self._number}."])

    def grow(self) -> None:
        name = self._any()
        self._write(name, [*self.books[name], f"{len(self.books[name])} more in {self._number} of {name}."])
        self._number += 1

    def touch(self) -> None:
        os.utime(self._path(self._any()))

    def write_again(self) -> None:
        name = self._any()
        self._write(name, self.books[name])

    def rename(self) -> None:
        name = self._any()
        self._number += 1
        self._path(name).rename(self._path(f"Book {self._number} renamed"))
        self.books[f"Book {self._number} renamed"] = self.books.pop(name)

    def remove(self) -> None:
        name = self._any()
        shutil.rmtree(self._path(name))
        del self.books[name]

    def break_off(self) -> None:
        name = self._any()
        file = self._path(name) / "02_doctrine.json"
        file.write_bytes(file.read_bytes()[:-5])
        self.broken[name] = self.books.pop(name)

    def heal(self) -> None:
        name = self._rng.choice(sorted(self.broken))
        self._write(name, self.broken.pop(name))

    def _any(self) -> str:
        return self._rng.choice(sorted(self.books))

    def _path(self, name: str) -> Path:
        return self._landing / name

    def _write(self, name: str, statements: list[str]) -> None:
        self._path(name).mkdir(exist_ok=True)
        part = self._path(name) / ".part"
        part.write_text(json.dumps([{"chapter_index": 1, "rules": statements}]), encoding="utf-8")
        part.replace(self._path(name) / "02_doctrine.json")
        self.books[name] = statements


def _loaded(url: str) -> dict[str, set[str]]:
    with psycopg.connect(url) as connection:
        found: dict[str, set[str]] = {}
        for book, text in connection.execute("select book, text from era.doctrine_embeddings_all"):
            found.setdefault(book, set()).add(text)
        return found


def _run_until_quiet(house: House, rng: random.Random, *, may_fail: bool) -> int:
    """Tick and run until nothing is due; return the number of runs that came to their end.

    Now and then the daemon is killed before it keeps the cursor, or before it launches the run.
    """
    runs = 0
    for _ in range(12):
        cut = rng.choice(["nothing", "nothing", "cursor", "run"])
        if cut == "cursor":
            house.evaluate(landing_sensor)
            continue
        result = house.tick(landing_sensor)
        if isinstance(result, dg.SkipReason):
            assert result.skip_message is not None
            if "nothing new" in result.skip_message or "was there for this" in result.skip_message:
                return runs
            continue
        if cut == "run":
            continue
        assert result.run_requests is not None
        done = house.run("ingest", result.run_requests[0])
        assert done.success or may_fail  # a run all of whose books are refused says so by failing
        runs += 1
    raise AssertionError(f"no rest after {runs} runs: {result}")


@pytest.mark.parametrize("count", short_and_long(20, 500))
def test_each_version_takes_effect_once_whatever_is_cut_off(
    count: int, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every burst of changes the tables hold what the folder holds, and each text was embedded once."""
    hours = count_up(
        1e9, 4_000.0
    )  # each tick is longer after the last than the longest pause between attempts
    monkeypatch.setattr(sensors_module, "time", SimpleNamespace(time=lambda: next(hours)))
    with seeded() as rng:
        shelf = Shelf(house.landing, rng)
        before: dict[str, set[str]] = {}
        for _ in range(count):
            for _ in range(rng.randint(1, 4)):
                shelf.change()
            assert _run_until_quiet(house, rng, may_fail=bool(shelf.broken)) <= 1
            expected = {name: set(texts) for name, texts in shelf.books.items()}
            expected |= {name: before[name] for name in shelf.broken if name in before}
            before = _loaded(house.url)
            assert before == expected
            shelf.ever |= set().union(*expected.values()) if expected else set()
            assert house.count("select count(*) from era.embeddings") == len(shelf.ever)
            assert set(house.instance.get_dynamic_partitions("books")) >= _slugs(house.url)


def _slugs(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("select slug from era.doctrine_sources")}


@pytest.mark.parametrize("count", short_and_long(80, 2_000))
def test_no_doctrine_makes_the_sensor_or_its_run_fail(count: int, house: House) -> None:
    """Eighty ways to be wrong at once: one run, everything told, the good neighbour loaded."""
    with seeded() as rng:
        samples = [case for case in read_samples() if len(case.data) < 60_000]
        for number in range(count):
            case = mutate(rng, samples, sorted(MUTATORS)[number % len(MUTATORS)])
            case.texts = None
            case.write(house.landing, f"book {number}")
        good = house.landing / "good.json"
        good.write_text('[{"rules": ["A good neighbour."]}]', encoding="utf-8")
        assert house.load_what_arrived().success
        assert _loaded(house.url)["good"] == {"A good neighbour."}
        assert house.count("select count(*) from era.quarantine where reason = '' or detail = ''") == 0
        there = house.count(
            "select count(*) from (select book from era.doctrine_sources union "
            "select book from era.quarantine) as b"
        )
        assert there == count + 1
        assert "nothing new" in the_reason(house.tick(landing_sensor))


@pytest.mark.parametrize("fault", ["401-echo-key", "422", "500", "reset"])
def test_no_event_of_a_run_tells_the_key(fault: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the server answers, and echoes, stands in the run's events without the key."""
    secret = "sk-top-secret-0123456789"
    (house.landing / "book.json").write_text('[{"rules": ["A rule.", "Another."]}]', encoding="utf-8")
    with running_server("--fault", fault) as url:
        for name, value in {"URL": url, "API_KEY": secret, "MODEL": "m", "RETRY_BUDGET_S": "0.2"}.items():
            monkeypatch.setenv(f"ERA_EMBED_{name}", value)
        monkeypatch.setenv("ERA_EMBEDDER", "openai")
        done = house.load_what_arrived()
    assert not done.success
    events = house.instance.all_logs(done.run_id)
    told = "\n".join(map(repr, events))
    assert "ERA_EMBED" in told or "127.0.0.1" in told
    assert secret not in told


@pytest.mark.parametrize("count", short_and_long(5_000, 100_000))
def test_a_tick_over_many_files_is_quick(
    count: int, house: House, note: Callable[[str, float], None]
) -> None:
    """All new, then all known, then a few changed: each tick well below its interval."""
    for shelf in range(count // 1_000):
        for number in range(1_000):
            (house.landing / f"book-{shelf:03}-{number:03}.json").touch()
    bar_s = max(1.5, TICK_BAR_S * count / 100_000)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        house.evaluate(landing_sensor)
        taken.append(time.perf_counter() - started)
        note(f"landing sensor: a tick over {count:,} files: seconds", taken[-1])
    assert min(taken) <= bar_s, taken
    assert max(taken) <= 3 * bar_s, taken  # the first one writes a row for each file
