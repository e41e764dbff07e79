"""What an ingestion is asked, and what it tells: request, progress, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.core.limiter import LimiterState
    from era_ingest.core.source import BookSource
    from era_ingest.errors import EraError


class Stage(StrEnum):
    """A step that a book goes through; each is an asset of the graph."""

    BOOKS = "books"
    CHUNKS = "chunks"
    EMBEDDINGS = "embeddings"
    VECTOR_TABLES = "vector_tables"


ALL_STAGES = frozenset(Stage)


class BookStatus(StrEnum):
    """How a book ended."""

    LOADED = "loaded"
    """Everything asked of it was done."""
    UNCHANGED = "unchanged"
    """It was as it is; nothing was read from the embedder or written."""
    REFUSED = "refused"
    """Its document cannot be read; what was loaded of it before stays as it was."""
    REMOVED = "removed"
    """Its rows are gone, since its files are."""
    PENDING = "pending"
    """The run stopped before it was this book's turn; the next run takes it up."""


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """Which books to take through which stages.

    Attributes:
        sources: Books to load, at most one a slug.
        removed: Slugs of books whose files are gone.
        stages: Stages to run; a stage left out reads what it made before.
        run_id: What provenance rows name as the run.
        force: Work on unchanged books too.
        retry_refused: Ask again for texts that the server refused before.
    """

    sources: tuple[BookSource, ...]
    removed: tuple[str, ...] = ()
    stages: frozenset[Stage] = ALL_STAGES
    run_id: str = ""
    force: bool = False
    retry_refused: bool = False


@dataclass(slots=True)
class BookReport:
    """What became of one book."""

    slug: str
    book: str
    status: BookStatus
    chapters: int = 0
    entries: int = 0
    passages: int = 0
    texts_embedded: int = 0
    texts_reused: int = 0
    quarantined: int = 0
    rows_written: int = 0
    rows_deleted: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, for the picture of a run.

    Attributes:
        at_s: Seconds since the run's start.
        latency_s: Seconds from sending to the whole reply.
        in_flight: Requests in flight when it was sent, itself included.
        limit: Requests that the controller allowed then.
    """

    at_s: float
    latency_s: float
    in_flight: int
    limit: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; counts only grow.

    Attributes:
        books_done: Books finished, in whatever way.
        books_total: Books of the request.
        texts_done: Texts embedded and committed.
        texts_known: Texts that are to be embedded, as far as is known yet.
        texts_expected: Texts that are to be embedded in all; while books are still being read, an estimate from
            what their bytes gave so far.
        reading_done: True once ``texts_known`` is final.
        requests: Requests answered.
        rate_limited: Refusals among them.
        tokens: Tokens that the server counted (or our estimate).
        cost: What they cost by ``ERA_EMBED_PRICE``; None where no price is set.
        texts_per_s: Rate over the last few seconds.
        seconds_left: Estimate; None while unknown.
        limiter: The controller's picture; None before the first request.
        elapsed_s: Seconds since the start.
        books: Reports of the books that are finished so far, in the order of finishing; the list grows.
    """

    books_done: int
    books_total: int
    texts_done: int = 0
    texts_known: int = 0
    texts_expected: int = 0
    reading_done: bool = False
    requests: int = 0
    rate_limited: int = 0
    tokens: int = 0
    cost: float | None = None
    texts_per_s: float = 0.0
    seconds_left: float | None = None
    limiter: LimiterState | None = None
    elapsed_s: float = 0.0
    books: Sequence[BookReport] = ()

    @property
    def share(self) -> float:
        """Share done, 0 to 1: by texts where any are to be embedded, else by books."""
        if self.texts_expected:
            return min(1.0, self.texts_done / self.texts_expected)
        return self.books_done / self.books_total if self.books_total else 1.0


@dataclass(slots=True)
class IngestReport:
    """What a run did.

    Attributes:
        books: One report a book of the request.
        model: Identity of the model whose table was loaded; None where no stage needed it.
        requests: Requests sent to the embedder.
        rate_limited: Refusals among them.
        retries: Requests that were sent again.
        tokens: Tokens that the server counted (or our estimate).
        cost: What they cost by ``ERA_EMBED_PRICE``; None where no price is set.
        limit: Requests that the controller allowed in flight at the end; None where nothing was sent.
        held_seconds: How long each part of the controller held requests back, by its name; ``nothing``: it was the
            texts, or the writing of vectors, that was waited for.
        seconds: Wall time.
        stage_seconds: Busy time by what was done: ``read``, ``chunk_files``, ``embed`` (all good requests'
            latencies), ``commit``, ``load``; they overlap, so that the sum may exceed ``seconds``.
        samples: Requests over time, thinned to a bounded number.
        changed_domains: Domains whose minister files or indexes are out of date, by this run or an earlier one.
        error: Why the run stopped before its end; None if it did not.
    """

    books: list[BookReport] = field(default_factory=list)
    model: str | None = None
    requests: int = 0
    rate_limited: int = 0
    retries: int = 0
    tokens: int = 0
    cost: float | None = None
    limit: float | None = None
    held_seconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    changed_domains: set[str] = field(default_factory=set)
    error: EraError | None = None

    def total(self, name: str) -> int:
        """Sum one counter of the book reports, such as ``entries``."""
        return sum(int(getattr(book, name)) for book in self.books)

    def summary(self) -> dict[str, Any]:
        """The totals that ``era ingest --json`` prints, by their contract names."""
        present = [book for book in self.books if book.status is not BookStatus.REMOVED]
        names = (
            "chapters",
            "entries",
            "passages",
            "texts_embedded",
            "texts_reused",
        )
        return {
            "books": len(present),
            **{name: self.total(name) for name in names},
            "requests": self.requests,
            "rate_limited": self.rate_limited,
            "quarantined": self.total("quarantined"),
            "rows_written": self.total("rows_written"),
            "rows_deleted": self.total("rows_deleted"),
            "seconds": round(self.seconds, 3),
            "stage_seconds": {name: round(value, 3) for name, value in self.stage_seconds.items()},
            "books_by_status": {
                status.value: count
                for status in BookStatus
                if (count := sum(book.status is status for book in self.books))
            },
            "model": self.model,
            "tokens": self.tokens,
            "cost": self.cost,
            "limit": None if self.limit is None else round(self.limit, 1),
            "held_seconds": {name: round(value, 1) for name, value in self.held_seconds.items()},
            "error": None if self.error is None else self.error.message,
        }
