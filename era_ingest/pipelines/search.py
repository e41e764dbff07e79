"""Search: the query is embedded by the model that the active table was built with."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from era_ingest.clients.factory import build_embedder_for
from era_ingest.core.model import Category
from era_ingest.core.names import DomainNames
from era_ingest.core.text import clean_line
from era_ingest.errors import ConfigurationError, PermanentError
from era_ingest.pipelines.services import open_services
from era_ingest.store import search as store_search
from era_ingest.store.sources import Provenance, provenance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from numpy.typing import NDArray
    from psycopg import AsyncConnection

    from era_ingest.clients.backend import Embedder
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings
    from era_ingest.store.models import Model
    from era_ingest.store.search import Hit, Searched

MAX_RESULTS = 1000
MAX_CACHED_QUERIES = 1_000
"""Queries whose vectors a searcher keeps: 3 kB each at 768 dimensions."""
LOOKED_UP_S = 1.0
"""How long a searcher takes the active model and its indexes for known, seconds."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for.

    Attributes:
        text: The query in words; empty if ``vector`` is given.
        vector: The query as a vector of the active model, any length but zero; None: ``text`` is embedded.
        domain: Only this domain, in any spelling that folds to it; None: all.
        category: ``principle``, ``rule``, ``claim``, ``warning`` or ``passage``; None: all.
        book: Only this book, by its name; None: all.
        k: Results, 1 to 1,000.
        min_score: Least cosine similarity, -1 to 1; None: no bound.
        doctrine_only: Leave out passages.
        hybrid: Rank what holds the words of ``text`` too, and fuse that with the ranking by meaning.
    """

    text: str = ""
    vector: Sequence[float] | None = None
    domain: str | None = None
    category: str | None = None
    book: str | None = None
    k: int = 10
    min_score: float | None = None
    doctrine_only: bool = False
    hybrid: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        hits: The texts, best first.
        sources: Where their books come from, by the books' names; a book that was removed meanwhile is missing.
    """

    hits: list[Hit]
    sources: dict[str, Provenance]


class Searcher:
    """Answers searches over an open database; keeps the model that embeds the queries.

    Args:
        services: Open services.
        timeout_s: How long a statement in the database may take, seconds; None: any time.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        services: Services,
        *,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._timeout_s = timeout_s
        self._clock = clock
        self._searched: Searched | None = None
        self._look_again_at = float("-inf")
        self._embedder: Embedder | None = None
        self._model: Model | None = None
        self._cached: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()

    async def search(self, request: SearchRequest) -> list[Hit]:
        """Return the nearest distinct texts, best first.

        Raises:
            PermanentError: The request makes no sense: no text, an unknown category, a vector of wrong size.
            ConfigurationError: Nothing was ever loaded, or the model of the table is not to be had.
            TransientError: The database or the embedder is away.
        """
        return (await self.find(request, with_sources=False)).hits

    async def find(self, request: SearchRequest, *, with_sources: bool = True) -> Found:
        """Do as ``search``; say too where the texts' books come from."""
        if not 1 <= request.k <= MAX_RESULTS:
            raise PermanentError(f"k is {request.k}: ask for 1 to {MAX_RESULTS:,} results.")
        if request.hybrid and not request.text:
            raise PermanentError("A hybrid search needs the query in words: give text.")
        category = _parse_category(request.category)
        names = DomainNames.from_aliases(self._services.settings.domain_aliases)
        domain = None if request.domain is None else names.normalise(request.domain)
        searched = await self._look_up()
        vector = await self._vector(request, searched.model)
        async with self._services.database.connection() as conn:
            hits = await store_search.search(
                conn,
                vector,
                words=clean_line(request.text).text if request.hybrid else "",
                domain=domain,
                category=category,
                book=request.book,
                k=request.k,
                min_score=request.min_score,
                doctrine_only=request.doctrine_only,
                searched=searched,
                timeout_s=self._timeout_s,
            )
            return Found(hits, await _sources(conn, hits) if with_sources else {})

    async def sources(self, hits: Sequence[Hit]) -> dict[str, Provenance]:
        """Return where the books of texts come from, by the books' names."""
        async with self._services.database.connection() as conn:
            return await _sources(conn, hits)

    async def aclose(self) -> None:
        """Let go of the model."""
        if self._embedder is not None:
            await self._embedder.aclose()
            self._embedder = None

    async def _look_up(self) -> Searched:
        """Return what is searched; asked of the database once a second, at most."""
        if self._searched is None or self._clock() >= self._look_again_at:
            async with self._services.database.connection() as conn:
                self._searched = await store_search.look_up(conn)
            self._look_again_at = self._clock() + LOOKED_UP_S
        if self._searched is None:
            raise ConfigurationError("Nothing has been loaded yet: run `era ingest PATH` first.")
        return self._searched

    async def _vector(self, request: SearchRequest, model: Model) -> NDArray[np.float32]:
        if request.vector is not None:
            return _parse_vector(request.vector, model)
        text = clean_line(request.text).text
        if not text:
            raise PermanentError("The query is empty: say in a few words what to look for.")
        key = (model.name, text)
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        if self._embedder is None or self._model != model:
            await self.aclose()
            self._embedder, self._model = build_embedder_for(self._services.settings, model.name), model
            self._embedder.dimensions = model.dimensions
        reply = await self._embedder.embed([text])
        vector = self._cached[key] = np.asarray(reply.vectors[0], dtype=np.float32)
        if len(self._cached) > MAX_CACHED_QUERIES:
            self._cached.popitem(last=False)
        return vector


async def _sources(conn: AsyncConnection[Any], hits: Sequence[Hit]) -> dict[str, Provenance]:
    return await provenance(conn, {hit.book for hit in hits}) if hits else {}


def _parse_category(raw: str | None) -> Category | None:
    if raw is None:
        return None
    try:
        return Category(raw.strip().lower().removesuffix("s"))
    except ValueError as error:
        known = ", ".join(category.value for category in Category)
        raise PermanentError(f"There is no category {raw[:40]!r}: it is one of {known}.") from error


def _parse_vector(raw: Sequence[float], model: Model) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused as that
        vector = np.asarray(raw, dtype=np.float32)
    if vector.shape != (model.dimensions,) or not np.isfinite(vector).all() or not vector.any():
        raise PermanentError(
            f"The query vector must hold {model.dimensions} finite numbers, not all zero ({model.name})."
        )
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def show_hit(hit: Hit) -> dict[str, Any]:
    """Return a hit for JSON."""
    shown = asdict(hit)
    shown["id"] = str(hit.id)
    shown["content_hash"] = hit.content_hash.hex()
    shown["score"] = round(hit.score, 6)
    return shown


@asynccontextmanager
async def open_searcher(settings: Settings) -> AsyncIterator[Searcher]:
    """Yield a searcher; close what it opened."""
    async with open_services(settings) as services:
        searcher = Searcher(services)
        try:
            yield searcher
        finally:
            await searcher.aclose()


async def search_once(settings: Settings, request: SearchRequest) -> list[Hit]:
    """Open, search once, close."""
    async with open_searcher(settings) as searcher:
        return await searcher.search(request)
