"""What there is to watch, gathered from where it is kept: each part by itself, bounded in time, not too often.

A part that does not answer in time is left out, and said to be away: what is shown is never old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import psycopg

from era_ingest.errors import EraError
from era_ingest.store import corpus, counters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from psycopg import AsyncConnection

    from era_ingest.core.increments import Series
    from era_ingest.pipelines.jobs import RunFacts
    from era_ingest.store.corpus import CorpusSize
    from era_ingest.store.counters import LiveRun
    from era_ingest.store.database import Database

WAIT_S: Final = 5.0
"""How long a part is waited for, and how long a statement may take, seconds."""
COUNTED_EVERY_S: Final = 1.0
RUNS_EVERY_S: Final = 10.0
CORPUS_EVERY_S: Final = 30.0
"""How long what was gathered is used again: by several who ask, or one who asks often, seconds."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counted:
    """What runs counted.

    Attributes:
        totals: Over all runs, ever.
        live: The runs at work.
    """

    totals: Mapping[Series, float]
    live: tuple[LiveRun, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """What there is to watch; None: that part is away.

    Attributes:
        counted: What runs counted.
        corpus: How large the corpus is.
        runs: How Dagster's runs stand.
    """

    counted: Counted | None
    corpus: CorpusSize | None
    runs: RunFacts | None


class Watch:
    """Gathers pictures.

    Args:
        database: Where runs count.
        runs: Asks the run queue.
        wait_s: How long a part is waited for, seconds.
        clock: Monotonic, seconds.
    """

    def __init__(
        self,
        database: Database,
        runs: Callable[[], Awaitable[RunFacts]],
        *,
        wait_s: float = WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._counted = _Kept("counters", self._count, COUNTED_EVERY_S, wait_s, clock)
        self._corpus = _Kept("corpus", self._measure, CORPUS_EVERY_S, wait_s, clock)
        self._runs = _Kept("runs", runs, RUNS_EVERY_S, wait_s, clock)

    async def picture(self) -> Picture:
        """Return what there is to watch now; takes ``wait_s`` at most, and never fails."""
        return Picture(*await asyncio.gather(self._counted.get(), self._corpus.get(), self._runs.get()))

    async def aclose(self) -> None:
        """Give up what is still being asked."""
        for part in (self._counted, self._corpus, self._runs):
            await part.aclose()

    async def _count(self) -> Counted:
        async with self._database.connection() as conn:
            await _bound(conn)
            return Counted(await counters.totals(conn), tuple(await counters.live_runs(conn)))

    async def _measure(self) -> CorpusSize:
        async with self._database.connection() as conn:
            await _bound(conn)
            return await corpus.corpus_size(conn)


async def _bound(conn: AsyncConnection[object]) -> None:
    """Let no statement of this transaction take long."""
    await conn.execute("select set_config('statement_timeout', %s, true)", (f"{WAIT_S * 1000:.0f}",))


class _Kept(Generic[T]):
    """One part: asked by one task at a time, however many want to know; what it said is used again for a while."""

    def __init__(
        self,
        name: str,
        ask: Callable[[], Awaitable[T]],
        keep_s: float,
        wait_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._ask = ask
        self._keep_s = keep_s
        self._wait_s = wait_s
        self._clock = clock
        self._asking: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._until = float("-inf")

    async def get(self) -> T | None:
        """Return what the part says; None: it does not, or not in time."""
        if self._clock() >= self._until:
            if self._asking is None or self._asking.done():
                self._value = None
                self._asking = asyncio.create_task(self._refresh())
            await asyncio.wait([self._asking], timeout=self._wait_s)
        return self._value

    async def aclose(self) -> None:
        """Give up asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _refresh(self) -> None:
        try:
            self._value = await self._ask()
            self._until = self._clock() + self._keep_s
        except (EraError, psycopg.Error) as error:
            _log.warning("no metrics of the %s just now: %s", self._name, error)
        except Exception:  # noqa: BLE001 - a task's boundary: Dagster's storage raises whatever its driver does
            _log.warning("no metrics of the %s just now", self._name, exc_info=True)
