"""What is to be embedded of a folder of made-up books, read plainly by hand.

The bound reads with it, the peers read with it (it needs nothing but Python, and for passages the splitter), and
the benchmark counts with it what everybody should have stored. ``era ingest`` has its own way, and is checked
against this one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CATEGORIES = ("principles", "rules", "claims", "warnings")
PASSAGE_CHARS = (512, 1024)
"""Least and greatest length of a passage, characters."""

Row = tuple[bytes, str, int, str, str]


def read_rows(folder: Path) -> dict[bytes, Row]:
    """Return the texts of all books of a folder by their hash.

    Args:
        folder: Holds one JSON file a book.

    Returns:
        Rows of hash (SHA-256), book, chapter, category and text; a text that stands twice has one.
    """
    rows: dict[bytes, Row] = {}
    for path in sorted(folder.glob("*.json")):
        for chapter in json.loads(path.read_bytes())["chapters"]:
            for category, text in _texts_of(chapter):
                digest = hashlib.sha256(text.encode()).digest()
                rows[digest] = (digest, path.stem, chapter["chapter_index"], category, text)
    return rows


def _texts_of(chapter: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for category in CATEGORIES:
        for text in chapter[category]:
            yield category, text
    if chapter["raw_text"]:
        for text in cut_passages(chapter["raw_text"]):
            yield "passages", text


def cut_passages(text: str) -> list[str]:
    """Cut a text with the splitter; a piece that is too short goes to its neighbour where both fit."""
    from semantic_text_splitter import TextSplitter  # nobody without passages waits for it

    least, greatest = PASSAGE_CHARS
    spans: list[tuple[int, int]] = []
    for offset, piece in TextSplitter(PASSAGE_CHARS, trim=True).chunk_indices(text):
        start, end = offset, offset + len(piece)
        if spans:
            before = spans[-1]
            if min(before[1] - before[0], len(piece)) < least and end - before[0] <= greatest:
                start = spans.pop()[0]
        spans.append((start, end))
    return [text[start:end] for start, end in spans]
