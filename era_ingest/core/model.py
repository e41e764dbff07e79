"""The typed values that every room speaks: book, chapter, entry, chunk, defect."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


class Category(StrEnum):
    """What a chunk is: one of the four kinds of doctrine, or a passage of the chapter's own text."""

    PRINCIPLE = "principle"
    RULE = "rule"
    CLAIM = "claim"
    WARNING = "warning"
    PASSAGE = "passage"

    @property
    def plural(self) -> str:
        """The key in doctrine JSON and the stem of the minister file: ``principles``, ..."""
        return f"{self.value}s"


DOCTRINE_CATEGORIES = (Category.PRINCIPLE, Category.RULE, Category.CLAIM, Category.WARNING)


@dataclass(frozen=True, slots=True)
class Defect:
    """Something of the input that was refused; it becomes a quarantine row.

    Attributes:
        file: Path of the file as it was found.
        pointer: RFC 6901 JSON pointer into it (``""``: the whole file); for plain text ``line:<n>``.
        reason: A short stable code, such as ``unknown_item_shape``.
        detail: One sentence for a person, with a bounded excerpt of what was found.
    """

    file: str
    pointer: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class CleaningCounts:
    """How many characters cleaning removed or changed, by what they were."""

    nul: int = 0
    surrogates: int = 0
    controls: int = 0
    normalised: int = 0
    texts_changed: int = 0

    def __add__(self, other: CleaningCounts) -> CleaningCounts:
        return CleaningCounts(
            self.nul + other.nul,
            self.surrogates + other.surrogates,
            self.controls + other.controls,
            self.normalised + other.normalised,
            self.texts_changed + other.texts_changed,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One statement of doctrine: a category, its cleaned text (never empty), its weight (finite, > 0)."""

    category: Category
    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Chapter:
    """One chapter.

    Attributes:
        index: The chapter's number in its book, >= 0, unique there.
        title: Cleaned title, or None.
        domains: Normalised domains, sorted, unique, never empty (``base`` where the source has none).
        entries: Doctrine in source order; (category, text) is unique.
        text: The chapter's cleaned text; ``""`` where the source has none.
    """

    index: int
    title: str | None
    domains: tuple[str, ...]
    entries: tuple[Entry, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Book:
    """A parsed book: what was good in it, and what was not.

    Attributes:
        name: The folder's or file's name; the key that people use.
        slug: ASCII, safe as a path segment, unique to the name; the partition key.
        title: A title that the document gives itself, or None.
        chapters: In order of index.
        defects: What was refused, in document order.
        cleaning: What cleaning changed, summed over the book.
    """

    name: str
    slug: str
    title: str | None
    chapters: tuple[Chapter, ...]
    defects: tuple[Defect, ...] = ()
    cleaning: CleaningCounts = field(default_factory=CleaningCounts)

    @property
    def entry_count(self) -> int:
        """Number of doctrine entries."""
        return sum(len(chapter.entries) for chapter in self.chapters)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One text that gets a vector and a row.

    Attributes:
        id: UUIDv5 of (book name, chapter index, category, text).
        book: The book's name.
        chapter: The chapter's index.
        category: What it is.
        domains: The chapter's domains, sorted.
        text: Cleaned text, not empty.
        weight: Finite, > 0.
        content_hash: SHA-256 of the text's UTF-8 bytes: the key of the embedding store.
        start: Offset of a passage's first character in the chapter's cleaned text; None for doctrine.
        end: Offset after its last character; None for doctrine.
    """

    id: UUID
    book: str
    chapter: int
    category: Category
    domains: tuple[str, ...]
    text: str
    weight: float
    content_hash: bytes
    start: int | None = None
    end: int | None = None
