"""A program of the project that kills itself with SIGKILL at a named point, the n-th time it comes there.

``python -m era_ingest_tests.faults.run_and_kill POINT NUMBER era ingest PATH`` (or ``dagster job execute ...``, or
``tick``: one of the landing sensor, see ``sensor_tick``)

Nothing in the product knows of it: one function is wrapped before the program starts. POINT ``none`` kills
nothing. Where ``ERA_TEST_COUNTS`` names a file, a program that lives writes how often it came to each point;
``ERA_TEST_PATIENCE_S`` shortens the minute for which it tries what the store refuses.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from era_ingest.clients.http_backend import HttpEmbedder
from era_ingest.clients.turnstile import Turnstile
from era_ingest.pipelines.retrying import retry_transient
from era_ingest.store import ministers
from era_ingest.store.atomic import PendingFile
from era_ingest.store.chunk_files import ChunkFiles
from era_ingest_tests.faults import sensor_tick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from era_ingest.clients.backend import Reply

COUNTS = "ERA_TEST_COUNTS"
IN_FLIGHT = "ERA_TEST_IN_FLIGHT"
PATIENCE = "ERA_TEST_PATIENCE_S"
POINTS = (
    "request",  # a reply is there, its vectors are not stored
    "copy",  # half of a COPY's data is sent
    "commit",  # all statements of a transaction are done, it is not committed
    "committed",  # it is committed, and nobody was told
    "files",  # rows are committed, the domain's files are not built
    "chunk-file",  # a book is read, its chunk file is not written
    "rename",  # a new file is whole beside its place
    "renamed",  # it is in its place, others of its domain are not
)


class Reaper:
    """Counts how often points are reached, and kills this process at one of them.

    Args:
        point: Where; ``none``: nowhere.
        number: At which time, from 1.
    """

    def __init__(self, point: str, number: int) -> None:
        self._point = point
        self._number = number
        self.counts: Counter[str] = Counter()

    def reach(self, point: str) -> bool:
        """Note that a point is reached; return True if this is the time to die there."""
        self.counts[point] += 1
        return point == self._point and self.counts[point] == self._number

    def pass_by(self, point: str) -> None:
        """Note that a point is reached, and die if it is time."""
        if self.reach(point):
            die()


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(reaper: Reaper) -> None:
    """Wrap the functions at the points."""
    _around(HttpEmbedder, "embed", after=lambda: reaper.pass_by("request"))
    _around(ChunkFiles, "write", before=lambda: reaper.pass_by("chunk-file"))
    _around(ministers, "_finish", before=lambda: reaper.pass_by("files"))
    _around(
        PendingFile,
        "publish",
        before=lambda: reaper.pass_by("rename"),
        after=lambda: reaper.pass_by("renamed"),
    )
    for owner, name in ((psycopg.AsyncConnection, "commit"), (psycopg.AsyncTransaction, "__aexit__")):
        _around(
            owner,
            name,
            before=lambda: reaper.pass_by("commit"),
            after=lambda: reaper.pass_by("committed"),
        )
    _cut_copy(reaper)
    sensor_tick.arm(_around, reaper.pass_by)
    if seconds := os.environ.get(PATIENCE):
        assert retry_transient.__kwdefaults__
        retry_transient.__kwdefaults__["budget_s"] = float(seconds)
    if path := os.environ.get(IN_FLIGHT):
        _watch_flight(Path(path))


def _watch_flight(path: Path) -> None:
    """Write down how many requests were in flight at most, and how many the controller allowed, as both grow."""
    original = HttpEmbedder.embed
    told, told_limit = _Told(path), _Told(path.with_suffix(".limit"))
    now = 0

    @wraps(original)
    async def embed(self: HttpEmbedder, texts: Sequence[str]) -> Reply:
        nonlocal now
        now += 1
        told.tell(now)
        try:
            return await original(self, texts)
        finally:
            now -= 1

    HttpEmbedder.embed = embed  # type: ignore[method-assign]
    is_held = Turnstile._is_held

    @wraps(is_held)
    def note_limit(self: Turnstile, at: float) -> bool:
        told_limit.tell(math.ceil(self.limit))
        return is_held(self, at)

    Turnstile._is_held = note_limit  # type: ignore[assignment,method-assign]


class _Told:
    """The greatest of some numbers in a file, which a kill never finds empty: each is one write over the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._most = 0

    def tell(self, number: int) -> None:
        """Take a number."""
        if number <= self._most:
            return
        self._most = number
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(self._file, f"{number:8}".encode(), 0)


def _around(
    owner: Any,
    name: str,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Wrap a function or coroutine function of a class or module."""
    original = getattr(owner, name)

    @wraps(original)
    def plain(*arguments: Any, **named: Any) -> Any:
        before()
        result = original(*arguments, **named)
        after()
        return result

    @wraps(original)
    async def coroutine(*arguments: Any, **named: Any) -> Any:
        before()
        result = await original(*arguments, **named)
        after()
        return result

    setattr(owner, name, coroutine if original.__code__.co_flags & 0x80 else plain)


def _cut_copy(reaper: Reaper) -> None:
    original = psycopg.AsyncCopy.write

    @wraps(original)
    async def write(self: psycopg.AsyncCopy, data: Any) -> None:
        if not reaper.reach("copy"):
            await original(self, data)
            return
        await original(self, data[: len(data) // 2])
        die()

    psycopg.AsyncCopy.write = write  # type: ignore[method-assign,assignment]


def run(command: list[str]) -> int:
    """Run ``era ...``, ``dagster ...`` or ``tick`` in this process; return its exit code."""
    sys.argv = command
    if command[0] == "tick":
        return sensor_tick.tick(work=command[1:] == ["work"])
    try:
        if command[0] == "era":
            from era_ingest.__main__ import main

            main()
        else:
            from dagster._cli import main as dagster_main

            dagster_main()  # type: ignore[no-untyped-call]
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def main(arguments: list[str]) -> int:
    """Arm, run, and write down the counts; return the exit code."""
    point, number, *command = arguments
    reaper = Reaper(point, int(number))
    arm(reaper)
    code = run(command)
    if path := os.environ.get(COUNTS):
        Path(path).write_text(json.dumps(reaper.counts), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
