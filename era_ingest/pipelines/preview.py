"""The plan of an ingestion: what would be embedded, in how many requests, at what price, how long."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from era_ingest.clients.factory import build_embedder
from era_ingest.core.batching import BatchLimits, BatchPacker, Sized
from era_ingest.core.tokens import estimate_tokens
from era_ingest.errors import EraError
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.planning import plan_books, processing_of
from era_ingest.pipelines.reading import ReadOptions, read_books
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest.store import embeddings, models, refused_texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from era_ingest.clients.backend import Embedder
    from era_ingest.pipelines.chunked import ChunkedBook
    from era_ingest.pipelines.outcome import IngestOptions
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings
    from era_ingest.store.models import Model


@dataclass(slots=True)
class Preview:
    """What an ingestion would do; nothing of it was done.

    Attributes:
        model: The model's identity.
        books: Books at the paths.
        unchanged: Books of them that would cost nothing.
        removed: Loaded books that would be removed.
        held_back: Removals that would not be believed, and why.
        refused: Books that cannot be read.
        entries: Doctrine entries of the books to be worked on.
        passages: Their passages.
        texts: Distinct texts to embed.
        texts_reused: Distinct texts of them whose vectors are there.
        requests: Requests that takes, about.
        tokens: Tokens, estimated.
        cost: What they cost by ``ERA_EMBED_PRICE``; None where no price is set.
        seconds: How long embedding takes at the speed of the model's last run; None before one.
    """

    model: str
    books: int = 0
    unchanged: int = 0
    removed: int = 0
    refused: int = 0
    entries: int = 0
    passages: int = 0
    texts: int = 0
    texts_reused: int = 0
    requests: int = 0
    tokens: int = 0
    cost: float | None = None
    seconds: float | None = None
    held_back: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        price = "" if self.cost is None else f", costing about {self.cost:,.2f}"
        time = "" if self.seconds is None else f", in about {self.seconds:,.0f} s (the last run's speed)"
        return [
            (
                f"{self.books:,} books: {self.unchanged:,} unchanged, {self.refused:,} cannot be read; "
                f"{self.removed:,} would be removed"
            ),
            (
                f"{self.entries:,} entries and {self.passages:,} passages to load, "
                f"{self.texts_reused:,} of their texts have a vector of {self.model} already"
            ),
            (
                f"{self.texts:,} texts to embed: about {self.requests:,} requests and {self.tokens:,} tokens"
                f"{price}{time}"
            ),
            *self.held_back,
        ]


async def preview_ingest(settings: Settings, paths: Sequence[Path], options: IngestOptions) -> Preview:
    """Return what ``era ingest`` of these paths would do. Reads files; asks no server; loads nothing.

    Raises:
        ConfigurationError: A path, a setting or the database is not fit for use.
    """
    embedder = build_embedder(settings)
    try:
        async with open_services(settings) as services:
            arrivals = await resolve_paths(services, paths, allow_removals=options.allow_removals)
            request = IngestRequest(
                arrivals.sources, arrivals.removed, force=options.force, retry_refused=options.retry_refused
            )
            plan = await plan_books(services, request, embedder.name)
            preview = Preview(embedder.name, books=len(arrivals.sources), removed=len(arrivals.removed))
            preview.unchanged = len(plan.unchanged)
            preview.held_back = arrivals.held_back
            counter = _Counter(services, embedder, plan.model, preview, retry_refused=options.retry_refused)
            reading = read_books(
                plan.work, ReadOptions.from_settings(settings, processing=processing_of(settings))
            )
            async with aclosing(reading) as books:
                async for _, outcome in books:
                    if isinstance(outcome, EraError):
                        preview.refused += 1
                    else:
                        await counter.add(outcome)
            await counter.close()
    finally:
        await embedder.aclose()
    if settings.embed_price:
        preview.cost = round(preview.tokens / 1e6 * settings.embed_price, 4)
    return preview


class _Counter:
    """Counts what books would need; remembers 32 bytes a text that is to be embedded."""

    def __init__(
        self,
        services: Services,
        embedder: Embedder,
        model: Model | None,
        preview: Preview,
        *,
        retry_refused: bool,
    ) -> None:
        self._services = services
        self._model = model
        self._preview = preview
        self._retry_refused = retry_refused
        self._seen: set[bytes] = set()
        self._packer: BatchPacker[None] = BatchPacker(
            BatchLimits(embedder.max_batch_texts, embedder.max_batch_bytes, embedder.max_batch_tokens)
        )
        self._tokens = 0.0

    async def add(self, book: ChunkedBook) -> None:
        """Count a book."""
        preview = self._preview
        preview.entries += book.record.entries
        preview.passages += book.record.passages
        known = await self._known(book)
        preview.texts_reused += len(known)
        new = [h for h in book.hashes if h not in known and h not in self._seen]
        self._seen.update(new)
        preview.texts += len(new)
        for text in book.texts_of(new):
            tokens = estimate_tokens(text)
            self._tokens += tokens
            preview.requests += len(self._packer.add(Sized(None, len(text.encode()), tokens)))

    async def close(self) -> None:
        """Finish the counts."""
        self._preview.requests += self._packer.flush() is not None
        self._preview.tokens = round(self._tokens)
        if self._model is not None:
            async with self._services.database.connection() as conn:
                speed = await models.last_speed(conn, self._model)
            self._preview.seconds = None if speed is None else round(self._preview.texts / speed, 1)

    async def _known(self, book: ChunkedBook) -> set[bytes]:
        if self._model is None:
            return set()
        async with self._services.database.connection() as conn:
            known = await embeddings.known_hashes(conn, self._model.id, book.hashes)
            if self._retry_refused:
                return known
            return known | await refused_texts.refused_hashes(conn, self._model.id, book.hashes)
