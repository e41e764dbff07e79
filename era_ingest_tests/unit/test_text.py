from __future__ import annotations

import time

import pytest

from era_ingest.core.model import CleaningCounts
from era_ingest.core.text import MAX_MARKS_IN_A_ROW, clean_line, clean_prose


def test_a_line_is_one_line() -> None:
    """All white space, also no-break spaces and line separators, becomes single spaces."""
    assert clean_line(" a\r\n b\t\tc\xa0\xa0d\u2028e\u3000 ").text == "a b c d e"


def test_prose_keeps_paragraphs() -> None:
    """Blank lines and form feeds part paragraphs; single newlines do not."""
    raw = "One\nline.\n \t\nTwo\r\n\r\nthree\x0cfour  five\n\n\n\nsix\u2029seven\n"
    assert clean_prose(raw).text == "One line.\n\nTwo\n\nthree\n\nfour five\n\nsix\n\nseven"


def test_what_is_removed_is_counted() -> None:
    """NUL, lone surrogates, controls and invisible characters go; what composes is counted too."""
    cleaned = clean_line("a\0b\ud800c\x07d\u200be\ufeffe\u0301")
    assert cleaned.text == "abcdeé"
    assert cleaned.counts == CleaningCounts(nul=1, surrogates=1, controls=3, normalised=1, texts_changed=1)


def test_a_clean_text_counts_nothing() -> None:
    """White space is folded without being counted as a change."""
    assert clean_line("two  words").counts == CleaningCounts()


def test_joiners_that_shape_words_stay() -> None:
    """Persian needs the zero-width non-joiner, emoji families the joiner."""
    for text in ("می\u200cخواهم", "👨\u200d👩\u200d👧"):
        assert clean_line(text).text == text


def test_heaps_of_marks_are_cut() -> None:
    """A letter keeps thirty combining marks."""
    cleaned = clean_line("q" + "\u0316\u0301" * 500)
    assert len(cleaned.text) == 1 + MAX_MARKS_IN_A_ROW
    assert cleaned.counts.controls == 1000 - MAX_MARKS_IN_A_ROW


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_long_texts_are_folded_piece_by_piece(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pieces are cut changes nothing."""
    text = "  one two \t three\n four     five six-and-a-half  "
    monkeypatch.setattr("era_ingest.core.text._PIECE_CHARS", size)
    assert clean_line(text).text == "one two three four five six-and-a-half"


@pytest.mark.parametrize(
    "unit", ["\0", "a\0", "\u0316\u0301", "\n \n", " \n", "\n" + " " * 99, "e\u0301", "\ud800é", "—"]
)
def test_cleaning_takes_linear_time(unit: str) -> None:
    """Half a million characters of anything are cleaned within a second of CPU time."""
    text = unit * (500_000 // len(unit))
    started = time.process_time()
    clean_prose(text)
    clean_line(text)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\r\u200b\nb", "a b"),
        ("a\n\u200b\nb", "a\n\nb"),
        ("a\r\rb\n\x00\r\nc", "a\n\nb\n\nc"),
        ("a\x0cb\x1dc\u2029d", "a\n\nb\n\nc\n\nd"),
        ("a\x0b \x85b\u2028c", "a\n\nb c"),
        ("\ufeff\n\n a \n\n\u200b\n b\n\n", "a\n\nb"),
    ],
)
def test_what_shows_nothing_parts_no_lines(text: str, wanted: str) -> None:
    """Paragraphs are those of the text without what is removed from it."""
    assert clean_prose(text).text == wanted


def test_a_clean_text_is_not_copied() -> None:
    """It is the same object: a copy would be four bytes a character if one of them is wide."""
    text = "One paragraph.\n\nAnother \U0001f600 " + "word " * 30_000 + "end."
    assert clean_prose(text).text is text


def test_ascii_controls_are_removed_like_all_others() -> None:
    """Of ASCII, which is looked through by another way, all goes that is a control and no white space."""
    removed = set()
    for code in range(128):
        counts = clean_prose(f"a{chr(code)}b").counts
        if counts.nul + counts.controls:
            removed.add(code)
    assert removed == {*range(9), *range(14, 28), 127}
