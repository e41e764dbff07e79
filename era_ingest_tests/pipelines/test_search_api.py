"""Search from Python, as a persona's code calls it: sync and async, on a real database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import era_ingest
from era_ingest import search
from era_ingest.clients.hashing import HashingEmbedder
from era_ingest.errors import ConfigurationError, InvalidNameError, PermanentError
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(era_ingest.__file__).parent / "samples"
QUESTION = "trade what matters little to you and much to them"


@pytest.fixture
def environment(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings in the environment, where the search functions look for them; nothing loaded yet."""
    monkeypatch.setenv("ERA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERA_DATABASE_URL", database_url)
    monkeypatch.setenv("ERA_EMBEDDER", "hashing")
    monkeypatch.setenv("ERA_MINISTERS_DIR", str(tmp_path / "ministers"))
    yield
    search.close()


@pytest.fixture
def loaded(environment: None) -> None:
    """The shipped samples, loaded."""

    async def load() -> None:
        async with open_services(load_settings()) as services:
            arrivals = await resolve_paths(services, [SAMPLES])
            report = await ingest_books(services, IngestRequest(arrivals.sources))
            assert report.error is None

    asyncio.run(load())


def test_before_anything_is_loaded_the_error_says_what_to_do(environment: None) -> None:
    """The remedy names the command."""
    with pytest.raises(ConfigurationError, match="era ingest"):
        search.semantic_similarity_lookup("x")


def test_filters_and_order(loaded: None) -> None:
    """The text itself comes first; filters hold; a vector finds what its text finds."""
    hits = search.semantic_similarity_lookup(QUESTION, k=5)
    assert "Trade what matters little" in hits[0].text
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.text for hit in hits}) == 5

    only = search.semantic_similarity_lookup(QUESTION, domain="Negotiation", category="principles", k=50)
    assert only
    assert all("negotiation" in hit.domains and hit.category == "principle" for hit in only)
    inside = search.semantic_similarity_lookup(QUESTION, book=hits[0].book, k=3)
    assert {hit.book for hit in inside} == {hits[0].book}
    vector = HashingEmbedder().compute([QUESTION])[0]
    assert search.semantic_similarity_lookup(vector.tolist(), k=1)[0].id == hits[0].id
    assert not search.semantic_similarity_lookup(QUESTION, min_score=0.999, category="warning")


def test_a_request_that_makes_no_sense_is_refused(loaded: None) -> None:
    """Empty text, k out of range, unknown category, impossible domain, zero or short vector."""
    for arguments in (
        {"query": " \x00 "},
        {"query": "x", "k": 0},
        {"query": "x", "category": "poem"},
        {"query": [0.0] * 768},
        {"query": [1.0, 2.0]},
        {"query": [float(np.nan)] * 768},
    ):
        with pytest.raises(PermanentError):
            search.semantic_similarity_lookup(**arguments)
    with pytest.raises(InvalidNameError):
        search.semantic_similarity_lookup("x", domain="all")
    assert search.semantic_similarity_lookup("x", domain="no such domain'; drop table era.models; --") == []


def test_context_keeps_to_its_budget_and_names_its_sources(loaded: None) -> None:
    """Doctrine only, whole entries, within the tokens allowed."""
    wide = search.enrich_context_with_doctrine("how do I bargain well", k=8, max_tokens=1000, min_score=None)
    assert len(wide.hits) == 8
    assert all(hit.category != "passage" for hit in wide.hits)
    assert all(hit.book in wide.text and hit.text in wide.text for hit in wide.hits)
    narrow = search.enrich_context_with_doctrine("how do I bargain well", k=8, max_tokens=60, min_score=None)
    assert 0 < len(narrow.hits) < 8
    assert narrow.tokens <= 60


async def test_inside_an_event_loop_many_at_once(loaded_async: None) -> None:
    """The async twins do not block the loop and agree with each other."""
    several = await asyncio.gather(
        *(search.semantic_similarity_lookup_async(QUESTION, k=2) for _ in range(8)),
    )
    assert all([hit.id for hit in hits] == [hit.id for hit in several[0]] for hits in several)
    context = await search.enrich_context_with_doctrine_async(QUESTION, max_tokens=200, min_score=None)
    assert context.hits


def test_a_program_that_closes_nothing_ends_in_peace(loaded: None) -> None:
    """The searcher closes itself at the interpreter's end, without a word on standard error."""
    program = "from era_ingest.search import semantic_similarity_lookup as s; print(len(s('patience', k=2)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


@pytest.fixture
async def loaded_async(environment: None) -> None:
    """The shipped samples, loaded, for a test that runs in a loop."""
    async with open_services(load_settings()) as services:
        arrivals = await resolve_paths(services, [SAMPLES])
        await ingest_books(services, IngestRequest(arrivals.sources))
