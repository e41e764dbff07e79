"""What is asked of the tables, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Question:
    """The filters of one search; None: no filter.

    Attributes:
        domain: Only rows of this domain, in normal form.
        category: Only rows of this category.
        book: Only rows of the book of this name.
        k: Distinct texts at most, >= 1.
        min_score: Least cosine similarity.
        doctrine_only: Leave out passages.
    """

    domain: str | None
    category: str | None
    book: str | None
    k: int
    min_score: float | None
    doctrine_only: bool

    @property
    def conditions(self) -> sql.Composed:
        """The filters in SQL; their values are this question's fields by name."""
        conditions = [sql.SQL("embedding is not null")]
        if self.domain is not None:
            conditions.append(sql.SQL("domains @> array[%(domain)s::text]"))
        if self.category is not None:
            conditions.append(sql.SQL("category = %(category)s"))
        if self.book is not None:
            conditions.append(sql.SQL("book = %(book)s"))
        if self.doctrine_only:
            conditions.append(sql.SQL("category <> 'passage'"))
        return sql.SQL(" and ").join(conditions)


@dataclass(frozen=True, slots=True)
class Hit:
    """One found text.

    Attributes:
        id: Id of its row; of several rows with this text the first by book and chapter.
        text: The text.
        score: Cosine similarity, -1 to 1.
        book: The book's name.
        chapter: The chapter's index.
        chapter_title: The chapter's title, or None.
        category: ``principle``, ``rule``, ``claim``, ``warning`` or ``passage``.
        domains: The chapter's domains.
        weight: The entry's weight.
        content_hash: SHA-256 of the text.
        start_char: Offset of a passage in its chapter's text.
        end_char: Offset after its end.
        also_in: Other places of the same text, ``(book, chapter)``.
        fused: What a hybrid search ranks by, greater is better; None: it was none.
    """

    id: UUID
    text: str
    score: float
    book: str
    chapter: int
    chapter_title: str | None
    category: str
    domains: list[str]
    weight: float
    content_hash: bytes
    start_char: int | None
    end_char: int | None
    also_in: tuple[tuple[str, int], ...] = ()
    fused: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; ids and hashes as hexadecimal text."""
        return {
            "id": str(self.id),
            "score": round(self.score, 6),
            "text": self.text,
            "book": self.book,
            "chapter": self.chapter,
            "chapter_title": self.chapter_title,
            "category": self.category,
            "domains": list(self.domains),
            "weight": self.weight,
            "content_hash": self.content_hash.hex(),
            "start_char": self.start_char,
            "end_char": self.end_char,
            "also_in": [{"book": book, "chapter": chapter} for book, chapter in self.also_in],
            "fused": None if self.fused is None else round(self.fused, 6),
        }


HIT_COLUMNS = sql.SQL(
    "v.id, v.text, v.book, v.chapter, v.chapter_title, v.category, v.domains, v.weight, v.content_hash, "
    "v.start_char, v.end_char"
)
"""The columns of a hit but its score, of a model's table called ``v``."""


def distinct(rows: Iterable[Hit], k: int) -> list[Hit]:
    """Keep the first row of each text, and the others' places with it; ``k`` texts at most."""
    places: dict[bytes, list[Hit]] = {}
    for row in rows:
        places.setdefault(row.content_hash, []).append(row)
    return [
        replace(same[0], also_in=tuple(dict.fromkeys((hit.book, hit.chapter) for hit in same[1:])))
        for same in list(places.values())[:k]
    ]
