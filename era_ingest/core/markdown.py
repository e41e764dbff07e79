"""Markdown and plain text become a book: chapters at headings, text without doctrine.

Markdown: ATX (``## Title``) and setext (underlined) headings outside of code fences. The book is split at the
first level that has two headings or more, and above it; deeper headings stay in the text as paragraphs. One
lone heading above all others is the book's title. Plain text: lines such as ``CHAPTER IV. The Storm`` that
stand alone. Chapters count from 1; text before the first heading is chapter 0.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from era_ingest.core.defects import DefectLog
from era_ingest.core.items import ItemReader, ParseRules
from era_ingest.core.json_document import RawFile, decode_text
from era_ingest.core.names import BASE_DOMAIN
from era_ingest.core.open_book import OpenBook, OpenChapter
from era_ingest.core.text import clean_prose
from era_ingest.errors import MalformedDocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.core.items import Path

DEFAULT_RULES = ParseRules()
_MAY_MARK = re.compile(r"^[ ]{0,3}[#=\-`~]", re.MULTILINE)
"""The beginning of every line that the three below match: looked for in the whole text at once."""
_CONTENT = re.compile("[^\0 \t\r\n\x0c]")
_ATX = re.compile(r"[ ]{0,3}(#{1,6})(?:[ \t]+(.*))?$")
_SETEXT = re.compile(r"[ ]{0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})")
_MAX_PLAIN_HEADING_CHARS = 80
_PLAIN = re.compile(
    r"(?:(?:chapter|book|part|section|canto|act|scene|letter|lecture|essay)[ \t]+(?:the[ \t]+)?"
    r"(?:[0-9]{1,4}|[ivxlcdm]{1,12}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last)"
    r"|prologue|epilogue|preface|foreword|introduction|conclusion|afterword|appendix)"
    r"(?:[.:\u2013\u2014-].*|[ \t]+(?-i:[^a-z]).*)?$",
    re.IGNORECASE,
)


class _Lines:
    """The lines of a text, cut when they are asked for: as strings of their own they would take twenty times its size.

    Args:
        text: Its lines end with a line feed.

    Attributes:
        text: The same.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = array("I", [0])
        self._starts.extend(end.end() for end in re.finditer("\n", text))
        self._starts.append(len(text) + 1)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: int) -> str:
        return self.text[self._starts[at] : self._starts[at + 1] - 1]

    def beginning(self, pattern: re.Pattern[str], first: int) -> Iterator[int]:
        """Yield the lines, from ``first`` on, that begin with a pattern: ``^...``, ``re.MULTILINE``."""
        for found in pattern.finditer(self.text, self._starts[first]):
            yield bisect_left(self._starts, found.start())

    def between(self, begin: int, end: int) -> slice:
        """Return where in the text the lines from ``begin`` to before ``end`` are, without the last one's end."""
        return slice(self._starts[begin], max(self._starts[begin], self._starts[end] - 1))


class _Heading(NamedTuple):
    """A heading: its first line, the line after it, its level (1 the highest), and its words."""

    line: int
    after: int
    level: int
    words: str


class _Outline(NamedTuple):
    """A text's lines, and the headings that open its chapters; lines before ``start`` are no text."""

    lines: _Lines
    start: int
    headings: list[_Heading]
    title: _Heading | None


def parse_markdown(name: str, file: RawFile, rules: ParseRules = DEFAULT_RULES) -> OpenBook:
    """Return the chapters of a Markdown file.

    Raises:
        MalformedDocumentError: ``reason`` is ``not_unicode``, ``empty`` or ``too_many_headings``.
    """
    lines = _read_lines(file)
    start = _after_front_matter(lines)
    headings = _bounded(_markdown_headings(lines, start), file, rules)
    title = None
    if headings and sum(heading.level <= headings[0].level for heading in headings) == 1 < len(headings):
        title, *headings = headings
        start = title.after
    depth = _split_level(headings)
    chapters = [heading for heading in headings if heading.level <= depth]
    return _build_book(name, file, _Outline(lines, start, chapters, title), rules)


def parse_text(name: str, file: RawFile, rules: ParseRules = DEFAULT_RULES) -> OpenBook:
    """Return the chapters of a plain text.

    Raises:
        MalformedDocumentError: ``reason`` is ``not_unicode``, ``empty`` or ``too_many_headings``.
    """
    lines = _read_lines(file)
    return _build_book(
        name, file, _Outline(lines, 0, _bounded(_plain_headings(lines), file, rules), None), rules
    )


def _bounded(headings: Iterator[_Heading], file: RawFile, rules: ParseRules) -> list[_Heading]:
    """Return the headings.

    Raises:
        MalformedDocumentError: There are more than any book has.
    """
    limit = rules.limits.max_headings
    found = list(islice(headings, limit + 1))
    if len(found) > limit:
        message = f"{file.path}: it has over {limit:,} headings: split it."
        raise MalformedDocumentError(message, file=file.path, reason="too_many_headings")
    return found


def _read_lines(file: RawFile) -> _Lines:
    text = decode_text(file).removeprefix("\ufeff")
    if not _CONTENT.search(text):
        message = f"{file.path}: the file is empty; it may still be on its way."
        raise MalformedDocumentError(message, file=file.path, reason="empty")
    return _Lines(text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n\n"))


def _after_front_matter(lines: _Lines) -> int:
    """Return the line after a YAML block at the file's beginning; 0 where there is none."""
    if lines[0].rstrip() != "---":
        return 0
    return next((at + 1 for at in range(1, len(lines)) if lines[at].rstrip() in {"---", "..."}), 0)


def _markdown_headings(lines: _Lines, start: int) -> Iterator[_Heading]:
    fence = ""
    for at in lines.beginning(_MAY_MARK, start):
        line = lines[at]
        fence_match = _FENCE.match(line)
        if fence:
            closes = fence_match and fence_match[1].startswith(fence) and not line.strip().strip(fence[0])
            fence = "" if closes else fence
        elif fence_match:
            fence = fence_match[1]
        elif match := _ATX.match(line):
            yield _Heading(at, at + 1, len(match[1]), _without_tail(match[2] or ""))
        elif (match := _SETEXT.match(line)) and at > start and _is_one_line_paragraph(lines, at - 1, start):
            yield _Heading(at - 1, at + 1, 1 if match[1][0] == "=" else 2, lines[at - 1].strip())


def _is_one_line_paragraph(lines: _Lines, at: int, start: int) -> bool:
    """Say whether a line of words stands alone: then an underline makes it a heading."""
    words = lines[at].strip()
    is_words = bool(words) and not words.startswith(("#", ">", "- ", "* ", "|", "```", "~~~"))
    return is_words and not _SETEXT.match(lines[at]) and (at == start or not lines[at - 1].strip())


def _split_level(headings: list[_Heading]) -> int:
    """Return the first level with two headings; where none has, the deepest."""
    counts = Counter(heading.level for heading in headings)
    return min((level for level, count in counts.items() if count > 1), default=max(counts, default=0))


def _plain_headings(lines: _Lines) -> Iterator[_Heading]:
    for at in range(len(lines)):
        words = lines[at].strip()
        if len(words) > _MAX_PLAIN_HEADING_CHARS or not _PLAIN.match(words):
            continue
        stands_alone = (at == 0 or not lines[at - 1].strip()) and (
            at + 1 == len(lines) or not lines[at + 1].strip()
        )
        if stands_alone:
            yield _Heading(at, at + 1, 1, words)


def _without_tail(words: str) -> str:
    """Remove the closing ``##`` of an ATX heading."""
    body = words.strip()
    opened = body.rstrip("#")
    return opened.rstrip() if not opened or opened[-1] in " \t" else body


def _build_book(name: str, file: RawFile, outline: _Outline, rules: ParseRules) -> OpenBook:
    log = DefectLog(rules.limits.max_defects)
    reader = _LineReader(file.path, rules, log)
    title_line = outline.title
    title = reader.title(title_line.words, (title_line.line + 1,)) if title_line else None
    opening = _Heading(outline.start, outline.start, 0, "")
    headings = [opening, *outline.headings]
    ends = [*(heading.line for heading in outline.headings), len(outline.lines)]
    bodies = [outline.lines.between(heading.after, end) for heading, end in zip(headings, ends, strict=True)]
    chapters = _read_chapters(outline.lines.text, headings, bodies, reader)
    return OpenBook(name, title, chapters, (reader,), log)


def _read_chapters(
    text: str, headings: list[_Heading], bodies: list[slice], reader: ItemReader
) -> Iterator[OpenChapter]:
    """Cut a text at its headings; where its lines begin, which may take more room than it does, is not held on to.

    A heading that no text follows opens no chapter; it stands before the next one's in that one's title.
    """
    waiting: list[str] = []
    index = 0
    for heading, where in zip(headings, bodies, strict=True):
        if heading.words:
            waiting = [*waiting[-1:], heading.words]
        body = text[where]
        if not body or body.isspace():
            continue
        place = (heading.line + 1,)
        index = index + 1 if heading is not headings[0] else 0
        title = reader.title(" \u2014 ".join(waiting) or None, place)
        waiting = []
        if prose := reader.prose(body, place, clean_prose):
            yield OpenChapter(index, title, (BASE_DOMAIN,), iter(()), prose)


class _LineReader(ItemReader):
    """Reports places as ``line:<n>``, counted from 1."""

    def show_place(self, path: Path) -> str:
        """Return the line."""
        return f"line:{path[0]}"
