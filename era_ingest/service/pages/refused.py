"""The quarantine: what was refused, why, and what to do about it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from era_ingest.core.reasons import explain_reason
from era_ingest.service.pages.paging import MAX_FILTER_CHARS, PageNo, Pager, with_query, without_nul
from era_ingest.service.pages.reading import reading
from era_ingest.service.pages.rendering import render
from era_ingest.service.parts import parts_of
from era_ingest.store import browsing, quarantine

PAGE_LINES = 25
MAX_REASON_CHARS = 100

router = APIRouter(include_in_schema=False)


@router.get("/quarantine")
async def show(
    request: Request,
    book: Annotated[str, Query(max_length=MAX_FILTER_CHARS)] = "",
    reason: Annotated[str, Query(max_length=MAX_REASON_CHARS)] = "",
    kind: Literal["", "document", "item", "text"] = "",
    page: PageNo = 1,
) -> Response:
    """Show what was refused, the latest first; of one book, or for one reason."""
    name, why = without_nul(book), without_nul(reason)
    async with reading(parts_of(request)) as conn:
        counts = await quarantine.counts_by_reason(conn, name or None)
        rows = await quarantine.listing(
            conn,
            book=name or None,
            reason=why or None,
            kind=kind or None,
            limit=PAGE_LINES,
            offset=(page - 1) * PAGE_LINES,
        )
        slugs = await browsing.book_slugs(conn, {row.book for row in rows if row.book is not None})
    count = sum(n for (of, code), n in counts.items() if kind in {"", of} and why in {"", code})
    query = {"book": name, "kind": kind, "reason": why}
    return render(
        request,
        "quarantine.html",
        rows=rows,
        slugs=slugs,
        explain=explain_reason,
        book=name,
        chosen=(kind, why),
        choices=[
            (of, code, n, with_query("/quarantine", {"book": name, "kind": of, "reason": code}))
            for (of, code), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ],
        everything=with_query("/quarantine", {"book": name}),
        in_all=sum(counts.values()),
        pager=Pager("/quarantine", query, page, PAGE_LINES, count),
    )
