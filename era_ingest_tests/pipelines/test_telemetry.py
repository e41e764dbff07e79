"""What runs add to the totals: exactly what they did, though processes die and connections break."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from era_ingest.core.increments import Beat, Series
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import IngestReport, IngestRequest
from era_ingest.pipelines.services import Services, open_services
from era_ingest.pipelines.telemetry import Telemetry, telling
from era_ingest.settings import Settings, load_settings
from era_ingest.store import counters, schema
from era_ingest.store.database import Database
from era_ingest_tests.server_faults import Fault, Rule
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

A, B = Series.of("a"), Series.of("b", kind="x")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database of this version's schema."""
    async with Database.opened(database_url, max_connections=4) as opened:
        await schema.migrate(opened)
        yield opened


def _settings(tmp_path: Path, url: str, **overrides: Any) -> Settings:
    return load_settings(
        **{
            "home": tmp_path / "home",
            "database_url": url,
            "embedder": "hashing",
            "passages": False,
            **overrides,
        }
    )


async def _ingest(services: Services, landing: Path, **options: Any) -> IngestReport:
    arrivals = await resolve_paths(services, [landing])
    return await ingest_books(
        services, IngestRequest(arrivals.sources, arrivals.removed, run_id="r", **options)
    )


async def _totals(database: Database) -> dict[Series, float]:
    async with database.connection() as conn:
        return await counters.totals(conn)


async def test_many_runs_add_at_once_and_each_beat_counts_once(database: Database) -> None:
    """Sent again, out of order of the counters, from many writers at once: the sums are exact, nobody deadlocks."""

    async def write(writer: uuid.UUID, names: tuple[Series, ...]) -> None:
        for number in range(1, 11):
            for _ in range(2):  # the second time, as if the first one's outcome had been lost
                async with database.connection() as conn:
                    beat = Beat(number, dict.fromkeys(names, 1.0))
                    await counters.add(conn, writer=writer, run_id="r", beat=beat, state={"limit": 2.0})

    await asyncio.gather(*(write(uuid.uuid4(), (A, B) if n % 2 else (B, A)) for n in range(6)))
    assert await _totals(database) == {A: 60.0, B: 60.0}
    async with database.connection() as conn:
        assert [run.state for run in await counters.live_runs(conn)] == [{"limit": 2.0}] * 6


async def test_a_run_that_is_not_heard_of_is_not_at_work_and_is_swept_after_a_day(database: Database) -> None:
    """A killed run says no goodbye; what it had added stays."""
    async with database.connection() as conn:
        await counters.add(conn, writer=uuid.uuid4(), run_id="killed", beat=Beat(1, {A: 1.0}), state={})
        await conn.execute("update era.run_meters set touched_at = now() - interval '31 s'")
        assert await counters.live_runs(conn) == []
        await conn.execute("update era.run_meters set touched_at = now() - interval '25 h'")
        await counters.add(conn, writer=uuid.uuid4(), run_id="next", beat=Beat(1, {A: 1.0}), state={})
        assert [run.run_id for run in await counters.live_runs(conn)] == ["next"]
        cursor = await conn.execute("select count(*) from era.run_meters")
        assert await cursor.fetchone() == (1,)
    assert await _totals(database) == {A: 2.0}


async def test_the_totals_are_what_the_runs_report_with_refusals_and_money(
    tmp_path: Path, database_url: str, landing: Path
) -> None:
    """Two runs before a server that refuses some requests: requests by outcome, texts, tokens, cost, rows, chunks."""
    rules = (Rule(Fault.INTERNAL, first=1), Rule(Fault.SLOW_DOWN, first=3))
    async with EmbeddingServer(ServerOptions(dimensions=8, rules=rules)) as server:
        settings = _settings(
            tmp_path,
            database_url,
            embedder="openai",
            embed_url=server.url,
            embed_model="m",
            embed_dimensions=8,
            embed_price=2.0,
            embed_batch_texts=4,
        )
        async with open_services(settings) as services:
            reports = [await _ingest(services, landing)]
            shutil.rmtree(landing / "the-lighthouse-handbook")
            reports.append(await _ingest(services, landing, force=True))
            totals = await _totals(services.database)
    assert [report.error for report in reports] == [None, None]

    def total(name: str, **labels: str) -> float:
        return totals.get(Series.of(name, **labels), 0.0)

    model = {"model": str(reports[0].model)}
    by_outcome = {
        dict(series.labels)["outcome"]: value
        for series, value in totals.items()
        if series.name == "era_embedding_requests_total"
    }
    assert sum(by_outcome.values()) == sum(report.requests for report in reports) == server.stats.requests
    assert by_outcome["rate_limited"] == sum(report.rate_limited for report in reports) > 0
    assert by_outcome["server_error"] > 0
    buckets = {s: v for s, v in totals.items() if s.name == "era_embedding_request_duration_seconds_bucket"}
    assert sum(buckets.values()) == by_outcome["ok"]
    for name in ("texts_embedded", "retries", "tokens"):
        prefix = "era_" if name.startswith("texts") else "era_embedding_"
        wanted = sum(
            report.total(name) if name.startswith("texts") else getattr(report, name) for report in reports
        )
        assert total(f"{prefix}{name}_total", **model) == wanted > 0
    assert total("era_embedding_cost_total", **model) == pytest.approx(
        sum(report.cost or 0.0 for report in reports), abs=1e-5
    )
    for name in ("rows_written", "rows_deleted", "texts_reused"):
        assert total(f"era_{name}_total") == sum(report.total(name) for report in reports) > 0
    assert total("era_chunks_total", kind="entry") == sum(
        book.entries for report in reports for book in report.books if book.status == "loaded"
    )
    assert total("era_books_processed_total", status="removed") == 1
    assert not any(label in {"book", "text"} for series in totals for label, _ in series.labels)


async def test_a_run_that_finds_nothing_to_do_writes_nothing(
    tmp_path: Path, database_url: str, landing: Path
) -> None:
    """Again is free, for the metrics too."""
    async with open_services(_settings(tmp_path, database_url)) as services:
        await _ingest(services, landing)
        before = await _totals(services.database)
        await _ingest(services, landing)
        assert await _totals(services.database) == before
        async with services.database.connection() as conn:
            cursor = await conn.execute("select count(*), bool_and(state is null) from era.run_meters")
            assert await cursor.fetchone() == (1, True)


async def test_what_a_database_does_not_take_is_added_once_it_does(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first beats fail, one after it was added: at the end every book is there once, and the run went on."""
    monkeypatch.setattr("era_ingest.pipelines.telemetry.FIRST_S", 0.0)
    monkeypatch.setattr("era_ingest.pipelines.telemetry.EVERY_S", 0.01)
    add, calls = counters.add, 0
    tried = asyncio.Event()

    async def fail_at_first(conn: Any, **arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise psycopg.OperationalError("the connection is lost")
        await add(conn, **arguments)
        if calls == 2:
            await conn.commit()  # it is there, and nobody hears of it
            raise psycopg.OperationalError("the connection is lost")
        tried.set()

    monkeypatch.setattr(counters, "add", fail_at_first)
    result = IngestReport()
    telemetry = Telemetry(result, price=0.0)
    async with telling(database, telemetry, run_id="r"):
        _finish_book(result, "a")
        async with asyncio.timeout(30):
            await tried.wait()
        _finish_book(result, "b")
    assert (await _totals(database))[Series.of("era_books_processed_total", status="refused")] == 2.0


def _finish_book(result: IngestReport, slug: str) -> None:
    from era_ingest.pipelines.report import BookReport, BookStatus

    result.books.append(BookReport(slug, slug, BookStatus.REFUSED))
