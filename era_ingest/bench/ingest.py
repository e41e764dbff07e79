"""`era bench ingest`: the whole command against a local server of given latency, beside other programs.

The others are a hand-written bound, and peers: whatever programs are named. Each works on a database of its own
that it has prepared itself from an empty landing folder (which is not measured), as a process of its own, and
does the same three things in each run: ingest a landing folder, ingest it again unchanged, and again with about
one text in a hundred replaced. The programs take turns at going first in each of the three. What was embedded
is counted at the server, what was stored in the database.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from era_ingest.bench.measure import Benchmark, Series, collect, load_average
from era_ingest.bench.programs import Bound, Era, Ground, Peer, Program
from era_ingest.bench.reading import read_rows
from era_ingest.bench.scratch import scratch_database, scratch_home
from era_ingest.bench.server import Asked, Latency, fetch_asked, running_server
from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from era_ingest.bench.process import Finished
    from era_ingest.bench.workload import Workload
    from era_ingest.settings import Settings


class Stage(StrEnum):
    """What a program is asked to do; the value is a part of the figures' names."""

    WHOLE = ""
    UNCHANGED = "unchanged_"
    CHANGED = "changed_"


@dataclass(frozen=True, slots=True)
class Due:
    """What is right for one stage.

    Attributes:
        rows: Texts in the database afterwards.
        new: Texts to embed.
    """

    rows: int
    new: int


@dataclass(frozen=True, slots=True)
class Done:
    """What a program did in one stage.

    Attributes:
        finished: Its process.
        asked: What the server was asked for meanwhile.
        rows: Texts with a vector in the database afterwards.
    """

    finished: Finished
    asked: Asked
    rows: int


def bench_ingest(
    settings: Settings,
    workload: Workload,
    *,
    runs: int = 3,
    latency: Latency | None = None,
    peers: Mapping[str, tuple[str, ...]] | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Benchmark:
    """Measure ingestion end to end.

    Args:
        settings: Where the database is (scratch ones are created there; unset: a scratch embedded server),
            batch size, bound of requests in flight.
        workload: What is ingested.
        runs: Repetitions, >= 1.
        latency: The server's; None: 60 ms a request and 0.2 ms a text, 768 dimensions.
        peers: Commands of other programs, by the name that their figures begin with (see ``Peer``).
        on_step: Told what was done, a line at a time.

    Raises:
        EraError: One of the programs failed, or did other work than it should.
    """
    latency = latency or Latency()
    batch, in_flight = settings.batch_texts, settings.bounds.max_in_flight
    programs: list[Program] = [
        Bound(batch, in_flight),
        Era(latency.dimensions),
        *(
            Peer(name, command, batch, in_flight, latency.dimensions)
            for name, command in (peers or {}).items()
        ),
    ]
    with scratch_home(settings) as (home, database_server), running_server(latency) as server_url:
        found = compare_programs(
            programs, workload, home, database_server, server_url, runs=runs, on_step=on_step
        )
    return _summarise(found, programs, workload, latency, settings)


def compare_programs(
    programs: Sequence[Program],
    workload: Workload,
    folder: Path,
    database_server: str,
    server_url: str,
    *,
    runs: int,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[dict[str, float]]:
    """Let programs do the same work in turns; return the figures of each run.

    Args:
        programs: What is compared.
        workload: What is ingested.
        folder: An empty folder.
        database_server: URL of any database of a server where databases may be created.
        server_url: The embedding server; nobody else uses it.
        runs: Repetitions, >= 1.
        on_step: Told what was done, a line at a time.

    Raises:
        EraError: One of the programs failed, or did other work than it should.
    """
    found = []
    with ExitStack() as stack:
        prepared = {}
        for program in programs:
            url = stack.enter_context(scratch_database(database_server))
            prepared[program.name] = _ground(folder / "prepared", program, server_url, url)
            program.prepare(prepared[program.name])
            on_step(f"{program.name} is prepared")
        for number in range(runs):
            with ExitStack() as databases:
                grounds = {}
                for program in programs:
                    before = prepared[program.name]
                    copy = scratch_database(database_server, template=before.database_url)
                    url = databases.enter_context(copy)
                    grounds[program.name] = _ground(
                        folder / f"run-{number}", program, server_url, url, before
                    )
                first = number % len(programs)
                turns = [*programs[first:], *programs[:first]]
                found.append(_measure(turns, grounds, workload, on_step))
            on_step(f"run {number + 1} of {runs}")
    return found


def _ground(
    folder: Path, program: Program, server_url: str, database_url: str, before: Ground | None = None
) -> Ground:
    """Make a program's folders, with what it left in its own ``before``."""
    ground = Ground(folder / "landing", folder / program.name, server_url, database_url)
    ground.landing.mkdir(parents=True, exist_ok=True)
    if before is None:
        ground.state.mkdir()
    else:
        shutil.copytree(before.state, ground.state)
    return ground


def _measure(
    programs: Sequence[Program],
    grounds: Mapping[str, Ground],
    workload: Workload,
    on_step: Callable[[str], None],
) -> dict[str, float]:
    """Do one run; return its figures."""
    landing = grounds[programs[0].name].landing
    known: set[bytes] = set()
    figures: dict[str, float] = {}
    for stage in Stage:
        workload.write(landing, changed=stage is Stage.CHANGED)
        rows = read_rows(landing).keys()
        due = Due(len(rows), len(rows - known))
        known = set(rows)
        for program in programs:
            done = _do(program, grounds[program.name])
            _check(program, stage, done, due)
            figures.update(_figures(program, stage, done))
            on_step(f"{program.name} {stage.rstrip('_')}".strip() + f": {done.finished.wall_s:.2f} s")
    return figures


def _do(program: Program, ground: Ground) -> Done:
    before = fetch_asked(ground.server_url)
    finished = program.run(ground)
    return Done(finished, fetch_asked(ground.server_url) - before, program.count_rows(ground.database_url))


def _check(program: Program, stage: Stage, done: Done, due: Due) -> None:
    """Refuse to report the speed of work that was not done.

    Peers may embed a text again that has a vector already: how many they did is a figure. Bound and
    ``era ingest`` may not.
    """
    what = f"{program.name} {stage.rstrip('_')}".strip()
    if stage is Stage.WHOLE:
        _expect(
            f"{what}: rows in the database, beside the texts that it says it embedded",
            done.rows,
            program.told_texts(done.finished),
        )
    _expect(f"{what}: rows in the database", done.rows, due.rows)
    if not isinstance(program, Peer):
        _expect(f"{what}: texts that the server was asked for", done.asked.texts, due.new)
        _expect(f"{what}: texts that it says it embedded", program.told_texts(done.finished), due.new)
    if isinstance(program, Era) and stage is Stage.UNCHANGED:
        told = done.finished.told
        _expect(f"{what}: requests and rows written", done.asked.requests + told["rows_written"], 0)


def _expect(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise EraError(f"{what}: {found:,} where {expected:,} was right; the figures would mean nothing.")


def _figures(program: Program, stage: Stage, done: Done) -> dict[str, float]:
    """Return the figures of one stage by name."""
    start = f"{program.name}_{stage}"
    figures: dict[str, float] = {
        f"{start}wall_s": done.finished.wall_s,
        f"{start}texts": done.asked.texts,
        f"{start}requests": done.asked.requests,
    }
    if stage is Stage.WHOLE:
        figures[f"{start}cpu_s"] = done.finished.cpu_s
        figures[f"{start}peak_mb"] = done.finished.peak_mb
        if (inner_s := _inner_s(done.finished.told)) is not None:
            figures[f"{start}inner_s"] = inner_s
        if isinstance(program, Era):
            figures[f"{start}rate_limited"] = done.finished.told["rate_limited"]
    return figures


def _inner_s(told: Mapping[str, object]) -> float | None:
    """Return the seconds that a program says its own work took: no imports, no Dagster; None if it does not."""
    found = told.get("work_seconds", told.get("seconds"))
    return float(found) if isinstance(found, (int, float)) else None


def _summarise(
    found: Sequence[Mapping[str, float]],
    programs: Sequence[Program],
    workload: Workload,
    latency: Latency,
    settings: Settings,
) -> Benchmark:
    figures = collect(found)
    return Benchmark(
        name="ingest",
        workload={
            "workload": workload.kind.value,
            "texts": round(figures["bound_texts"].median),
            "request_ms": latency.request_ms,
            "text_ms": latency.text_ms,
            "dimensions": latency.dimensions,
            "batch_texts": settings.batch_texts,
            "max_in_flight": settings.bounds.max_in_flight,
            "runs": len(found),
        },
        figures=figures,
        ratios=_ratios(figures, [program.name for program in programs]),
        load_average=load_average(),
    )


def _ratios(figures: Mapping[str, Series], names: Sequence[str]) -> dict[str, float]:
    """Return everything over the bound; ``era``'s inner time over the bound's, and over its whole process."""
    ratios = {}
    for name in names[1:]:
        ratios[f"{name}_wall_over_bound"] = figures[f"{name}_wall_s"].over(figures["bound_wall_s"])
        ratios[f"{name}_cpu_over_bound"] = figures[f"{name}_cpu_s"].over(figures["bound_cpu_s"])
    ratios["era_inner_over_bound"] = figures["era_inner_s"].over(figures["bound_inner_s"])
    ratios["era_inner_over_bound_wall"] = figures["era_inner_s"].over(figures["bound_wall_s"])
    if peers := names[2:]:
        fastest = min(peers, key=lambda name: ratios[f"{name}_wall_over_bound"])
        ratios["era_wall_over_fastest_peer"] = figures["era_wall_s"].over(figures[f"{fastest}_wall_s"])
    return ratios
