"""A chapter becomes chunks: each doctrine entry as it stands, and the chapters' text in passages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from semantic_text_splitter import TextSplitter

from era_ingest.core.ids import chunk_id, content_hash
from era_ingest.core.model import Category, Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.core.model import Chapter
    from era_ingest.core.open_book import OpenChapter

_WINDOW_PASSAGES = 8
"""Greatest passages that one call of the splitter sees: its time is quadratic in a long paragraph."""


@dataclass(frozen=True, slots=True)
class PassageSizes:
    """How long passages are, in characters.

    Attributes:
        min_chars: A passage is full from here on, >= 1; only where the next sentence would make it too long,
            or the chapter ends, may one be shorter.
        max_chars: None is longer, >= ``min_chars``.
        overlap_chars: Characters that neighbours share, at most; 0, the default, is none; < ``min_chars``.
    """

    min_chars: int = 512
    max_chars: int = 1024
    overlap_chars: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_chars <= self.max_chars or not 0 <= self.overlap_chars < self.min_chars:
            raise ValueError(f"Passage sizes that cannot be: {self}")


class Passage(NamedTuple):
    """A stretch of a text: ``text[start:end]``, without white space at its ends."""

    start: int
    end: int


def build_chunks(book: str, chapter: Chapter | OpenChapter, sizes: PassageSizes | None) -> Iterator[Chunk]:
    """Yield everything of a chapter that gets a vector, entries before passages.

    Ids are unique: a text that stands twice in one chapter and category is one chunk, with the first offsets.

    Args:
        book: The book's name.
        chapter: A parsed chapter.
        sizes: Lengths of passages; None: no passages.
    """
    for entry in chapter.entries:
        yield _build_chunk(book, chapter, entry.category, entry.text, weight=entry.weight)
    if sizes is None or not chapter.text:
        return
    seen: set[str] = set()
    for start, end in split_passages(chapter.text, sizes):
        text = chapter.text[start:end]
        if text not in seen:
            seen.add(text)
            yield _build_chunk(book, chapter, Category.PASSAGE, text, start=start, end=end)


def split_passages(text: str, sizes: PassageSizes) -> list[Passage]:
    """Cut a text at paragraph, sentence or word borders.

    The passages are in order, none is empty, and together with the white space between them they cover the
    text. Time is linear in the text, whatever it holds.

    Args:
        text: A chapter's cleaned text.
        sizes: Lengths of passages.
    """
    return _join_short(_split_in_windows(text, sizes), sizes)


def _build_chunk(
    book: str,
    chapter: Chapter | OpenChapter,
    category: Category,
    text: str,
    *,
    weight: float = 1.0,
    start: int | None = None,
    end: int | None = None,
) -> Chunk:
    return Chunk(
        id=chunk_id(book, chapter.index, category.value, text),
        book=book,
        chapter=chapter.index,
        category=category,
        domains=chapter.domains,
        text=text,
        weight=weight,
        content_hash=content_hash(text),
        start=start,
        end=end,
    )


def _split_in_windows(text: str, sizes: PassageSizes) -> Iterator[Passage]:
    """Let the splitter see a bounded stretch at a time.

    Passages that reach into the last ``max_chars`` of a stretch may have been shaped by its end; the next
    stretch begins with the first of those, so that the result is that of one pass over the whole.
    """
    splitter = _splitter(sizes)
    window = _WINDOW_PASSAGES * sizes.max_chars
    begin = 0
    while begin < len(text):
        is_last = begin + window >= len(text)
        trusted = len(text) if is_last else begin + window - sizes.max_chars
        pieces = splitter.chunk_indices(text[begin : begin + window])
        resume = begin + window  # white space at the stretch's end may leave no passage to begin with again
        for offset, piece in pieces:
            start, end = begin + offset, begin + offset + len(piece)
            if end > trusted and start > begin:
                resume = start
                break
            yield Passage(start, end)
            if end > begin + window - sizes.max_chars:
                resume = end
        begin = resume


def _join_short(passages: Iterator[Passage], sizes: PassageSizes) -> list[Passage]:
    """Join a passage below the least length with its neighbour where both fit into the greatest."""
    joined: list[Passage] = []
    for passage in passages:
        if joined:
            previous = joined[-1]
            is_short = min(previous.end - previous.start, passage.end - passage.start) < sizes.min_chars
            if is_short and passage.end - previous.start <= sizes.max_chars:
                joined[-1] = Passage(previous.start, passage.end)
                continue
        joined.append(passage)
    return joined


@lru_cache(maxsize=8)
def _splitter(sizes: PassageSizes) -> TextSplitter:
    return TextSplitter((sizes.min_chars, sizes.max_chars), overlap=sizes.overlap_chars, trim=True)
