"""What a person looks at: numbers, tables and pictures of what a run did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from era_ingest.orchestration.picture import draw_run
from era_ingest.pipelines.report import BookStatus, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from era_ingest.core.model import Defect
    from era_ingest.pipelines.report import BookReport, IngestReport

MAX_TABLE_ROWS = 25
MIN_PICTURE_S = 5.0
"""A shorter run gets no picture: it would show nothing, and drawing takes half a second."""
_EXCERPT_CHARS = 160


def book_metadata(stage: Stage, book: BookReport, *, model: str | None) -> dict[str, Any]:
    """Return the metadata of one book's materialization of one asset.

    Args:
        stage: The asset.
        book: What became of the book.
        model: Identity of the model; None while the run goes on.
    """
    facts: dict[str, Any] = {"book": book.book, "status": book.status.value}
    if stage is Stage.BOOKS:
        facts |= {"chapters": book.chapters, "entries": book.entries}
        if model is not None:  # the run's end: now it is counted
            facts["quarantined"] = book.quarantined
    elif stage is Stage.CHUNKS:
        facts |= {
            "dagster/partition_row_count": book.entries + book.passages,
            "entries": book.entries,
            "passages": book.passages,
        }
    elif stage is Stage.EMBEDDINGS:
        facts |= {"texts embedded": book.texts_embedded, "texts reused": book.texts_reused}
    else:
        facts |= {
            "dagster/partition_row_count": book.entries + book.passages,
            "rows written": book.rows_written,
            "rows deleted": book.rows_deleted,
        }
    if model and stage in {Stage.EMBEDDINGS, Stage.VECTOR_TABLES}:
        facts["model"] = model
    return facts


def run_metadata(report: IngestReport) -> dict[str, Any]:
    """Return what is true of the run as a whole: totals, throughput, a table of its books, a picture."""
    embedded, seconds = report.total("texts_embedded"), max(report.seconds, 1e-9)
    facts: dict[str, Any] = {
        "run: books": dg.MetadataValue.md(books_table(report.books)),
        "run: texts embedded": embedded,
        "run: texts reused": report.total("texts_reused"),
        "run: texts a second": round(embedded / seconds, 1),
        "run: requests": report.requests,
        "run: refused by rate limits": report.rate_limited,
        "run: requests sent again": report.retries,
        "run: tokens": report.tokens,
        "run: rows written": report.total("rows_written"),
        "run: rows deleted": report.total("rows_deleted"),
        "run: seconds": round(report.seconds, 2),
        "run: seconds held back, by what": {
            name: round(held, 1) for name, held in report.held_seconds.items()
        },
        "run: busy seconds by stage": {stage: round(busy, 2) for stage, busy in report.stage_seconds.items()},
    }
    if report.cost is not None:
        facts["run: cost"] = report.cost
    if report.limit is not None:
        facts["run: requests allowed in flight at the end"] = round(report.limit, 1)
    if report.seconds >= MIN_PICTURE_S and (picture := draw_run(report.samples)):
        facts["run: latency and concurrency"] = dg.MetadataValue.md(picture)
    return facts


def books_table(books: Sequence[BookReport]) -> str:
    """Return books as a Markdown table: those that went wrong first, then the largest; at most 25 rows."""
    order = sorted(
        books,
        key=lambda book: (book.status is not BookStatus.REFUSED, -book.entries - book.passages, book.book),
    )
    return markdown_table(
        ("book", "status", "chapters", "entries", "passages", "embedded", "reused", "written", "why"),
        [
            (
                book.book,
                book.status.value,
                book.chapters,
                book.entries,
                book.passages,
                book.texts_embedded,
                book.texts_reused,
                book.rows_written,
                book.error or "",
            )
            for book in order
        ],
    )


def defects_table(defects: Sequence[Defect]) -> str:
    """Return refusals as a Markdown table, at most 25 rows."""
    return markdown_table(
        ("file", "place", "reason", "detail"),
        [(defect.file, defect.pointer, defect.reason, defect.detail) for defect in defects],
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table of at most 25 rows; how many were left out stands under it."""
    if not rows:
        return "none"
    lines = [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows[:MAX_TABLE_ROWS])]
    left_out = len(rows) - MAX_TABLE_ROWS
    return "\n".join(lines) + (f"\n\nand {left_out:,} more" if left_out > 0 else "")


def counts_metadata(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts, the largest first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: object) -> str:
    """Return one cell: bounded, on one line, figures with thousands separators, nothing that ends the cell."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = " ".join(str(value).split())
    if len(text) > _EXCERPT_CHARS:
        text = text[: _EXCERPT_CHARS - 1] + "…"
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
