"""Search, as a form and its results."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from era_ingest.core.model import Category
from era_ingest.errors import EraError
from era_ingest.pipelines.search import SearchRequest
from era_ingest.service.pages.paging import MAX_FILTER_CHARS, without_nul
from era_ingest.service.pages.reading import DomainCounts, reading
from era_ingest.service.pages.rendering import render
from era_ingest.service.parts import Parts, parts_of
from era_ingest.service.problems import problem_of
from era_ingest.service.search_routes import MAX_QUERY_CHARS, Result, show_results
from era_ingest.store import browsing

CHOICES = (10, 25, 50)
"""How many results may be asked for."""
MAX_RESULTS = 50

router = APIRouter(include_in_schema=False)


@router.get("/search")
async def search(
    request: Request,
    text: Annotated[str, Query(alias="q", max_length=MAX_QUERY_CHARS)] = "",
    domain: Annotated[str, Query(max_length=MAX_FILTER_CHARS)] = "",
    category: Annotated[str, Query(max_length=MAX_FILTER_CHARS)] = "",
    book: Annotated[str, Query(max_length=MAX_FILTER_CHARS)] = "",
    k: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = CHOICES[0],
    words: Annotated[bool, Query(description="rank what holds the words, too")] = False,
) -> Response:
    """Show the texts nearest in meaning, each with its score and where it comes from."""
    parts = parts_of(request)
    asked = SearchRequest(
        text=without_nul(text).strip(),
        domain=without_nul(domain).strip() or None,
        category=without_nul(category) or None,
        book=without_nul(book).strip() or None,
        k=k,
        hybrid=words,
    )
    counts = request.app.state.domain_counts
    assert isinstance(counts, DomainCounts)
    async with reading(parts) as conn:
        domains = [line.domain for line in await counts.get(conn)]
    results: list[Result] = []
    error: str | None = None
    status = 200
    if asked.text:
        try:
            found = await parts.searcher.find(asked)
            results = show_results(found.hits, found.sources)
        except EraError as refused:
            error, status = refused.message, problem_of(refused).status
    return render(
        request,
        "search.html",
        status=status,
        asked=asked,
        results=results,
        error=error,
        slugs=await _slugs(parts, results),
        domains=domains,
        categories=list(Category),
        choices=CHOICES,
        narrowed=any((asked.domain, asked.category, asked.book)),
        refined=any((asked.domain, asked.category, asked.book, words, k != CHOICES[0])),
    )


async def _slugs(parts: Parts, results: list[Result]) -> dict[str, str]:
    names = {result.book for result in results} | {
        place.book for result in results for place in result.also_in
    }
    if not names:
        return {}
    async with reading(parts) as conn:
        return await browsing.book_slugs(conn, names)
