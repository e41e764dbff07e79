from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.items import ParseRules
from era_ingest.core.json_document import RawFile
from era_ingest.core.limits import InputLimits
from era_ingest.core.markdown import parse_markdown, parse_text
from era_ingest.errors import MalformedDocumentError

if TYPE_CHECKING:
    from era_ingest.core.model import Book
from era_ingest.core.open_book import OpenBook

Parse = Callable[..., OpenBook]


def _markdown(text: str) -> Book:
    return parse_markdown("book", RawFile("book.md", text.encode())).whole()


def _outline(book: Book) -> list[tuple[int, str | None, str]]:
    return [(chapter.index, chapter.title, chapter.text) for chapter in book.chapters]


def test_a_lone_first_heading_is_the_title() -> None:
    """Chapters are the headings below it; what stands before them is chapter 0."""
    book = _markdown("# The Book\n\nBy somebody.\n\n## One\n\nFirst\ntext.\n\n## Two ##\n\nSecond.\n")
    assert book.title == "The Book"
    assert _outline(book) == [(0, None, "By somebody."), (1, "One", "First text."), (2, "Two", "Second.")]
    assert all(chapter.domains == ("base",) and not chapter.entries for chapter in book.chapters)


def test_deeper_headings_stay_in_the_text() -> None:
    """The first level with two headings splits; what is below it is a paragraph."""
    book = _markdown("# One\ntext\n### Aside\nmore\n# Two\nend")
    assert _outline(book) == [(1, "One", "text ### Aside more"), (2, "Two", "end")]
    assert book.title is None


def test_underlined_headings_count() -> None:
    """Setext headings; a rule between paragraphs, a list and front matter are none."""
    book = _markdown("---\nauthor: x\n---\nOne\n===\ntext\n\n---\n\nmore\n\nTwo\n===\n- item\n---\nend\n")
    assert _outline(book) == [(1, "One", "text\n\n---\n\nmore"), (2, "Two", "- item --- end")]


def test_headings_in_code_are_none() -> None:
    """Fences of backticks and tildes; a fence closes with its own kind."""
    book = _markdown("# One\n```\n# no\n~~~\n```\n~~~~\n# no\n~~~\n# no\n~~~~\n# Two\nend")
    assert [chapter.title for chapter in book.chapters] == ["One", "Two"]


def test_a_heading_without_text_joins_the_next() -> None:
    """A part's heading stands before its first chapter's."""
    book = _markdown("# Part I\n# One\ntext\n# Two\ntext\n# Empty\n")
    assert _outline(book) == [(1, "Part I — One", "text"), (2, "Two", "text")]


def test_a_text_without_headings_is_one_chapter() -> None:
    """It is chapter 0 and has no title."""
    assert _outline(_markdown("Just\ntext.\n\nMore.")) == [(0, None, "Just text.\n\nMore.")]
    assert _outline(_markdown("# Only\ntext")) == [(1, "Only", "text")]


def test_plain_text_splits_at_lines_that_name_chapters() -> None:
    """They stand alone; the same words within a paragraph are text."""
    text = (
        "A Tale\r\n\r\nCHAPTER I.\r\n\r\nIt began in\r\nChapter Two\r\nof the other book.\r\n\r\n"
        "Part two of the plan was short.\r\n\r\nChapter 2: The Storm\r\n\r\nEnd.\x0cEPILOGUE\n\nAfter."
    )
    assert _outline(parse_text("tale", RawFile("tale.txt", text.encode())).whole()) == [
        (0, None, "A Tale"),
        (1, "CHAPTER I.", "It began in Chapter Two of the other book.\n\nPart two of the plan was short."),
        (2, "Chapter 2: The Storm", "End."),
        (3, "EPILOGUE", "After."),
    ]


@pytest.mark.parametrize("parse", [parse_markdown, parse_text])
def test_what_is_no_text_is_refused(parse: Parse) -> None:
    """Empty, or no Unicode; UTF-16 with a mark is read."""
    for data, reason in (
        (b"", "empty"),
        (b"\0\0", "empty"),
        (b" \n\n", "empty"),
        (b"caf\xe9 au lait", "not_unicode"),
    ):
        with pytest.raises(MalformedDocumentError) as caught:
            parse("book", RawFile("f", data))
        assert caught.value.reason == reason
    assert parse("book", RawFile("f", "früh".encode("utf-16"))).whole().chapters[0].text == "früh"


@pytest.mark.parametrize("parse", [parse_markdown, parse_text])
def test_more_headings_than_any_book_has_are_refused(parse: Parse) -> None:
    """Each becomes a chapter, so their number is bounded."""
    rules = ParseRules(limits=InputLimits(max_headings=3))
    text = "# Preface\n\nPreface\n\nText.\n\n"
    assert parse("b", RawFile("f", (text * 1).encode()), rules).whole().chapters
    with pytest.raises(MalformedDocumentError) as caught:
        parse("b", RawFile("f", (text * 4).encode()), rules)
    assert caught.value.reason == "too_many_headings"


def test_defects_name_their_line() -> None:
    """A chapter over the limit is refused, its neighbour loads."""
    rules = ParseRules(limits=InputLimits(max_chapter_chars=10))
    book = parse_markdown("b", RawFile("f", b"# One\n" + b"x" * 20 + b"\n# Two\ntext"), rules).whole()
    assert [(defect.pointer, defect.reason) for defect in book.defects] == [("line:1", "text_too_long")]
    assert _outline(book) == [(2, "Two", "text")]


@pytest.mark.parametrize(
    "unit", ["# a\n", "# " + " " * 300 + "x\n", "#\n", "a\n=\n", "\n", "# a\nb\n", "`" * 99, "x# "]
)
def test_splitting_takes_linear_time(unit: str) -> None:
    """A quarter of a million characters of headings, spaces or fences take under two seconds of CPU time."""
    data = (unit * (250_000 // len(unit))).encode()
    rules = ParseRules(limits=InputLimits(max_headings=250_000))
    started = time.process_time()
    for parse in (parse_markdown, parse_text):
        try:
            parse("b", RawFile("f", data), rules).whole()
        except MalformedDocumentError as error:
            assert error.reason == "empty"  # noqa: PT017
    assert time.process_time() - started < 2.0
