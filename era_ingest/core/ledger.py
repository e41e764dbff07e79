"""The ledger of one run: which texts are on their way, and which books wait for them.

Each distinct text is embedded once over all books of a run. A book is ready when nothing that it holds is
still on its way. The memory is that of the texts in flight: a settled text is forgotten, since the embedding
store knows it from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@dataclass(slots=True)
class TextCounts:
    """How the distinct texts of one book came by their vectors."""

    embedded: int = 0
    reused: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """What a book still needs.

    Attributes:
        to_embed: Hashes that nobody else is fetching, in the book's order.
        ready: True if the book waits for nothing.
    """

    to_embed: tuple[bytes, ...]
    ready: bool


@dataclass(slots=True)
class _Book:
    waiting_for: set[bytes] = field(default_factory=set)
    ordered: set[bytes] = field(default_factory=set)
    counts: TextCounts = field(default_factory=TextCounts)


class TextLedger:
    """Keeps count of texts on their way.

    The embedding store is asked which texts it has (``begin_lookup``, then the query, then ``admit``). A text
    that settles while the query runs is in neither the answer nor in flight any more; the ledger remembers
    such texts from ``begin_lookup`` on, so that none is paid for twice.
    """

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}
        self._waiters: dict[bytes, list[str]] = {}
        self._settled_meanwhile: dict[bytes, bool] = {}

    @property
    def in_flight(self) -> int:
        """Distinct texts on their way."""
        return len(self._waiters)

    def begin_lookup(self) -> None:
        """Note that the store is about to be asked."""
        self._settled_meanwhile = {}

    def admit(
        self, slug: str, hashes: Sequence[bytes], *, known: Collection[bytes], refused: Collection[bytes]
    ) -> Admission:
        """Enter a book.

        Args:
            slug: The book's slug; not in the ledger yet.
            hashes: Content hashes of its chunks, in order, repeats allowed.
            known: Those that the store had when it was asked.
            refused: Those that the server is known to refuse.

        Returns:
            What to embed for it now.
        """
        book = self._books[slug] = _Book()
        to_embed: list[bytes] = []
        for content_hash in dict.fromkeys(hashes):
            if content_hash in known:
                book.counts.reused += 1
            elif content_hash in refused:
                book.counts.refused += 1
            elif content_hash in self._settled_meanwhile:
                if self._settled_meanwhile[content_hash]:
                    book.counts.reused += 1
                else:
                    book.counts.refused += 1
            else:
                book.waiting_for.add(content_hash)
                if content_hash in self._waiters:
                    self._waiters[content_hash].append(slug)
                else:
                    self._waiters[content_hash] = [slug]
                    book.ordered.add(content_hash)
                    to_embed.append(content_hash)
        return Admission(tuple(to_embed), ready=not book.waiting_for)

    def settle(self, content_hash: bytes, *, embedded: bool) -> list[str]:
        """Note that a text is committed (or refused for good); return the slugs that became ready by it."""
        self._settled_meanwhile[content_hash] = embedded
        ready = []
        for slug in self._waiters.pop(content_hash, ()):
            book = self._books[slug]
            book.waiting_for.discard(content_hash)
            if not embedded:
                book.counts.refused += 1
            elif content_hash in book.ordered:
                book.counts.embedded += 1
            else:
                book.counts.reused += 1
            if not book.waiting_for:
                ready.append(slug)
        return ready

    def close(self, slug: str) -> TextCounts:
        """Take a ready book out of the ledger; return how its texts came by their vectors."""
        return self._books.pop(slug).counts
