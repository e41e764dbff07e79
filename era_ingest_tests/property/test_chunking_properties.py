from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.chunking import PassageSizes, build_chunks, split_passages
from era_ingest.core.ids import chunk_id, content_hash
from era_ingest.core.model import Category, Chapter, Entry
from era_ingest.core.text import clean_prose

SIZES = st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 39)).map(
    lambda drawn: PassageSizes(drawn[0], drawn[0] + drawn[1], min(drawn[2], drawn[0] - 1))
)
WORDS = st.lists(
    st.sampled_from(["word", "a", "Sentence.", "Ende!", "\n\n", "éè", "👨‍👩‍👧", "心。", "x" * 70])
).map(" ".join)
PROSE = (st.text() | WORDS).map(lambda text: clean_prose(text).text)


@given(PROSE, SIZES)
def test_passages_cover_the_text(text: str, sizes: PassageSizes) -> None:
    """Passages are in order, in bounds, trimmed, and leave out nothing but white space."""
    position = 0
    for start, end in split_passages(text, sizes):
        assert end - start <= sizes.max_chars
        assert text[start:end] == text[start:end].strip() != ""
        assert not text[position:start].strip()
        assert position <= start or sizes.overlap_chars
        position = end
    assert not text[position:].strip()


@given(PROSE, PROSE, SIZES)
def test_chunks_are_unique_and_point_into_their_chapter(first: str, second: str, sizes: PassageSizes) -> None:
    """A passage is what stands at its offsets; ids are unique; hashes and ids come from the text."""
    chapters = tuple(
        Chapter(index, None, ("base",), (Entry(Category.RULE, "One rule."),), text)
        for index, text in enumerate((first, second))
    )
    chunks = [chunk for chapter in chapters for chunk in build_chunks("a book", chapter, sizes)]
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert chunk.content_hash == content_hash(chunk.text)
        assert chunk.id == chunk_id("a book", chunk.chapter, chunk.category.value, chunk.text)
        if chunk.category is Category.PASSAGE:
            assert chapters[chunk.chapter].text[chunk.start : chunk.end] == chunk.text
        else:
            assert chunk.start is chunk.end is None
