"""Helpers of the client's tests: items, a writer that takes notes, clients in front of a test server."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from typing import TYPE_CHECKING

import numpy as np
from pydantic import SecretStr

from era_ingest.clients.driver import ClientOptions, EmbeddingClient, TextItem
from era_ingest.clients.http_backend import Endpoint
from era_ingest.clients.ollama import OllamaEmbedder
from era_ingest.clients.openai import OpenAIEmbedder
from era_ingest.core.limiter.fixed import FixedLimiter
from era_ingest.core.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from era_ingest.clients.backend import Embedder
    from era_ingest.clients.http_backend import HttpEmbedder
    from era_ingest.clients.stats import EmbeddingStats
    from era_ingest.core.limiter import Limiter
    from era_ingest.errors import EraError
    from era_ingest_tests.servers import EmbeddingServer

BACKENDS: dict[str, type[HttpEmbedder]] = {"openai": OpenAIEmbedder, "ollama": OllamaEmbedder}
QUICK = ClientOptions(retry_budget_s=20.0, linger_s=0.002, backoff=Backoff(base_s=0.001, cap_s=0.004))
KEY = "sk-very-secret-0123456789"


def items(count: int, *, prefix: str = "text") -> list[TextItem]:
    """Return distinct texts."""
    return [item(f"{prefix} number {number}") for number in range(count)]


def item(text: str) -> TextItem:
    """Return a text with its hash."""
    return TextItem(hashlib.sha256(text.encode()).digest(), text)


async def stream(texts: Iterable[TextItem]) -> AsyncIterator[TextItem]:
    """Yield items."""
    for one in texts:
        yield one


class Notes:
    """A writer that notes what it is given, and that it is never called twice at once."""

    def __init__(self) -> None:
        self.vectors: dict[bytes, NDArray[np.float32]] = {}
        self.refused: dict[str, EraError] = {}
        self.commits = 0
        self._busy = False

    async def commit(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Note vectors; a second vector of a text is a failure."""
        assert not self._busy
        self._busy = True
        await asyncio.sleep(0)
        assert len(hashes) == len(vectors)
        assert not self.vectors.keys() & set(hashes)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        self.vectors.update(zip(hashes, vectors, strict=True))
        self.commits += 1
        self._busy = False

    async def refuse(self, refused: TextItem, error: EraError) -> None:
        """Note a text that was put aside."""
        assert not self._busy
        assert refused.text not in self.refused
        self.refused[refused.text] = error

    def missing(self, texts: Iterable[TextItem]) -> list[str]:
        """Return the texts that have neither a vector nor a reason."""
        return [
            one.text for one in texts if one.content_hash not in self.vectors and one.text not in self.refused
        ]


async def until(true: Callable[[], bool]) -> None:
    """Poll, for a minute at most."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def embedder(
    server: EmbeddingServer, backend: str = "openai", *, batch_texts: int = 64, timeout_s: float = 5.0
) -> HttpEmbedder:
    """Return a backend in front of a server, of a model whose size is known."""
    made = BACKENDS[backend](
        Endpoint(
            server.url, "test-model", api_key=SecretStr(KEY), batch_texts=batch_texts, timeout_s=timeout_s
        )
    )
    made.dimensions = server.options.dimensions
    return made


def client(
    backend: Embedder, *, limiter: Limiter | None = None, options: ClientOptions = QUICK
) -> EmbeddingClient:
    """Return a client with short delays and a seeded jitter."""
    limiter = limiter or FixedLimiter(8, pause_s=0.001, max_pause_s=0.01)
    return EmbeddingClient(backend, limiter, options=options, rng=random.Random(3))


async def embed(
    backend: Embedder,
    texts: Sequence[TextItem],
    *,
    options: ClientOptions = QUICK,
    notes: Notes | None = None,
) -> tuple[Notes, EmbeddingStats]:
    """Embed all texts through a fresh client, and close the backend."""
    notes = notes or Notes()
    try:
        stats = await client(backend, options=options).embed_all(
            stream(texts), commit=notes.commit, refuse=notes.refuse
        )
    finally:
        await backend.aclose()
    return notes, stats
