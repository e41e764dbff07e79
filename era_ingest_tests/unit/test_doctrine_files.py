"""Files of doctrine: their two forms, texts and doctrine that meet, limits, what plugged-in readers return."""

from __future__ import annotations

import time
from functools import partial

import pytest

from era_ingest.core.defects import MAX_EXCERPT_CHARS
from era_ingest.core.items import ParseRules
from era_ingest.core.json_document import RawFile
from era_ingest.core.limits import InputLimits
from era_ingest.errors import MalformedDocumentError
from era_ingest_tests.unit.doctrine_kit import (
    GOOD,
    book_of,
    build_book,
    chapter_with,
    defects_in,
    parse_book,
    parse_doctrine,
    raw_file,
)


@pytest.mark.parametrize(
    ("document", "reason", "pointer"),
    [
        ("text", "wrong_top_level", ""),
        (3, "wrong_top_level", ""),
        (None, "wrong_top_level", ""),
        ({"title": "x"}, "no_chapters", ""),
        ({}, "no_chapters", ""),
        ({"chapters": {"1": {}}}, "chapters_not_list", "/chapters"),
    ],
)
def test_a_document_that_is_no_book_is_refused(document: object, reason: str, pointer: str) -> None:
    """The error says what a book is."""
    raw = raw_file(document)
    for parse in (
        partial(parse_book, "b", raw),
        partial(parse_doctrine, "b", raw, None),
        partial(parse_doctrine, "b", raw_file([]), raw),
    ):
        with pytest.raises(MalformedDocumentError, match="A book is a list of chapters") as caught:
            parse()
        assert (caught.value.reason, caught.value.pointer) == (reason, pointer)


def test_both_forms_are_taken_in_either_place() -> None:
    """A list of chapters as ``<book>.json``, and an object as ``02_doctrine.json``."""
    assert parse_book("b", raw_file([GOOD])).entry_count == 1
    book = parse_doctrine(
        "b", raw_file({"title": "T", "chapters": [GOOD]}), raw_file([{**GOOD, "raw_text": "Text."}])
    )
    assert (book.title, book.entry_count, book.chapters[0].text) == ("T", 1, "Text.")


def test_text_and_doctrine_meet_by_index() -> None:
    """Order does not matter; the doctrine's title comes first; 01_chapters' own domains are not looked at."""
    doctrine = raw_file(
        [chapter_with(chapter_index=2, rules=["Two."]), chapter_with(chapter_title="One", domains=["risk"])]
    )
    chapters = raw_file(
        [
            {"chapter_index": 1, "chapter_title": "Other", "raw_text": "Text of\none.", "domains": 3},
            {"chapter_index": 2, "chapter_title": "Two", "raw_text": "Text of two."},
        ],
        "chapters.json",
    )
    book = parse_doctrine("b", doctrine, chapters)
    assert [(one.index, one.title, one.text, one.domains) for one in book.chapters] == [
        (1, "One", "Text of one.", ("risk",)),
        (2, "Two", "Text of two.", ("base",)),
    ]
    assert not book.defects


def test_chapters_of_two_files_that_do_not_match_are_defects() -> None:
    """Text alone becomes a chapter of ``base``, doctrine alone loads too; each is told in its own file."""
    doctrine = raw_file(
        [chapter_with(rules=["Both."]), chapter_with(chapter_index=2, rules=["Doctrine alone."])]
    )
    chapters = raw_file(
        [chapter_with(raw_text="Both."), chapter_with(chapter_index=3, raw_text="Text alone.")],
        "chapters.json",
    )
    book = parse_doctrine("b", doctrine, chapters)
    assert [(one.index, one.entries != (), one.text, one.domains) for one in book.chapters] == [
        (1, True, "Both.", ("base",)),
        (2, True, "", ("base",)),
        (3, False, "Text alone.", ("base",)),
    ]
    assert [(defect.file, defect.pointer, defect.reason) for defect in book.defects] == [
        ("doctrine.json", "/1", "chapter_without_text"),
        ("chapters.json", "/1", "chapter_without_doctrine"),
    ]


def test_doctrine_without_a_file_of_texts_is_no_defect() -> None:
    """The texts are optional as a whole."""
    assert not book_of(GOOD).defects


def test_a_chapters_text_that_is_no_text_is_a_defect() -> None:
    """Its doctrine loads."""
    book = book_of(chapter_with(raw_text=["a", "b"], rules=["A rule."]))
    assert defects_in(book) == [("/0/raw_text", "text_not_string")]
    assert book.entry_count == 1


def test_texts_over_the_limit_are_defects() -> None:
    """An entry, a chapter's text; the limits are injected here, and stated in InputLimits."""
    rules = ParseRules(limits=InputLimits(max_entry_chars=10, max_chapter_chars=20))
    book = book_of(
        chapter_with(rules=["x" * 11, "x" * 10], raw_text="y" * 21), GOOD | {"rules": ["short"]}, rules=rules
    )
    assert sorted(defects_in(book)) == [("/0/raw_text", "text_too_long"), ("/0/rules/0", "text_too_long")]
    assert [entry.text for entry in book.chapters[0].entries] == ["x" * 10]
    assert book.chapters[0].text == ""
    assert book.entry_count == 2


def test_one_huge_string_is_refused_in_bounded_time() -> None:
    """Twenty megabytes in one entry cost their decoding, and an excerpt is kept."""
    data = b'[{"chapter_index": 1, "rules": ["' + b"a\\u0000" * 3_000_000 + b'", "After."]}]'
    started = time.process_time()
    book = parse_doctrine("b", RawFile("f", data), None)
    assert time.process_time() - started < len(data) / 1e6
    assert defects_in(book) == [("/0/rules/0", "text_too_long")]
    assert len(book.defects[0].detail) < 300
    assert book.entry_count == 1


def test_the_list_of_defects_is_bounded() -> None:
    """The last defect says how many more there were."""
    rules = ParseRules(limits=InputLimits(max_defects=3))
    book = book_of(chapter_with(rules=[None] * 10, claims=["A claim."]), rules=rules)
    assert len(book.defects) == 4
    assert book.defects[-1].reason == "too_many_defects"
    assert book.defects[-1].detail.startswith("7 more")
    assert book.entry_count == 1


@pytest.mark.parametrize(
    "found", ["x" * 10_000, {"k" * 9_000: "v" * 9_000}, [[[[[["deep"]]]]]] * 9, list(range(9999))]
)
def test_excerpts_are_bounded(found: object) -> None:
    """Whatever was found, a defect's sentence stays a sentence."""
    book = book_of(chapter_with(chapter_title=found, domains=[found], rules=[[found]]))
    assert len(book.defects) >= 2
    assert all(len(defect.detail) < MAX_EXCERPT_CHARS + 120 for defect in book.defects)


def test_what_a_reader_returns_is_not_trusted() -> None:
    """Values that no JSON holds are defects like any other."""
    document = {
        "chapters": [chapter_with(rules=[b"bytes", object(), 10**5000, "A rule."], domains=("risk",))]
    }
    book = build_book("b", document, "book.epub")
    assert [reason for _, reason in defects_in(book)] == ["domains_not_list", *["unknown_item_shape"] * 3]
    assert book.entry_count == 1


def test_pointers_are_escaped() -> None:
    """RFC 6901: ``~`` and ``/`` in a key."""
    data = b'{"chapters": [{"chapter_index": 1, "a/b~c": 1, "a/b~c": 2}]}'
    assert defects_in(parse_book("b", RawFile("f", data))) == [("/chapters/0/a~1b~0c", "duplicate_key")]
