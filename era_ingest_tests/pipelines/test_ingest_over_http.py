"""Ingestion before a real HTTP server: what is sent, what is refused, what a wrong key leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import era_ingest
import era_ingest.errors
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import BookStatus, IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest_tests.pipelines.ingest_kit import doctrine_file, edit, fetch_rows, hashing_settings, ingest
from era_ingest_tests.server_faults import Fault, Rule
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    from pathlib import Path


def _served_by(server: EmbeddingServer, tmp_path: Path, database_url: str) -> Any:
    """Return the settings of an OpenAI-compatible server and of a model that nobody has used."""
    return hashing_settings(
        tmp_path,
        database_url,
        embedder="openai",
        embed_url=server.url,
        embed_model="m",
        embed_dimensions=None,
    )


@pytest.mark.parametrize("backend", ["openai", "ollama"])
async def test_over_the_network_each_distinct_text_is_sent_once(
    tmp_path: Path, database_url: str, landing: Path, backend: str
) -> None:
    """A real HTTP server counts each distinct text once, in batches over all books; then nothing."""
    async with EmbeddingServer(ServerOptions()) as server:
        settings = hashing_settings(
            tmp_path,
            database_url,
            embedder=backend,
            embed_url=server.url,
            embed_model="m",
            embed_dimensions=None,
        )
        async with open_services(settings) as services:
            report = await ingest(services, landing)
            distinct = await fetch_rows(
                services, "select count(distinct content_hash) from era.doctrine_embeddings_all"
            )
            sizing = 1  # a sentence, for the size of the new model's vectors
            assert server.stats.texts - sizing == distinct[0][0] == report.total("texts_embedded")
            assert server.stats.requests == report.requests
            assert report.requests <= -(-server.stats.texts // settings.batch_texts) + 2
            again = await ingest(services, landing)
            assert again.requests == 0
            assert server.stats.requests == report.requests


async def test_a_text_that_the_server_refuses_is_quarantined_by_itself(
    tmp_path: Path, database_url: str, landing: Path
) -> None:
    """The poison text is quarantined with the server's reason; the others load; again asks nothing."""
    edit(doctrine_file(landing), lambda chapters: chapters[0]["rules"].append("POISON ivy is not a hedge."))
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.BAD_TEXT, text="POISON"),))) as server:
        settings = _served_by(server, tmp_path, database_url)
        async with open_services(settings) as services:
            report = await ingest(services, landing)
            assert report.total("quarantined") == 1
            (row,) = await fetch_rows(services, "select kind, text, reason from era.quarantine")
            assert row[:2] == ("text", "POISON ivy is not a hedge.")
            assert await fetch_rows(services, "select count(*) from era.doctrine_embeddings_all") == [
                (report.total("entries") + report.total("passages") - 1,)
            ]
            again = await ingest(services, landing)
            assert again.requests == 0
            assert again.total("quarantined") == 1


async def test_a_book_without_texts_outlasts_a_server_that_says_slow_down(
    tmp_path: Path, database_url: str
) -> None:
    """It is the first of its model, so the vectors' size is asked for; two refusals do not end the run."""
    landing = tmp_path / "bare"
    landing.mkdir()
    chapter = {"chapter_index": 1, "chapter_title": "Nothing yet", "raw_text": "", "domains": ["war"]}
    (landing / "empty.json").write_text(
        json.dumps({"title": "Empty", "chapters": [chapter]}), encoding="utf-8"
    )
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.SLOW_DOWN, first=2),))) as server:
        settings = _served_by(server, tmp_path, database_url)
        async with open_services(settings) as services:
            report = await ingest(services, landing)
            assert report.error is None
            assert [book.status for book in report.books] == [BookStatus.LOADED]
            assert server.stats.faults == 2


async def test_a_wrong_key_stops_with_its_reason_and_keeps_what_is_done(
    tmp_path: Path, database_url: str, landing: Path
) -> None:
    """401: no retry, the setting is named, the books are pending and the secret is in no message."""
    async with EmbeddingServer(ServerOptions(api_key="right")) as server:
        settings = hashing_settings(
            tmp_path,
            database_url,
            embedder="openai",
            embed_url=server.url,
            embed_model="m",
            embed_dimensions=None,
            embed_api_key="sk-wrong-and-secret",
        )
        async with open_services(settings) as services:
            arrivals = await resolve_paths(services, [landing])
            report = await ingest_books(services, IngestRequest(arrivals.sources))
    assert isinstance(report.error, era_ingest.errors.AuthenticationError)
    assert "ERA_EMBED_API_KEY" in report.error.message
    assert "sk-wrong-and-secret" not in report.error.message
    assert {book.status for book in report.books} == {BookStatus.PENDING}
    assert server.stats.requests <= 8
