"""Search from Python.

    from era_ingest.search import semantic_similarity_lookup, enrich_context_with_doctrine

    hits = semantic_similarity_lookup("how to decide when little is known", domain="strategy", k=5)
    context = enrich_context_with_doctrine("Shall we wait or act?", domain="strategy", max_tokens=800)

Each has a twin for asyncio with ``_async`` at its end. The first call opens the database and the model (about
a second); they stay open until the process ends or ``close()`` is called, so that later calls take
milliseconds. Settings come from the environment (``ERA_*``).
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from era_ingest.core.tokens import estimate_tokens
from era_ingest.pipelines.search import Searcher, SearchRequest, open_searcher
from era_ingest.settings import load_settings
from era_ingest.store.search import Hit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

__all__ = [
    "EnrichedContext",
    "Hit",
    "close",
    "enrich_context_with_doctrine",
    "enrich_context_with_doctrine_async",
    "semantic_similarity_lookup",
    "semantic_similarity_lookup_async",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EnrichedContext:
    """A question together with the doctrine that bears on it.

    Attributes:
        query: The question as it was asked.
        hits: The doctrine that fits the budget, best first.
        text: The doctrine as Markdown lines for a prompt, each with its source; empty if nothing was found.
        tokens: Estimated tokens of ``text``.
    """

    query: str
    hits: tuple[Hit, ...]
    text: str
    tokens: float


def semantic_similarity_lookup(
    query: str | Sequence[float],
    *,
    domain: str | None = None,
    category: str | None = None,
    book: str | None = None,
    k: int = 10,
    min_score: float | None = None,
    hybrid: bool = False,
) -> list[Hit]:
    """Return the entries and passages nearest in meaning, best first, each text once.

    Args:
        query: Words, or a vector of the active model.
        domain: Only this domain, in any spelling that folds to it.
        category: ``principle``, ``rule``, ``claim``, ``warning`` or ``passage``.
        book: Only this book, by its name.
        k: Results, 1 to 1,000.
        min_score: Least cosine similarity, -1 to 1.
        hybrid: Rank what holds the query's words too (all of them; a quoted phrase, ``or`` and ``-`` as in web
            searches), and fuse the two rankings.

    Raises:
        PermanentError: The request makes no sense.
        ConfigurationError: Nothing was loaded yet, or a setting, model or database is not fit.
        TransientError: The database or the embedder is away; later may help.
    """
    request = _request(query, domain, category, book, k, min_score, hybrid=hybrid)
    return _HOST.submit(lambda searcher: searcher.search(request)).result()


async def semantic_similarity_lookup_async(
    query: str | Sequence[float],
    *,
    domain: str | None = None,
    category: str | None = None,
    book: str | None = None,
    k: int = 10,
    min_score: float | None = None,
    hybrid: bool = False,
) -> list[Hit]:
    """Do as ``semantic_similarity_lookup``, without blocking the event loop."""
    request = _request(query, domain, category, book, k, min_score, hybrid=hybrid)
    return await asyncio.wrap_future(_HOST.submit(lambda searcher: searcher.search(request)))


def enrich_context_with_doctrine(
    query: str,
    *,
    domain: str | None = None,
    k: int = 8,
    max_tokens: int = 1000,
    min_score: float | None = 0.2,
) -> EnrichedContext:
    """Return the doctrine (no passages) that bears on a question, within a budget of tokens.

    Args:
        query: The question, or the persona's present context, in words.
        domain: Only this domain.
        k: Entries, at most.
        max_tokens: Estimated tokens of the result's ``text``, at most; whole entries are left out, not cut.
        min_score: Least cosine similarity.

    Raises:
        As ``semantic_similarity_lookup``.
    """
    return _HOST.submit(lambda searcher: enrich(searcher, query, domain, k, max_tokens, min_score)).result()


async def enrich_context_with_doctrine_async(
    query: str,
    *,
    domain: str | None = None,
    k: int = 8,
    max_tokens: int = 1000,
    min_score: float | None = 0.2,
) -> EnrichedContext:
    """Do as ``enrich_context_with_doctrine``, without blocking the event loop."""
    future = _HOST.submit(lambda searcher: enrich(searcher, query, domain, k, max_tokens, min_score))
    return await asyncio.wrap_future(future)


def close() -> None:
    """Close the database and the model; the next call opens them again."""
    _HOST.close()


def _request(
    query: str | Sequence[float],
    domain: str | None,
    category: str | None,
    book: str | None,
    k: int,
    min_score: float | None,
    *,
    hybrid: bool,
) -> SearchRequest:
    words, vector = (query, None) if isinstance(query, str) else ("", query)
    return SearchRequest(words, vector, domain, category, book, k, min_score, hybrid=hybrid)


async def enrich(
    searcher: Searcher, query: str, domain: str | None, k: int, max_tokens: int, min_score: float | None
) -> EnrichedContext:
    """Do as ``enrich_context_with_doctrine`` with a searcher that is open already."""
    request = SearchRequest(text=query, domain=domain, k=k, min_score=min_score, doctrine_only=True)
    chosen: list[Hit] = []
    lines: list[str] = []
    tokens = 0.0
    for hit in await searcher.search(request):
        line = f"- [{hit.category}] {hit.text} ({hit.book}, chapter {hit.chapter})"
        cost = estimate_tokens(line)
        if tokens + cost <= max_tokens:
            chosen.append(hit)
            lines.append(line)
            tokens += cost
    return EnrichedContext(query, tuple(chosen), "\n".join(lines), tokens)


class _Host:
    """Keeps one searcher open on an event loop in a thread of its own, for callers of any kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._searcher: Searcher | None = None
        self._stop: asyncio.Event | None = None

    def submit(self, work: Callable[[Searcher], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run work with the searcher on the host's loop."""
        with self._lock:
            if self._loop is None:
                self._start()
            assert self._loop is not None
            assert self._searcher is not None
            return asyncio.run_coroutine_threadsafe(work(self._searcher), self._loop)

    def close(self) -> None:
        """End the loop and everything open on it."""
        with self._lock:
            loop, thread, stop = self._loop, self._thread, self._stop
            self._loop = self._thread = self._searcher = self._stop = None
        if loop is not None and thread is not None and stop is not None:
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    def _start(self) -> None:
        opened: Future[None] = Future()
        thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(opened)), name="era_ingest.search", daemon=True
        )
        thread.start()
        opened.result()
        self._thread = thread

    async def _serve(self, opened: Future[None]) -> None:
        try:
            async with open_searcher(load_settings()) as searcher:
                stop = asyncio.Event()
                self._loop, self._searcher, self._stop = asyncio.get_running_loop(), searcher, stop
                opened.set_result(None)
                await stop.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)


_HOST = _Host()
atexit.register(_HOST.close)
