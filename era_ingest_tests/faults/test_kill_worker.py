"""SIGKILL of whoever loads books: a Dagster run, and ``era ingest``; at named points and at random ones.

After one more run an installation must hold what one holds that nobody disturbed, byte for byte, and the embedding
server must have seen no more texts twice than the controller let be in flight (replies that are not durable yet count
as in flight: so it may be a batch or two more than were at the server at once).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest.clients.turnstile import LEAST_AT_RISK
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.faults.kit import SIZING, Installation, differences, picture, served_by, write_corpus
from era_ingest_tests.faults.run_and_kill import COUNTS, IN_FLIGHT, POINTS
from era_ingest_tests.faults.scale import cases
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Databases, Forge

CORPUS = 11
BATCH_TEXTS = 16
CONCURRENCY = 4
KILLED = -9
DOMAINS = ("decision_making", "ethics", "gardening", "power", "trade", "war")

WORKER = "worker"
COMMAND = "era ingest"


@dataclass(frozen=True)
class Control:
    """What an undisturbed installation holds, and how its programs came to it.

    Attributes:
        holds: Its picture.
        texts: Distinct texts that were embedded.
        counts: How often each program came to each point.
        seconds: How long each took.
    """

    holds: dict[str, Any]
    texts: int
    counts: dict[str, dict[str, int]]
    seconds: dict[str, float]


@dataclass
class Stage:
    """Where one kill takes place."""

    forge: Forge
    server: EmbeddingServer
    installation: Installation

    async def ingest(self, **how: Any) -> int:
        """Run ``era ingest``."""
        return await self.forge.arun(
            self.installation, "era", "ingest", "-q", str(self.installation.landing), **how
        )

    async def job(self, name: str, **how: Any) -> int:
        """Run a Dagster run of a job in a process of its own."""
        ingest = {"load_books": {"config": {"everything": True}}}
        listed = {"config": {"listed": True, "domains": list(DOMAINS)}}
        ministers = {"minister_files": listed, "domain_index": listed}
        config = self.installation.folder / f"{name}.json"
        config.write_text(json.dumps({"ops": ingest if name == "ingest" else ministers}), encoding="utf-8")
        tags = [] if name == "ingest" else ["--tags", json.dumps({"dagster/partition": DOMAINS[0]})]
        command = ["dagster", "job", "execute", "-m", "era_ingest.definitions", "-j", name]
        return await self.forge.arun(self.installation, *command, "-c", str(config), *tags, **how)

    def programs(self, kind: str) -> list[tuple[str, Callable[..., Any]]]:
        """Return the programs that take a landing folder to files, in order."""
        if kind == COMMAND:
            return [(COMMAND, self.ingest)]
        return [(name, lambda name=name, **how: self.job(name, **how)) for name in ("ingest", "ministers")]


def build_stage(forge: Forge, folder: Path, url: str, server: EmbeddingServer, controller: str) -> Stage:
    served = served_by(server.url, batch_texts=BATCH_TEXTS, concurrency=CONCURRENCY, controller=controller)
    installation = Installation(folder, url, {**served, IN_FLIGHT: str(folder / "in_flight")})
    write_corpus(installation.landing, CORPUS)
    return Stage(forge, server, installation)


class Ground:
    """Undisturbed installations by kind of program, made when they are first asked for."""

    def __init__(self, forge: Forge, databases: Databases, folder: Path) -> None:
        self.forge = forge
        self._databases = databases
        self._folder = folder
        self._controls: dict[str, Control] = {}

    async def control(self, kind: str) -> Control:
        """Return what an undisturbed installation comes to."""
        if kind not in self._controls:
            self._controls[kind] = await self._measure(kind)
        return self._controls[kind]

    async def _measure(self, kind: str) -> Control:
        name = f"control_{kind.replace(' ', '_')}"
        url = self._databases.create(name)
        try:
            async with EmbeddingServer(ServerOptions(latency_s=0.02)) as server:
                stage = build_stage(self.forge, self._folder / name, url, server, "fixed")
                counts, seconds = {}, {}
                for program, start in stage.programs(kind):
                    file = self._folder / f"{name}.counts"
                    began = time.monotonic()
                    status = await start(environment={COUNTS: str(file)})
                    assert status == 0, stage.installation.log.read_text()[-3000:]
                    seconds[program] = time.monotonic() - began
                    counts[program] = json.loads(file.read_text())
                return Control(picture(stage.installation), server.stats.texts, counts, seconds)
        finally:
            self._databases.drop(name)


@pytest.fixture(scope="module")
def ground(forge: Forge, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The undisturbed installations."""
    return Ground(forge, databases, tmp_path_factory.mktemp("ground"))


async def kill_once(stage: Stage, kind: str, control: Control, rng: random.Random, point: str) -> str:
    """Run the programs in order until one is killed; return where that was.

    Args:
        stage: Where.
        kind: Of program.
        control: How an undisturbed one goes.
        rng: Draws the place.
        point: Named point; ``random``: any time.
    """
    programs = stage.programs(kind)
    if point == "random":
        return await kill_at_random(stage, programs, control, rng)
    reached = [name for name, _ in programs if control.counts[name].get(point)]
    chosen = rng.choice(reached)
    number = rng.randint(1, max(1, control.counts[chosen][point] // 2))  # commits of several replies vary
    for name, start in programs:
        if name != chosen:
            assert await start() == 0
            continue
        status = await start(point=point, number=number)
        assert status == KILLED, f"{point} {number} was not reached: {status}"
        break
    return f"{chosen} at {point} {number}"


async def kill_at_random(
    stage: Stage, programs: list[tuple[str, Callable[..., Any]]], control: Control, rng: random.Random
) -> str:
    """Kill a program some time after a request that is drawn, from before the first to long after the last."""
    name, start = programs[0]
    requests = rng.randint(0, control.counts[name]["request"])
    if len(programs) > 1 and rng.random() < 0.25:  # the program that follows makes no request
        assert await start() == 0
        name, start = programs[1]
        requests = 0
    after_s = rng.uniform(0.0, 0.1 if requests else control.seconds[name])
    stage.forge.pid = 0
    program = asyncio.create_task(start())
    await asyncio.to_thread(
        Waiter().until,
        lambda: program.done() or (stage.forge.pid > 0 and stage.server.stats.requests >= requests),
        60.0,
    )
    await asyncio.sleep(after_s)
    if not program.done():
        with suppress(ProcessLookupError):
            os.kill(stage.forge.pid, signal.SIGKILL)
    return f"{name} {after_s:.3f} s after request {requests}: {await program}"


async def survive(stage: Stage, kind: str, control: Control, where: str) -> tuple[int, int, int]:
    """Run everything once more, compare.

    Returns:
        Texts sent twice, requests in flight at most, requests that the controller let be in flight at most.
    """
    in_flight = _number(stage.installation.folder / "in_flight")
    limit = _number(stage.installation.folder / "in_flight.limit")
    for name, start in stage.programs(kind):
        status = await start()
        assert status == 0, f"{name} after {where}: {stage.installation.log.read_text()[-3000:]}"
    assert not differences(picture(stage.installation), control.holds), where
    return stage.server.stats.texts - control.texts, in_flight, max(LEAST_AT_RISK, limit)


def _number(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


async def run_case(
    ground: Ground,
    url: str,
    folder: Path,
    *,
    kind: str,
    point: str,
    seed: int,
    note: Callable[[str, float], None],
) -> None:
    """Kill once and survive."""
    rng = random.Random(f"{kind} {point} {seed}")
    control = await ground.control(kind)
    controller = "adaptive" if seed % 2 else "fixed"

    options = ServerOptions(latency_s=rng.choice((0.002, 0.02, 0.08)))
    async with EmbeddingServer(options) as server:
        stage = build_stage(ground.forge, folder, url, server, controller)
        where = await kill_once(stage, kind, control, rng, point)
        twice, in_flight, limit = await survive(stage, kind, control, f"{where}, seed {seed}, {controller}")
        allowed = limit * BATCH_TEXTS + SIZING
        assert twice <= allowed, f"{where}: {twice} texts twice, {in_flight} requests in flight of {limit}"
        note(f"{kind} killed ({'named' if point != 'random' else 'random'} point): texts twice", twice)
        note(
            f"{kind} killed: texts twice, share of requests in flight x batch size",
            twice / max(1, in_flight * BATCH_TEXTS),
        )


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("seed", cases(1, 10))
async def test_a_run_killed_at_a_named_point(
    ground: Ground,
    dagster_database_url: str,
    tmp_path: Path,
    point: str,
    seed: int,
    note: Callable[[str, float], None],
) -> None:
    """One more run brings everything to what it would have been."""
    await run_case(ground, dagster_database_url, tmp_path, kind=WORKER, point=point, seed=seed, note=note)


@pytest.mark.parametrize("seed", cases(12, 120))
async def test_a_run_killed_at_a_random_point(
    ground: Ground, dagster_database_url: str, tmp_path: Path, seed: int, note: Callable[[str, float], None]
) -> None:
    """The same, at any time of loading or of building files."""
    await run_case(ground, dagster_database_url, tmp_path, kind=WORKER, point="random", seed=seed, note=note)


@pytest.mark.parametrize("seed", cases(5, 50))
async def test_era_ingest_killed_at_a_random_point(
    ground: Ground, dagster_database_url: str, tmp_path: Path, seed: int, note: Callable[[str, float], None]
) -> None:
    """The same for the command."""
    await run_case(ground, dagster_database_url, tmp_path, kind=COMMAND, point="random", seed=seed, note=note)
