"""Search over HTTP, on the shipped samples in a real database."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import era_ingest
from era_ingest import search as search_module
from era_ingest.clients.hashing import HashingEmbedder
from era_ingest.errors import StoreUnavailableError
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.search import LOOKED_UP_S, MAX_CACHED_QUERIES, Searcher, SearchRequest
from era_ingest.pipelines.services import open_services
from era_ingest.settings import load_settings
from era_ingest.store import search as store_search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest_tests.service_kit import Installation, Served

SAMPLES = Path(era_ingest.__file__).parent / "samples"
QUESTION = "trade what matters little to you and much to them"
RUN_ID = "0b5b9a3e-7a4b-4c5e-9d7e-000000000001"


@pytest.fixture(scope="module")
def environment(shared_installation: Installation) -> Installation:
    """The shipped samples, loaded."""

    async def load() -> None:
        async with open_services(load_settings()) as services:
            arrivals = await resolve_paths(services, [SAMPLES])
            report = await ingest_books(services, IngestRequest(arrivals.sources, run_id=RUN_ID))
            assert report.error is None

    asyncio.run(load())
    return shared_installation


@pytest.fixture(scope="module")
def served(environment: Installation) -> Iterator[Served]:
    """A service over the samples."""
    with environment.serve() as opened:
        yield opened


def test_a_search_finds_what_python_finds_with_its_provenance(served: Served) -> None:
    """The same texts in the same order as from Python, each down to file, chapter and run."""
    answer = served.ask("POST", "/v1/search", {"text": QUESTION, "k": 5})
    assert answer.status == 200
    results = answer.json["results"]
    try:
        hits = search_module.semantic_similarity_lookup(QUESTION, k=5)
    finally:
        search_module.close()
    assert [result["id"] for result in results] == [str(hit.id) for hit in hits]
    for result, hit in zip(results, hits, strict=True):
        assert result["score"] == pytest.approx(hit.score, abs=1e-6)
        source = result["source"]
        assert (SAMPLES / source["file"]).is_file()
        assert source["run_id"] == RUN_ID
        assert source["chapter"] == hit.chapter
        assert len(source["sha256"]) == 64


def test_the_filters_hold(served: Served) -> None:
    """Domain in any spelling, category, book, score and count each narrow the result."""
    first = served.ask("POST", "/v1/search", {"text": QUESTION, "k": 50}).json["results"]
    domain, category, book = first[0]["domains"][0], first[0]["category"], first[0]["book"]
    for narrow, holds in (
        ({"domain": domain.upper().replace("_", " ")}, lambda hit: domain in hit["domains"]),
        ({"category": category}, lambda hit: hit["category"] == category),
        ({"book": book}, lambda hit: hit["book"] == book),
        ({"min_score": first[3]["score"] - 1e-6}, lambda hit: hit["score"] >= first[3]["score"] - 2e-6),
    ):
        found = served.ask("POST", "/v1/search", {"text": QUESTION, "k": 50, **narrow}).json["results"]
        assert 0 < len(found) < len(first) or found == first
        assert all(map(holds, found))
    assert served.ask("POST", "/v1/search", {"text": QUESTION, "k": 1}).json["results"] == first[:1]


def test_a_vector_is_searched_as_it_is_and_must_fit_the_model(served: Served) -> None:
    """The text's own vector finds what the text finds; another size is refused in words."""
    vector = asyncio.run(HashingEmbedder().embed([QUESTION])).vectors[0]
    by_vector = served.ask("POST", "/v1/search", {"vector": [float(x) for x in vector], "k": 3}).json[
        "results"
    ]
    by_text = served.ask("POST", "/v1/search", {"text": QUESTION, "k": 3}).json["results"]
    assert [hit["id"] for hit in by_vector] == [hit["id"] for hit in by_text]
    short = served.ask("POST", "/v1/search", {"vector": [1.0, 2.0]})
    assert (short.status, short.code) == (422, "unprocessable")
    assert "768" in short.json["detail"]
    assert served.ask("POST", "/v1/search", {"vector": [float("nan")] * 768}).status == 422


def test_a_hybrid_search_brings_in_what_holds_the_words(served: Served) -> None:
    """With its filters and sources; a vector has no words, and either is asked for, not both or none."""
    plain = served.ask("POST", "/v1/search", {"text": QUESTION, "k": 50}).json["results"]
    last = plain[-1]
    words = " ".join(sorted(last["text"].strip(".").split(), key=len)[-3:])
    hybrid = served.ask("POST", "/v1/search", {"text": words, "k": 5, "hybrid": True}).json["results"]
    assert last["id"] in {result["id"] for result in hybrid}
    assert all(result["source"]["run_id"] == RUN_ID for result in hybrid)
    assert all(result["fused"] > 0 for result in hybrid)
    assert {result["fused"] for result in plain} == {None}
    narrowed = {"text": words, "hybrid": True, "category": "passage"}
    found = served.ask("POST", "/v1/search", narrowed).json["results"]
    assert {result["category"] for result in found} == {"passage"}
    try:
        hits = search_module.semantic_similarity_lookup(words, k=5, hybrid=True)
    finally:
        search_module.close()
    assert [str(hit.id) for hit in hits] == [result["id"] for result in hybrid]
    wrong: tuple[dict[str, Any], ...] = (
        {"vector": [1.0] * 768, "hybrid": True},
        {"vector": [1.0] * 768, "text": "x"},
        {},
        {"text": None},
        {"text": " \u200b\u0007 "},
        {"text": "x", "hybrid": 1},
        {"text": "x", "k": "3"},
        {"vector": ["1.0"] * 768},
        {"vector": []},
    )
    for body in wrong:
        answer = served.ask("POST", "/v1/search", body)
        assert (answer.status, answer.code) == (422, "invalid_request")
    huge = served.ask("POST", "/v1/search", {"vector": [1e308] * 768})
    assert (huge.status, huge.code) == (422, "unprocessable")


async def test_the_tables_are_looked_up_once_a_second(
    environment: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each search; a model that comes to be the active one is searched a second later."""
    now, asked = [0.0], []
    look_up = store_search.look_up

    async def count(*arguments: Any) -> object:
        asked.append(now[0])
        return await look_up(*arguments)

    monkeypatch.setattr(store_search, "look_up", count)
    async with open_services(load_settings()) as services:
        searcher = Searcher(services, clock=lambda: now[0])
        for at in (0.0, LOOKED_UP_S / 2, LOOKED_UP_S):
            now[0] = at
            assert await searcher.search(SearchRequest(text="x"))
        await searcher.aclose()
    assert asked == [0.0, LOOKED_UP_S]


def test_sql_in_a_field_is_text(served: Served) -> None:
    """Names and queries that are SQL find nothing and change nothing."""
    attack = "'; drop table era.doctrine_sources; --"
    for body in ({"text": attack}, {"text": "x", "book": attack}, {"text": "x", "domain": attack}):
        answer = served.ask("POST", "/v1/search", body)
        assert answer.status == 200
        assert ("text" in body and len(body) == 1) or answer.json["results"] == []
    with psycopg.connect(os.environ["ERA_DATABASE_URL"]) as connection:
        row = connection.execute("select count(*) from era.doctrine_sources").fetchone()
    assert row is not None
    assert row[0] > 0


def test_a_context_keeps_its_budget_and_names_its_sources(served: Served) -> None:
    """The text a persona gets is what Python gives, within the tokens asked for, doctrine only."""
    answer = served.ask("GET", "/v1/context?query=shall+we+wait+or+act&max_tokens=120&min_score=0").json
    try:
        same = search_module.enrich_context_with_doctrine(
            "shall we wait or act", max_tokens=120, min_score=0.0
        )
    finally:
        search_module.close()
    assert answer["text"] == same.text != ""
    assert 0 < answer["tokens"] <= 120
    assert len(answer["results"]) == len(same.hits)
    assert all(result["category"] != "passage" and result["source"] for result in answer["results"])
    assert served.ask("GET", "/v1/context").code == "invalid_request"
    assert served.ask("GET", "/v1/context?query=x&min_score=nan").code == "invalid_request"


async def test_a_query_is_embedded_once(environment: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again, its vector is at hand; the oldest of too many go."""
    asked: list[str] = []
    embed = HashingEmbedder.embed

    async def count(self: HashingEmbedder, texts: list[str]) -> object:
        asked.extend(texts)
        return await embed(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed", count)
    monkeypatch.setattr("era_ingest.pipelines.search.MAX_CACHED_QUERIES", 2)
    assert MAX_CACHED_QUERIES > 2
    async with open_services(load_settings()) as services:
        searcher = Searcher(services)
        for text in ("a", "b", "a", "c", "a", "b"):
            await searcher.search(SearchRequest(text=text))
        await searcher.aclose()
    assert asked == ["a", "b", "c", "b"]


async def test_a_search_that_takes_too_long_is_cancelled_in_the_database(environment: Installation) -> None:
    """Behind somebody's lock the statement ends, the error says so, and the next search works."""
    async with open_services(load_settings()) as services:
        searcher = Searcher(services, timeout_s=0.1)
        async with services.database.connection() as conn:
            await conn.execute("lock table era.vectors_1 in access exclusive mode")
            with pytest.raises(StoreUnavailableError, match="longer than"):
                await searcher.search(SearchRequest(text="x"))
        assert await searcher.search(SearchRequest(text="x"))
        await searcher.aclose()
