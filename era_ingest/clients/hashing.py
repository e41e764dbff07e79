"""Backend ``hashing``: vectors without a model, for tests and dry runs.

Features of a text are its words (lower case, stop words out) and the character 4-grams of each word between
blanks. Each feature is hashed by blake2b to a bucket and a sign; a bucket holds the sum of
``sign * sqrt(count)`` over its features, and the whole is brought to length 1. Texts that share words are
near each other; meaning beyond that is not seen. The same text gives the same bits, whatever its neighbours.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from era_ingest.clients.backend import Reply
from era_ingest.clients.vectors import MIN_NORM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DEFAULT_DIMENSIONS = 768
_GRAM = 4
_HASH_BYTES = 8
_MAX_WORDS = 50_000
"""Words whose features are remembered (about 300 bytes each); then the memory starts anew."""
_MAX_REMEMBERED_CHARS = 32
_WORD = re.compile(r"\w+")
_STOP_TEXT = (
    "a about above after again all also am an and any are as at be because been before being below "
    "between both but by can could did do does doing down during each few for from further had has have "
    "having he her here hers him his how i if in into is it its itself just me more most my no nor not "
    "now of off on once only or other our out over own same she should so some such than that the their "
    "theirs them then there these they this those through to too under until up very was we were what "
    "when where which while who whom why will with would you your"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())


class HashingEmbedder:
    """Hashes words and character 4-grams into signed buckets. Implements ``Embedder``.

    Args:
        dimensions: Buckets, >= 1.
        batch_texts: Texts a request, at most.
    """

    backend: ClassVar[str] = "hashing"

    def __init__(self, dimensions: int = DEFAULT_DIMENSIONS, *, batch_texts: int = 256) -> None:
        self.name = f"hashing/{dimensions}"
        self.dimensions: int | None = dimensions
        self.max_batch_texts = batch_texts
        self.max_batch_tokens = float("inf")
        self.max_batch_bytes: float = 4 << 20
        self._buckets = dimensions
        self._words: dict[str, bytes] = {}

    async def embed(self, texts: Sequence[str]) -> Reply:
        """Return the vectors of the texts, computed in a thread; never fails."""
        return Reply(await asyncio.to_thread(self.compute, texts))

    async def aclose(self) -> None:
        """Do nothing."""

    def compute(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 of shape (texts, dimensions), rows of length 1."""
        if not texts:
            return np.empty((0, self._buckets), np.float32)
        features = [self._features(text) for text in texts]
        counts = np.fromiter((len(raw) // _HASH_BYTES for raw in features), np.int64, len(features))
        rows = np.repeat(np.arange(len(texts), dtype=np.int64), counts)
        vectors = self._fold(np.frombuffer(b"".join(features), "<u8"), rows, len(texts))
        squares = np.einsum("nd,nd->n", vectors, vectors)
        for row in np.flatnonzero(squares < MIN_NORM).tolist():
            # Nothing but blanks, or features that cancel: the text as a whole is the only feature.
            vectors[row] = 0.0
            vectors[row, int.from_bytes(_hash(texts[row]), "little") % self._buckets] = 1.0
            squares[row] = 1.0
        unit: NDArray[np.float32] = (vectors / np.sqrt(squares)[:, None]).astype(np.float32)
        return unit

    def _fold(self, hashes: NDArray[np.uint64], rows: NDArray[np.int64], texts: int) -> NDArray[np.float64]:
        """Return float64 (texts, dimensions): signed square roots of each feature's count, by bucket."""
        order = np.lexsort((hashes, rows))
        hashes, rows = hashes[order], rows[order]
        starts = np.empty(len(order), np.bool_)
        starts[:1] = True
        np.logical_or(hashes[1:] != hashes[:-1], rows[1:] != rows[:-1], out=starts[1:])
        first = np.flatnonzero(starts)
        count = np.diff(first, append=len(order))
        chosen = hashes[first]
        bucket = ((chosen >> np.uint64(1)) % np.uint64(self._buckets)).astype(np.int64)
        sign = 1.0 - 2.0 * (chosen & np.uint64(1)).astype(np.float64)
        flat = np.bincount(
            rows[first] * self._buckets + bucket,
            weights=sign * np.sqrt(count),
            minlength=texts * self._buckets,
        )
        return flat.astype(np.float64, copy=False).reshape(texts, self._buckets)

    def _features(self, text: str) -> bytes:
        """Return the hashes of a text's features, 8 bytes each, repeats included; at least one."""
        folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
        words = _WORD.findall(folded)
        kept = [word for word in words if word not in _STOP_WORDS] or words or [folded]
        known = self._words
        try:
            return b"".join([known[word] for word in kept])
        except KeyError:
            return b"".join([known.get(word) or self._remember(word) for word in kept])

    def _remember(self, word: str) -> bytes:
        features = _word_features(word)
        if len(word) <= _MAX_REMEMBERED_CHARS:
            if len(self._words) >= _MAX_WORDS:
                self._words.clear()
            self._words[word] = features
        return features


def _word_features(word: str) -> bytes:
    """Return the hashes of a word and of its 4-grams between blanks."""
    padded = f" {word} "
    grams = [padded[start : start + _GRAM] for start in range(max(1, len(padded) - _GRAM + 1))]
    return b"".join(map(_hash, [word, *grams]))


def _hash(feature: str) -> bytes:
    return blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
