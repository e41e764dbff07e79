"""Made-up rows for measuring searches: clustered vectors, and texts whose words go with them; the same for a seed.

Vectors of real texts are neither evenly spread nor of full rank. So a row is a point near the centre of one of
``TOPICS`` topics in ``LATENT`` dimensions of falling weight, turned into the model's dimensions with a little noise
and of unit length. Its text is drawn from its topic's words, and from a vocabulary in which the word of rank r occurs
1/r as often as the first (Zipf). Nothing of it is language: what is measured is speed, and how many of the exact
neighbours an index finds.
"""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pgvector import Vector
from psycopg import sql
from psycopg.types.json import Jsonb

from era_ingest.core.ids import content_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from psycopg import AsyncConnection

    from era_ingest.store.models import Model

TOPICS = 400
LATENT = 32
DOMAINS = {"large": range(120), "medium": range(120, 140), "small": range(140, 142)}
"""Topics of three domains: 30, 5 and 0.5 % of the rows. The rest is of others."""
_OTHERS = 20
_SPREAD = 0.7
_NOISE = 0.02
_BOOK_ROWS = 1_000
_BLOCK_ROWS = 5_000
_TOPIC_WORDS = 40
_WORDS = (8, 24)
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "ki", "lo", "mu", "ne", "po", "ra", "si", "to", "vu", "ze")
_CATEGORIES = ("principle",) * 4 + ("rule",) * 3 + ("claim",) * 2 + ("warning",)
_COLUMNS = (
    "id, digest, weight, chapter, start_char, end_char, content_hash, category, book, domains, chapter_title, "
    "text, embedding"
)
_TYPES = (
    "uuid uuid float8 int4 int4 int4 bytea text text text[] text text vector".split()  # noqa: SIM905 - as many
)


class Question(NamedTuple):
    """A query: its vector, float32[d] of unit length, and some words of its topic."""

    vector: NDArray[np.float32]
    text: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """So many rows of vectors of one size.

    Attributes:
        rows: How many, >= 1.
        dimensions: Size of the vectors, >= ``LATENT``.
    """

    rows: int
    dimensions: int

    async def load(self, conn: AsyncConnection[Any], model: Model) -> None:
        """Copy the rows into a model's table, and say where their books come from."""
        columns = sql.SQL(_COLUMNS)
        statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(model.table, columns)
        async with conn.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(_TYPES)
            for row in self._rows():
                await copy.write_row(row)
        await conn.execute(
            """
            insert into era.doctrine_sources (
                book, slug, root, format, files, content_fingerprint, processing, modified_at,
                chapters, entries, passages, defects, texts_embedded, texts_reused, run_id)
            select 'book ' || n, 'book-' || n, '/bench', 'json', %s, '', '', now(), 1, 1, 0, 0, 1, 0, 'bench'
            from generate_series(0, %s) as s (n)
            """,
            (_files(), (self.rows - 1) // _BOOK_ROWS),
        )

    def questions(self, count: int, topics: Sequence[int] = range(TOPICS)) -> list[Question]:
        """Return so many queries about some topics, none of them a row."""
        rng = np.random.default_rng(self.rows + 1)
        chosen = rng.choice(np.asarray(topics), count)
        words = _words()
        return [
            Question(vector, " ".join(words.draw(rng, topic, 3)))
            for topic, vector in zip(chosen.tolist(), self._vectors(rng, chosen), strict=True)
        ]

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        rng = np.random.default_rng(1)
        words = _words()
        for begin in range(0, self.rows, _BLOCK_ROWS):
            topics = rng.integers(0, TOPICS, min(_BLOCK_ROWS, self.rows - begin))
            vectors = self._vectors(rng, topics)
            for place, topic, vector in zip(itertools.count(begin), topics.tolist(), vectors, strict=False):
                text = " ".join([*words.draw(rng, topic, int(rng.integers(*_WORDS))), f"no{place}"])
                name = uuid.UUID(int=place)
                hashed = content_hash(text)
                category, book = _CATEGORIES[place % 10], f"book {place // _BOOK_ROWS}"
                yield (
                    *(name, name, 1.0, 1, None, None, hashed, category, book),
                    *([_domain_of(topic)], None, text, Vector(vector)),
                )

    def _vectors(self, rng: np.random.Generator, topics: NDArray[np.intp]) -> NDArray[np.float32]:
        fixed = np.random.default_rng(0)
        weights = np.arange(1, LATENT + 1) ** -0.5
        centres = fixed.standard_normal((TOPICS, LATENT)) * weights
        basis = np.linalg.qr(fixed.standard_normal((self.dimensions, LATENT)))[0].T
        latent = centres[topics] + _SPREAD * weights * rng.standard_normal((len(topics), LATENT))
        vectors = latent @ basis + _NOISE * rng.standard_normal((len(topics), self.dimensions))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors, dtype=np.float32)


class _Words:
    """Draws words: half of them of a topic."""

    def __init__(self) -> None:
        self._all = ["".join(parts) for parts in itertools.product(_SYLLABLES, repeat=4)]
        rng = np.random.default_rng(2)
        rng.shuffle(self._all)
        ranks = np.cumsum(1 / np.arange(1, len(self._all) + 1))
        self._shares = ranks / ranks[-1]
        self._of_topics = rng.integers(0, len(self._all), (TOPICS, _TOPIC_WORDS))

    def draw(self, rng: np.random.Generator, topic: int, count: int) -> list[str]:
        common = np.searchsorted(self._shares, rng.random(count // 2))
        own = self._of_topics[topic, rng.integers(0, _TOPIC_WORDS, count - count // 2)]
        return [self._all[place] for place in (*own.tolist(), *common.tolist())]


@cache
def _words() -> _Words:
    return _Words()


def _domain_of(topic: int) -> str:
    return next((name for name, topics in DOMAINS.items() if topic in topics), f"other_{topic % _OTHERS}")


def _files() -> Jsonb:
    path = "/bench/book.json"
    return Jsonb([{"path": path, "role": "book", "size": 1, "mtime_ns": 1, "inode": 1, "sha256": "0" * 64}])
