"""What is in the corpus: the front page, books, domains."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from era_ingest.errors import NotFoundError
from era_ingest.service.pages.jobs import LISTED, list_latest
from era_ingest.service.pages.paging import MAX_FILTER_CHARS, PageNo, Pager, without_nul
from era_ingest.service.pages.reading import DomainCounts, reading
from era_ingest.service.pages.rendering import render
from era_ingest.service.pages.speed import Span, view_speed
from era_ingest.service.parts import parts_of
from era_ingest.store import browsing, models, quarantine, sources
from era_ingest.store.browsing import DomainLine
from era_ingest.store.domains import domain_states

PAGE_LINES = 50
DOMAIN_BOOKS = 200
"""Books that the page of a domain names, at most."""
FRONT_BOOKS = 6
FRONT_DOMAINS = 10
_SLUG = re.compile(r"[a-z0-9_-]{1,80}")

router = APIRouter(include_in_schema=False)


@router.get("/")
async def front(request: Request, span: Span | None = None) -> Response:
    """Show everything at a glance."""
    parts = parts_of(request)
    async with reading(parts) as conn:
        totals = await browsing.totals(conn)
        books = await browsing.latest_books(conn, limit=FRONT_BOOKS)
        domains = await _counts(request).get(conn)
        model = await models.active_model(conn)
        speed = await view_speed(conn, span)
    return render(
        request,
        "front.html",
        speed=speed,
        spans=list(Span),
        totals=totals,
        books=books,
        domains=domains[:FRONT_DOMAINS],
        domain_count=len(domains),
        model=model,
        landing=parts.settings.landing_dir.absolute(),
        jobs=await list_latest(parts, LISTED),
    )


@router.get("/books")
async def list_books(
    request: Request,
    part: Annotated[str, Query(alias="q", max_length=MAX_FILTER_CHARS)] = "",
    page: PageNo = 1,
) -> Response:
    """List books by name."""
    wanted = without_nul(part).strip()
    async with reading(parts_of(request)) as conn:
        books, count = await browsing.list_books(
            conn, containing=wanted, limit=PAGE_LINES, offset=(page - 1) * PAGE_LINES
        )
    pager = Pager("/books", {"q": wanted}, page, PAGE_LINES, count)
    landing = parts_of(request).settings.landing_dir.absolute()
    return render(request, "books.html", books=books, pager=pager, part=wanted, landing=landing)


@router.get("/books/{slug}")
async def show_book(request: Request, slug: str) -> Response:
    """Show one book: its chapters, what was refused of it, where it comes from."""
    async with reading(parts_of(request)) as conn:
        found = (await sources.states(conn, [slug])).get(slug) if _SLUG.fullmatch(slug) else None
        if found is None:
            raise NotFoundError("No book of this name is loaded: it was never here, or was removed.")
        chapters = await browsing.chapters_of(conn, found.book)
        refused = await quarantine.counts_by_reason(conn, found.book)
        model = await models.active_model(conn)
    return render(
        request,
        "book.html",
        book=found,
        chapters=chapters,
        quarantined=sum(refused.values()),
        refused={reason: count for (_, reason), count in refused.items()},
        model=model,
    )


@router.get("/domains")
async def list_domains(request: Request) -> Response:
    """List domains, the largest first."""
    async with reading(parts_of(request)) as conn:
        domains = await _counts(request).get(conn)
    return render(request, "domains.html", domains=domains)


@router.get("/domains/{domain}")
async def show_domain(request: Request, domain: str) -> Response:
    """Show one domain: its figures, and the books that it is made of."""
    parts = parts_of(request)
    async with reading(parts) as conn:
        line = _find(await _counts(request).get(conn), domain)
        state = (await domain_states(conn, [domain])).get(domain)
        books = await browsing.books_of_domain(conn, domain, limit=DOMAIN_BOOKS)
    return render(
        request,
        "domain.html",
        domain=line,
        state=state,
        books=books,
        folder=parts.settings.ministers_dir.absolute() / domain,
    )


def _find(lines: list[DomainLine], domain: str) -> DomainLine:
    """Return one domain's line."""
    for line in lines:
        if line.domain == domain:
            return line
    raise NotFoundError("No domain of this name has anything in it.")


def _counts(request: Request) -> DomainCounts:
    counts = request.app.state.domain_counts
    assert isinstance(counts, DomainCounts)
    return counts
