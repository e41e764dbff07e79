from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.defects import MAX_EXCERPT_CHARS, excerpt
from era_ingest.core.doctrine import build_book, parse_book, parse_doctrine
from era_ingest.core.items import ParseRules
from era_ingest.core.json_document import RawFile, parse_json
from era_ingest.core.json_walk import _parse_int
from era_ingest.core.limits import InputLimits
from era_ingest.core.markdown import parse_markdown, parse_text
from era_ingest.core.text import clean_line, clean_prose
from era_ingest.errors import EraError, MalformedDocumentError
from era_ingest_tests.unit.json_kit import whole_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.core.model import Book
    from era_ingest.core.open_book import OpenBook

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
BOOK_KEYS = (
    "chapters",
    "title",
    "chapter_index",
    "chapter_title",
    "raw_text",
    "text",
    "domains",
    "principles",
)
ITEM_KEYS = ("rules", "claims", "warnings", "weight", "statement", "extraction", "generalized", "principle")
KEYS = st.sampled_from(BOOK_KEYS + ITEM_KEYS) | st.text(max_size=3)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)
ITEM = (
    st.text(max_size=9)
    | st.fixed_dictionaries({"text": st.text(max_size=9)}, optional={"weight": SCALARS})
    | JSON
)
CHAPTER = st.fixed_dictionaries(
    {},
    optional={
        "chapter_index": st.integers(-1, 4) | SCALARS,
        "chapter_title": SCALARS,
        "raw_text": SCALARS,
        "domains": st.lists(SCALARS, max_size=4) | JSON,
        "principles": st.lists(ITEM, max_size=4) | JSON,
        "warnings": st.lists(ITEM, max_size=4) | JSON,
    },
)
DOCUMENT = st.lists(CHAPTER | JSON, max_size=5) | st.fixed_dictionaries(
    {"chapters": st.lists(CHAPTER, max_size=5)}
)
RULES = ParseRules(limits=InputLimits(max_defects=5, max_chapter_chars=50))


def _check(book: Book, rules: ParseRules) -> None:
    """Everything inside a book is strict."""
    indexes = [chapter.index for chapter in book.chapters]
    assert indexes == sorted(set(indexes))
    for chapter in book.chapters:
        assert chapter.domains
        assert chapter.domains == tuple(sorted(set(chapter.domains)))
        assert clean_prose(chapter.text).text == chapter.text
        assert len({(entry.category, entry.text) for entry in chapter.entries}) == len(chapter.entries)
        for entry in chapter.entries:
            assert entry.text
            assert clean_line(entry.text).text == entry.text
            assert 0 < entry.weight < float("inf")
    assert len(book.defects) <= rules.limits.max_defects + 1
    assert all(defect.reason and defect.detail for defect in book.defects)


@given(DOCUMENT | JSON)
def test_any_document_becomes_a_strict_book_or_one_error(document: Any) -> None:
    """Whatever a file or a reader gives, the outcome is a checked book or an EraError."""
    for rules in (RULES, replace(RULES, limits=InputLimits())):
        try:
            book = build_book("book", document, "book.json", rules).whole()
        except EraError:
            continue
        _check(book, rules)


@given(DOCUMENT, DOCUMENT)
def test_any_two_files_become_a_strict_book_or_one_error(doctrine: Any, chapters: Any) -> None:
    """Doctrine and texts that fit each other in no way still give a checked book or an EraError."""
    files = [RawFile(name, json.dumps(value).encode()) for name, value in (("d", doctrine), ("c", chapters))]
    try:
        book = parse_doctrine("book", files[0], files[1], RULES).whole()
    except EraError:
        return
    _check(book, RULES)


@given(
    st.binary()
    | st.text(alphabet='[]{}":,\\u0dn1e \n\ufeff').map(str.encode)
    | JSON.map(json.dumps).map(str.encode)
)
def test_any_bytes_are_a_book_or_one_error(data: bytes) -> None:
    """No bytes make a parser raise anything but an EraError."""
    for parse in (parse_book, parse_markdown, parse_text):
        try:
            book = parse("book", RawFile("file", data), RULES).whole()
        except EraError:
            continue
        _check(book, RULES)


def _outcome(parse: Callable[[], OpenBook]) -> Book | str:
    try:
        return parse().whole()
    except EraError as error:
        return error.message


@given(DOCUMENT | JSON, st.sampled_from([None, 1]))
def test_a_file_gives_the_book_that_its_whole_value_gives(document: Any, indent: int | None) -> None:
    """Lists that are read an element at a time are the lists that the standard library decodes at once."""
    data = json.dumps(document, indent=indent)
    from_file = _outcome(lambda: parse_book("book", RawFile("f", data.encode()), RULES))
    whole = json.loads(data, parse_int=_parse_int)
    assert from_file == _outcome(lambda: build_book("book", whole, "f", RULES))


@given(st.text(alphabet='[]{}":,\\u0dn1e \n', max_size=40))
def test_what_is_json_is_what_the_standard_library_says(data: str) -> None:
    """Walking accepts and refuses the same texts as its whole decoder, and reads the same values from them."""
    try:
        expected = json.loads(data)
    except ValueError:
        with pytest.raises(MalformedDocumentError):
            parse_json(RawFile("f", data.encode()))
        return
    assert whole_value(parse_json(RawFile("f", data.encode()))) == expected


@given(JSON)
def test_an_excerpt_is_short_and_printable(value: Any) -> None:
    """An excerpt of any value has at most 120 characters and no control or half character."""
    shown = excerpt(value)
    assert len(shown) <= MAX_EXCERPT_CHARS
    assert shown.isprintable()
    shown.encode()
