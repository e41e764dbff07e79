"""What a run adds to the totals that ``/metrics`` shows, while it works and at its end.

Runs are processes that come and go, so each adds what it counted to a table: after its first second, every five
seconds, and when it ends. Each addition is numbered and counts once, though its outcome be lost with the connection.
A run that is killed loses what it counted since the last one, five seconds at most; one whose database is away adds
all of it when it is back. A run that finds nothing to do writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg

from era_ingest.clients.stats import LATENCY_BOUNDS_S
from era_ingest.core.increments import Increments, Series
from era_ingest.core.limiter import FailureKind
from era_ingest.errors import EraError
from era_ingest.pipelines.report import BookStatus
from era_ingest.store import counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from era_ingest.clients.driver import EmbeddingClient
    from era_ingest.clients.stats import EmbeddingStats
    from era_ingest.core.increments import Beat
    from era_ingest.pipelines.meter import Meter
    from era_ingest.pipelines.report import BookReport, IngestReport
    from era_ingest.store.database import Database

FIRST_S = 1.0
EVERY_S = 5.0
_LAST_TRY_S = 5.0
"""How long the end of a run waits for a database that is slow or away, seconds."""

OUTCOMES: Final = ("ok", *(kind.value for kind in FailureKind), "cancelled")
LATENCY = "era_embedding_request_duration_seconds"
TEXTS = "era_texts_embedded_total"
REQUESTS = "era_embedding_requests_total"
HELD = "era_embedding_held_seconds_total"
REMEMBERED: Final = (TEXTS, REQUESTS, HELD, f"{LATENCY}_bucket")
"""Counters of which it is kept when they grew."""
COUNTERS: Final = {
    "era_books_processed_total": "Books that runs dealt with, by what became of them; unchanged ones do not count.",
    "era_chunks_total": "Chunks of the books that were loaded, by kind.",
    TEXTS: "Texts that were embedded and are stored.",
    "era_texts_reused_total": "Texts of loaded books that had their vectors already.",
    "era_texts_refused_total": "Texts that the embedder refused.",
    REQUESTS: "Requests to the embedder, by outcome; rate_limited: told to slow down.",
    "era_embedding_retries_total": "Requests that repeat one that failed.",
    "era_embedding_tokens_total": "Tokens of embedded texts, as the server counted them, else estimated.",
    "era_embedding_cost_total": "What those tokens cost by ERA_EMBED_PRICE, in its currency.",
    HELD: "Time of runs, by the part of the controller that held requests back.",
    "era_stage_busy_seconds_total": "Busy time of the stages of runs; stages overlap.",
    "era_rows_written_total": "Rows inserted into the vector tables or changed there.",
    "era_rows_deleted_total": "Rows deleted from the vector tables.",
}
"""The counters that runs add to, with what they count."""

_log = logging.getLogger(__name__)


class Telemetry:
    """What one run counted so far, and how it stands.

    Args:
        result: The run's report, which grows.
        price: Of a million tokens; 0: not known.
    """

    def __init__(self, result: IngestReport, *, price: float) -> None:
        self._result = result
        self._price = price
        self._client: EmbeddingClient | None = None
        self._meter: Meter | None = None
        self._books_seen = 0
        self._of_books: Counter[Series] = Counter()

    def follow(self, client: EmbeddingClient, meter: Meter) -> None:
        """Count what a client does, too."""
        self._client, self._meter = client, meter

    @property
    def is_at_work(self) -> bool:
        """Whether there is anything to tell; not so while all that was found is unchanged."""
        self._take_books()
        return self._client is not None or bool(self._of_books)

    def counts(self) -> dict[Series, float]:
        """Return what was counted since the start of the run, by counter; none of them ever falls."""
        self._take_books()
        counts: dict[Series, float] = dict(self._of_books)
        for stage, seconds in self._result.stage_seconds.items():
            counts[Series.of("era_stage_busy_seconds_total", stage=stage)] = seconds
        for holder, seconds in self._result.held_seconds.items():
            counts[Series.of(HELD, by=holder)] = seconds
        if self._client is not None:
            counts.update(_count_client(self._client.stats, self._client.embedder.name, self._price))
        return counts

    def state(self) -> dict[str, Any]:
        """Return how the run stands, for JSON."""
        if self._client is None or self._meter is None:
            return {}
        progress, limiter = self._meter.picture(), self._client.limiter_state
        return {
            "model": self._client.embedder.name,
            "limit": limiter.limit,
            "in_flight": limiter.in_flight,
            "pace": limiter.rate_per_s,
            "held_by": limiter.held_by or "nothing",
            "breaker_open": limiter.breaker_open,
            "texts_left": max(0, progress.texts_expected - progress.texts_done),
        }

    def _take_books(self) -> None:
        """Take in the books that finished since the last time."""
        books = self._result.books
        for book in books[self._books_seen :]:
            if book.status is not BookStatus.UNCHANGED:
                self._of_books.update(_count_book(book))
        self._books_seen = len(books)


def _count_book(book: BookReport) -> dict[Series, int]:
    counts = {
        Series.of("era_books_processed_total", status=book.status.value): 1,
        Series.of("era_rows_written_total"): book.rows_written,
        Series.of("era_rows_deleted_total"): book.rows_deleted,
    }
    if book.status is BookStatus.LOADED:
        counts[Series.of("era_chunks_total", kind="entry")] = book.entries
        counts[Series.of("era_chunks_total", kind="passage")] = book.passages
        counts[Series.of("era_texts_reused_total")] = book.texts_reused
    return counts


def _count_client(stats: EmbeddingStats, model: str, price: float) -> dict[Series, float]:
    outcomes = {kind.value: count for kind, count in stats.failures.items()}
    outcomes["ok"] = sum(stats.latency.counts)
    outcomes["cancelled"] = stats.cancelled
    counts: dict[Series, float] = {
        Series.of(TEXTS, model=model): stats.texts,
        Series.of("era_texts_refused_total", model=model): stats.refused,
        Series.of("era_embedding_retries_total", model=model): stats.retries,
        Series.of("era_embedding_tokens_total", model=model): stats.tokens,
        Series.of(f"{LATENCY}_sum", model=model): stats.latency.sum_s,
    }
    for outcome, count in outcomes.items():
        counts[Series.of(REQUESTS, model=model, outcome=outcome)] = count
    for bound, count in zip((*LATENCY_BOUNDS_S, "+Inf"), stats.latency.counts, strict=True):
        counts[Series.of(f"{LATENCY}_bucket", model=model, le=str(bound))] = count
    if price:
        counts[Series.of("era_embedding_cost_total", model=model)] = stats.tokens / 1e6 * price
    return counts


@asynccontextmanager
async def telling(database: Database, telemetry: Telemetry, *, run_id: str) -> AsyncIterator[None]:
    """Add what a run counts to the totals for the length of a context; never fails or holds up the run.

    Args:
        database: Where the totals are.
        telemetry: What the run counts.
        run_id: The run.
    """
    writer = _Writer(database, telemetry, run_id)
    ticking = asyncio.create_task(writer.tick())
    try:
        yield
    finally:
        ticking.cancel()
        await writer.finish()


class _Writer:
    """Adds beats of one run."""

    def __init__(self, database: Database, telemetry: Telemetry, run_id: str) -> None:
        self._database = database
        self._telemetry = telemetry
        self._run_id = run_id
        self._id = uuid.uuid4()
        self._increments = Increments()
        self._adding = asyncio.Lock()

    async def tick(self) -> None:
        """Add every few seconds, until cancelled."""
        await asyncio.sleep(FIRST_S)
        while True:
            if self._telemetry.is_at_work:
                await self._add(self._telemetry.state())
            await asyncio.sleep(EVERY_S)

    async def finish(self) -> None:
        """Add the rest."""
        if not self._telemetry.is_at_work:
            return
        try:
            async with asyncio.timeout(_LAST_TRY_S):
                if (
                    self._increments.is_pending
                ):  # it is as old as its number: what came after it goes by itself
                    await self._add({})
                await self._add(None)
        except TimeoutError:
            _log.warning("what this run counted last is missing in the metrics: the database does not answer")

    async def _add(self, state: Mapping[str, Any] | None) -> None:
        """Add one beat; if that fails, it is added the next time."""
        async with self._adding:
            beat: Beat = self._increments.next(self._telemetry.counts())
            try:
                async with self._database.connection() as conn:
                    await counters.add(
                        conn,
                        writer=self._id,
                        run_id=self._run_id,
                        beat=beat,
                        state=state,
                        remembered=REMEMBERED,
                    )
            except (EraError, psycopg.Error) as error:
                _log.warning("metrics of this run are kept back: %s", error)
                return
            self._increments.confirm()
