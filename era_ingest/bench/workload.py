"""Made-up books for measuring: distinct short sentences, or chapters of prose, the same for the same seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

ENTRIES_A_CHAPTER = 40
CHANGED_SHARE = 0.01
_PASSAGES_A_CHAPTER = 5_250 / 559
_PARAGRAPHS = (3, 22)
_SENTENCES = (2, 7)
_CLAUSES = (1, 3)
_CATEGORIES = ("principles", "rules", "claims", "warnings")
_DOMAINS = ("strategy", "negotiation", "logistics", "judgement", "patience", "trade", "law", "craft")
_WHO = ("the careful buyer", "a new captain", "every clerk", "the old miller", "one who waits", "a good host")
_DOES = ("counts", "guards", "lends", "measures", "repairs", "weighs", "writes down", "gives away")
_WHAT = (
    "the second offer",
    "a small debt",
    "the spare key",
    "an honest doubt",
    "the last boat",
    "his own time",
)
_WHEN = (
    "before the harvest",
    "when prices fall",
    "after a quarrel",
    "in a strange town",
    "while others sleep",
)
_JOINED = (", and ", ", but ", "; so ", ", because ")
_Item = TypeVar("_Item")


class Kind(StrEnum):
    """What the books of a workload hold."""

    ENTRIES = "entries"
    """Doctrine entries: short texts as they stand."""
    PASSAGES = "passages"
    """Chapters' text, which is cut into passages."""


USUAL_TEXTS = {Kind.ENTRIES: 10_000, Kind.PASSAGES: 5_250}


@dataclass(frozen=True, slots=True)
class Workload:
    """Books to ingest, and the same books with about one text in a hundred changed.

    Attributes:
        kind: What they hold.
        texts: Entries; or passages, of which there will be about so many: the chapters are
            ``texts * 559 / 5,250`` (a chapter of real books has 9.4 passages). >= 100.
        books: Files, at most; >= 1.
    """

    kind: Kind
    texts: int
    books: int = 20

    @property
    def chapters(self) -> int:
        """How many chapters there are."""
        a_chapter = ENTRIES_A_CHAPTER if self.kind is Kind.ENTRIES else _PASSAGES_A_CHAPTER
        return round(self.texts / a_chapter)

    def write(self, folder: Path, *, changed: bool = False) -> None:
        """Write the books, or over them the changed ones.

        Args:
            folder: Where to; created.
            changed: One entry in a hundred is another one; or one chapter in a hundred has another text.
        """
        if self.kind is Kind.ENTRIES:
            sentences = make_sentences(self.texts)
            write_books(
                folder,
                change_sentences(sentences, CHANGED_SHARE, seed=2) if changed else sentences,
                books=self.books,
            )
        else:
            texts = make_chapters(self.chapters)
            write_prose(
                folder,
                change_chapters(texts, CHANGED_SHARE, seed=2) if changed else texts,
                books=self.books,
            )


def make_sentences(count: int, seed: int = 1) -> list[str]:
    """Return so many distinct sentences of about 60 characters."""
    rng = Random(seed)
    return [f"{_clause(rng).capitalize()}, case {seed}-{number}." for number in range(count)]


def change_sentences(sentences: Sequence[str], share: float, seed: int) -> list[str]:
    """Return the sentences with an evenly spread share of them (0 to 1) replaced by new ones."""
    places = _spread(len(sentences), share)
    return _replace(sentences, places, make_sentences(len(places), seed))


def make_chapters(count: int, seed: int = 1) -> list[str]:
    """Return so many distinct chapters of about 6,500 characters, a blank line between paragraphs."""
    rng = Random(seed)
    return [_prose(rng, f"{seed}-{number}") for number in range(count)]


def change_chapters(chapters: Sequence[str], share: float, seed: int) -> list[str]:
    """Return the chapters with an evenly spread share of them (0 to 1) replaced by new ones."""
    places = _spread(len(chapters), share)
    return _replace(chapters, places, make_chapters(len(places), seed))


def write_books(folder: Path, sentences: Sequence[str], *, books: int = 20) -> None:
    """Write sentences as doctrine entries of several books, each one JSON file of a landing folder.

    Args:
        folder: Where to; created.
        sentences: Entries; dealt to the books in runs.
        books: Files, at most; >= 1.
    """
    _write(
        folder,
        (
            [
                _build_chapter(number, entries=part)
                for number, part in enumerate(_runs(book, ENTRIES_A_CHAPTER), start=1)
            ]
            for book in _runs(sentences, -(-len(sentences) // books))
        ),
    )


def write_prose(folder: Path, chapters: Sequence[str], *, books: int = 20) -> None:
    """Write chapters of text as several books, each one JSON file of a landing folder.

    Args:
        folder: Where to; created.
        chapters: Their texts; dealt to the books in runs.
        books: Files, at most; >= 1.
    """
    _write(
        folder,
        (
            [_build_chapter(number, text=text) for number, text in enumerate(book, start=1)]
            for book in _runs(chapters, -(-len(chapters) // books))
        ),
    )


def _clause(rng: Random) -> str:
    return f"{rng.choice(_WHO)} {rng.choice(_DOES)} {rng.choice(_WHAT)} {rng.choice(_WHEN)}"


def _prose(rng: Random, case: str) -> str:
    paragraphs = [
        " ".join(_sentence(rng) for _ in range(rng.randint(*_SENTENCES)))
        for _ in range(rng.randint(*_PARAGRAPHS))
    ]
    return "\n\n".join([f"This is case {case}.", *paragraphs])


def _sentence(rng: Random) -> str:
    clauses = [_clause(rng) for _ in range(rng.randint(*_CLAUSES))]
    text = clauses[0] + "".join(rng.choice(_JOINED) + clause for clause in clauses[1:])
    return f"{text[0].upper()}{text[1:]}."


def _spread(count: int, share: float) -> range:
    return range(0, count, max(1, round(1 / share)))


def _replace(items: Sequence[_Item], places: range, others: Sequence[_Item]) -> list[_Item]:
    changed = list(items)
    for place, other in zip(places, others, strict=True):
        changed[place] = other
    return changed


def _runs(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _write(folder: Path, books: Iterable[list[dict[str, Any]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, chapters in enumerate(books):
        document = {"title": f"Bench Book {number}", "chapters": chapters}
        (folder / f"bench-book-{number}.json").write_text(json.dumps(document), encoding="utf-8")


def _build_chapter(number: int, *, entries: Sequence[str] = (), text: str = "") -> dict[str, Any]:
    return {
        "chapter_index": number,
        "chapter_title": f"Chapter {number}",
        "raw_text": text,
        "domains": [_DOMAINS[number % len(_DOMAINS)], _DOMAINS[(number * 3 + 1) % len(_DOMAINS)]],
        **{name: list(entries[place :: len(_CATEGORIES)]) for place, name in enumerate(_CATEGORIES)},
    }
