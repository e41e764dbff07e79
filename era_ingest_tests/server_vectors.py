"""What the test server answers with: deterministic vectors, and replies put together from them."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from era_ingest.clients.hashing import HashingEmbedder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest_tests.servers import ServerOptions

POOL_VECTORS = 2048


class Vectors:
    """Deterministic vectors of texts, ready to send.

    Args:
        options: The server's.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._hashers: dict[int, HashingEmbedder] = {}
        self._pools: dict[tuple[int, bool], list[bytes]] = {}

    def rows(self, texts: Sequence[str], dimensions: int) -> list[list[float]]:
        """Return vectors as numbers."""
        return [row.tolist() for row in self._hashed(texts, dimensions)]

    def rendered(self, texts: Sequence[str], dimensions: int) -> list[bytes]:
        """Return vectors as JSON lists of numbers."""
        if self._options.vectors != "pool":
            return [orjson.dumps(row) for row in self.rows(texts, dimensions)]
        return self._pooled(texts, dimensions, numbers=True)

    def encoded(self, texts: Sequence[str], dimensions: int) -> list[bytes]:
        """Return vectors as base64 of little-endian float32."""
        if self._options.vectors != "pool":
            return [base64.b64encode(row.tobytes()) for row in self._hashed(texts, dimensions)]
        return self._pooled(texts, dimensions, numbers=False)

    def _pooled(self, texts: Sequence[str], dimensions: int, *, numbers: bool) -> list[bytes]:
        pool = self._pools.get((dimensions, numbers))
        if pool is None:
            table = np.random.default_rng(7).standard_normal((POOL_VECTORS, dimensions), dtype=np.float32)
            table /= np.linalg.norm(table, axis=1)[:, None]
            pool = [
                orjson.dumps(row.tolist()) if numbers else base64.b64encode(row.tobytes()) for row in table
            ]
            self._pools[dimensions, numbers] = pool
        return [pool[zlib.crc32(text.encode()) % POOL_VECTORS] for text in texts]

    def _hashed(self, texts: Sequence[str], dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        hasher = self._hashers.setdefault(dimensions, HashingEmbedder(dimensions))
        return hasher.compute(texts) * np.float32(1.0 if self._options.unit else 3.0)


def openai_base64(encoded: Sequence[bytes], model: str, tokens: int) -> bytes:
    """Return a reply put together by hand: five times as fast as through a JSON library."""
    items = b",".join(
        b'{"object":"embedding","index":%d,"embedding":"%b"}' % (place, raw)
        for place, raw in enumerate(encoded)
    )
    tail = orjson.dumps({"prompt_tokens": tokens, "total_tokens": tokens})
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (items, orjson.dumps(model), tail)


def ollama_numbers(rendered: Sequence[bytes], model: str, tokens: int) -> bytes:
    """Return a reply put together by hand, likewise."""
    return b'{"model":%b,"embeddings":[%b],"prompt_eval_count":%d}' % (
        orjson.dumps(model),
        b",".join(rendered),
        tokens,
    )
