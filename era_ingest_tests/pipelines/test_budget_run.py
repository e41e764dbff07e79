"""An ingestion with a bound of tokens: it stops with one error, keeps what is done, and goes on next time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from era_ingest.bench.workload import make_sentences, write_books
from era_ingest.clients.server_check import SENTENCE
from era_ingest.errors import BudgetExceededError
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import BookStatus, IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest.settings import load_settings
from era_ingest_tests.servers import EmbeddingServer

if TYPE_CHECKING:
    from pathlib import Path

    from era_ingest.pipelines.report import IngestReport

BOUND = 3_000
TEXTS = 400


async def _ingest(tmp_path: Path, database_url: str, server: EmbeddingServer) -> IngestReport:
    settings = load_settings(
        home=tmp_path / "home",
        database_url=database_url,
        ministers_dir=tmp_path / "ministers",
        embedder="openai",
        embed_url=server.url,
        embed_model="m",
        embed_batch_texts=16,
        embed_max_tokens=BOUND,
    )
    async with open_services(settings) as services:
        arrivals = await resolve_paths(services, [tmp_path / "landing"])
        return await ingest_books(services, IngestRequest(arrivals.sources, arrivals.removed))


async def test_runs_with_a_bound_get_through_the_work_one_after_another(
    tmp_path: Path, database_url: str
) -> None:
    """The finished books of each are loaded, no text is paid for twice, and no run exceeds its bound."""
    write_books(tmp_path / "landing", make_sentences(TEXTS), books=8)
    loaded = 0
    async with EmbeddingServer() as server:
        for _ in range(8):
            before = len(server.seen)
            report = await _ingest(tmp_path, database_url, server)
            loaded += sum(book.status is BookStatus.LOADED for book in report.books)
            seen = [text for texts in server.seen[before:] for text in texts]
            assert sum(map(len, seen)) * 1.2 / 4 <= BOUND
            if report.error is None:
                break
            assert isinstance(report.error, BudgetExceededError)
            assert BookStatus.PENDING in {book.status for book in report.books}
        sent = [text for texts in server.seen for text in texts if text != SENTENCE]
    assert report.error is None
    assert loaded == 8
    assert len(sent) == len(set(sent)) == TEXTS
    assert len(server.seen) > before > 0
