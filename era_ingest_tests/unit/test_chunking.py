from __future__ import annotations

import time
from itertools import pairwise

import pytest

from era_ingest.core.chunking import PassageSizes, build_chunks, split_passages
from era_ingest.core.ids import chunk_id, content_hash
from era_ingest.core.model import Book, Category, Chapter, Chunk, Entry

SENTENCE = "The keeper winds the clockwork again before the beam of the lamp has begun to slow. "
TEXT = "\n\n".join([(SENTENCE * 5).strip()] * 12)


def _chunks(book: Book, sizes: PassageSizes | None) -> list[Chunk]:
    return [chunk for chapter in book.chapters for chunk in build_chunks(book.name, chapter, sizes)]


def _book(*chapters: Chapter) -> Book:
    return Book("A Book", "a-book", None, chapters)


def test_passages_end_where_sentences_do() -> None:
    """With the default sizes every passage of plain prose has 512 to 1,024 characters and whole sentences."""
    passages = split_passages(TEXT, PassageSizes())
    assert all(512 <= end - start <= 1024 for start, end in passages)
    assert all(TEXT[start] == "T" and TEXT[end - 1] == "." for start, end in passages)


def test_a_short_rest_joins_its_neighbour() -> None:
    """No passage of a few words is left where it fits into the one before."""
    text = (SENTENCE * 8) + "The end."
    assert [text[start:end] for start, end in split_passages(text, PassageSizes())] == [text]


def test_neighbours_may_overlap() -> None:
    """With an overlap, passages share whole sentences up to it."""
    sizes = PassageSizes(200, 400, 100)
    passages = split_passages(TEXT, sizes)
    shared = [first.end - second.start for first, second in pairwise(passages)]
    assert max(shared) > 0
    assert max(shared) <= 100


def test_sizes_that_cannot_be_are_refused() -> None:
    """Bounds are checked where they are made."""
    for sizes in ((0, 10, 0), (11, 10, 0), (10, 20, 10), (10, 20, -1)):
        with pytest.raises(ValueError, match="cannot be"):
            PassageSizes(*sizes)


def test_entries_come_before_passages_and_passages_can_be_left_out() -> None:
    """Chapter by chapter; None leaves out the passages."""
    entries = (Entry(Category.RULE, "A rule.", 2.0), Entry(Category.CLAIM, "A claim."))
    book = _book(
        Chapter(1, "T", ("risk", "timing"), entries, "Text."), Chapter(2, None, ("base",), (), "More.")
    )
    chunks = _chunks(book, PassageSizes())
    assert [(c.chapter, c.category, c.text, c.weight, c.start, c.end) for c in chunks] == [
        (1, "rule", "A rule.", 2.0, None, None),
        (1, "claim", "A claim.", 1.0, None, None),
        (1, "passage", "Text.", 1.0, 0, 5),
        (2, "passage", "More.", 1.0, 0, 5),
    ]
    assert chunks[0].domains == ("risk", "timing")
    assert _chunks(book, None) == chunks[:2]


def test_equal_passages_of_a_chapter_are_one_chunk() -> None:
    """The first offsets count; another chapter has its own."""
    text = "\n\n".join(["x" * 20] * 3)
    chunks = _chunks(
        _book(Chapter(1, None, ("base",), (), text), Chapter(2, None, ("base",), (), text)),
        PassageSizes(15, 20),
    )
    assert [(chunk.chapter, chunk.start, chunk.end) for chunk in chunks] == [(1, 0, 20), (2, 0, 20)]


def test_ids_are_what_they_were() -> None:
    """Ids and hashes are stored: these must never change."""
    assert str(chunk_id("A Book", 1, "rule", "A rule.")) == "f3cfc69c-db3c-54e1-a793-e8feb15ed498"
    assert chunk_id("A Book", 1, "rule", "A rule.").version == 5
    assert content_hash("A rule.").hex()[:16] == "e3c137cec6abfa80"


@pytest.mark.parametrize("unit", ["a", "ab ", ". ", "a\u0301", "👨‍👩‍👧‍👦", '"', "1.", "漢字。"])
def test_splitting_takes_linear_time(unit: str) -> None:
    """A quarter of a million characters without a good place to cut take less than a second of CPU time."""
    text = (unit * 250_000)[:250_000].strip()
    started = time.process_time()
    passages = split_passages(text, PassageSizes())
    assert time.process_time() - started < 1.0
    assert max(end - start for start, end in passages) <= 1024


def test_white_space_at_the_end_of_a_window_loses_nothing() -> None:
    """Found by Hypothesis: the last word behind a stretch that ends in white space was dropped."""
    text = "00000000000000 0"
    passages = split_passages(text, PassageSizes(1, 1, 0))
    assert "".join(text[start:end] for start, end in passages) == text.replace(" ", "")
