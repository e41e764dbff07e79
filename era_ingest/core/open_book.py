"""A book while it is read: chapter by chapter and entry by entry, so that none of it is held as objects at once."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.items import sum_cleaning
from era_ingest.core.model import Book, Chapter
from era_ingest.core.names import book_slug

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.core.defects import DefectLog
    from era_ingest.core.items import ItemReader
    from era_ingest.core.model import CleaningCounts, Defect, Entry


@dataclass(frozen=True, slots=True)
class OpenChapter:
    """A chapter whose entries come one by one, once.

    Attributes:
        index: See `core.model.Chapter`, as the rest.
        title: Cleaned title, or None.
        domains: Normalised domains.
        entries: Doctrine in source order; (category, text) is unique.
        text: The chapter's cleaned text.
    """

    index: int
    title: str | None
    domains: tuple[str, ...]
    entries: Iterator[Entry]
    text: str = ""

    def whole(self) -> Chapter:
        """Return it with all its entries."""
        return Chapter(self.index, self.title, self.domains, tuple(self.entries), self.text)


class OpenBook:
    """A book that is being read: iterate it once, and each chapter's entries before the next chapter.

    Args:
        name: The book's name.
        title: A title that the document gives itself, or None.
        chapters: In the order of the source, each index once.
        readers: Of its files.
        log: Of its defects.
    """

    def __init__(
        self,
        name: str,
        title: str | None,
        chapters: Iterator[OpenChapter],
        readers: tuple[ItemReader, ...],
        log: DefectLog,
    ) -> None:
        self.name = name
        self.slug = book_slug(name)
        self.title = title
        self._chapters = chapters
        self._readers = readers
        self._log = log

    def __iter__(self) -> Iterator[OpenChapter]:
        return self._chapters

    @property
    def defects(self) -> tuple[Defect, ...]:
        """What was refused so far: all of it once every entry was read."""
        return self._log.listing()

    @property
    def cleaning(self) -> CleaningCounts:
        """What cleaning changed so far."""
        return sum_cleaning(self._readers)

    def whole(self) -> Book:
        """Read the rest; return the book with its chapters in order of index."""
        chapters = sorted((chapter.whole() for chapter in self), key=lambda chapter: chapter.index)
        return Book(self.name, self.slug, self.title, tuple(chapters), self.defects, self.cleaning)


class IndexMap:
    """Where each chapter index stands; 12 bytes an index while they ascend, as in nearly every book."""

    def __init__(self) -> None:
        self._ascending = array("i")
        self._positions = array("q")
        self._others: dict[int, int] = {}

    def add(self, index: int, position: int) -> int | None:
        """Note where an index stands; return where it stood before, and leave it there, if it did.

        Args:
            index: From 0 to 2**31 - 1.
            position: Any number.
        """
        if not self._ascending or index > self._ascending[-1]:
            self._ascending.append(index)
            self._positions.append(position)
            return None
        present = self.get(index)
        if present is None:
            self._others[index] = position
        return present

    def get(self, index: int) -> int | None:
        """Return where an index stands, or None."""
        at = bisect_left(self._ascending, index)
        if at < len(self._ascending) and self._ascending[at] == index:
            return self._positions[at]
        return self._others.get(index)

    def items(self) -> Iterator[tuple[int, int]]:
        """Yield each index and where it stands."""
        yield from zip(self._ascending, self._positions, strict=True)
        yield from self._others.items()
