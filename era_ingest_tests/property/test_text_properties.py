from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.model import CleaningCounts
from era_ingest.core.text import clean_line, clean_prose

ANY_TEXT = st.text(st.characters(codec=None)) | st.text(
    "a é\u0301\u0316\n\r\f\t\x00\ud800\udc00\u200b\xa0\u2028"
)
FORBIDDEN_CATEGORIES = {"Cc", "Cs"}


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    """A cleaned text is its own cleaned form, and nothing is counted the second time."""
    for clean in (clean_line, clean_prose):
        once = clean(text).text
        assert clean(once) == (once, CleaningCounts())


@given(ANY_TEXT)
def test_a_cleaned_text_holds_nothing_forbidden(text: str) -> None:
    """No control character, no half of a pair, NFC, and it encodes to UTF-8."""
    for clean in (clean_line, clean_prose):
        cleaned = clean(text).text
        left = {unicodedata.category(character) for character in cleaned.replace("\n", "")}
        assert not left & FORBIDDEN_CATEGORIES
        assert unicodedata.is_normalized("NFC", cleaned)
        cleaned.encode("utf-8")


@given(ANY_TEXT)
def test_white_space_is_folded(text: str) -> None:
    """A line has single spaces only; prose has single spaces, and paragraphs parted by one blank line."""
    line = clean_line(text).text
    assert line == " ".join(line.split())
    prose = clean_prose(text).text
    assert all(part and part == " ".join(part.split()) for part in prose.split("\n\n") if prose)


@given(st.text(st.sampled_from(["a", "\0", "\ud800", "\x07", "\xad"])))
def test_what_is_removed_is_counted_by_kind(text: str) -> None:
    """The counts say how many characters of each kind were there."""
    counts = clean_line(text).counts
    assert counts.nul == text.count("\0")
    assert counts.surrogates == text.count("\ud800")
    assert counts.controls == text.count("\x07") + text.count("\xad")
    assert counts.texts_changed == bool(set(text) - {"a"})
