"""Made-up books for measuring: distinct short sentences, the same for the same seed."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENTRIES_A_CHAPTER = 40
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


def make_sentences(count: int, seed: int = 1) -> list[str]:
    """Return so many distinct sentences of about 60 characters."""
    rng = Random(seed)
    return [
        f"{rng.choice(_WHO).capitalize()} {rng.choice(_DOES)} {rng.choice(_WHAT)} {rng.choice(_WHEN)}, "
        f"case {seed}-{number}."
        for number in range(count)
    ]


def write_books(folder: Path, sentences: Sequence[str], *, books: int = 20) -> None:
    """Write sentences as doctrine entries of several books, each one JSON file of a landing folder.

    Args:
        folder: Where to; created.
        sentences: Entries; dealt to the books in runs.
        books: Files, at most; >= 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(sentences) // books)
    for number, start in enumerate(range(0, len(sentences), size)):
        document = _build_book(f"Bench Book {number}", sentences[start : start + size])
        (folder / f"bench-book-{number}.json").write_text(json.dumps(document), encoding="utf-8")


def change_sentences(sentences: Sequence[str], share: float, seed: int) -> list[str]:
    """Return the sentences with an evenly spread share of them (0 to 1) replaced by new ones."""
    changed = list(sentences)
    places = range(0, len(changed), max(1, round(1 / share)))
    for place, sentence in zip(places, make_sentences(len(places), seed), strict=True):
        changed[place] = sentence
    return changed


def _build_book(title: str, sentences: Sequence[str]) -> dict[str, Any]:
    chapters = [
        _build_chapter(number, sentences[start : start + ENTRIES_A_CHAPTER])
        for number, start in enumerate(range(0, len(sentences), ENTRIES_A_CHAPTER), start=1)
    ]
    return {"title": title, "chapters": chapters}


def _build_chapter(number: int, sentences: Sequence[str]) -> dict[str, Any]:
    return {
        "chapter_index": number,
        "chapter_title": f"Chapter {number}",
        "raw_text": "",
        "domains": [_DOMAINS[number % len(_DOMAINS)], _DOMAINS[(number * 3 + 1) % len(_DOMAINS)]],
        **{name: list(sentences[place :: len(_CATEGORIES)]) for place, name in enumerate(_CATEGORIES)},
    }
