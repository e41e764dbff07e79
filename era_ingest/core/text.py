"""Cleaning: what every text goes through before it gets an identity.

Removed: NUL, lone surrogates, control characters, and format characters that show nothing (soft hyphen,
zero-width space, byte order mark, marks of writing direction). Then NFC, then white space is folded. Cleaning
twice changes nothing, and takes time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from era_ingest.core.model import CleaningCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING_CHANGED = CleaningCounts()
MAX_MARKS_IN_A_ROW = 30
"""Combining marks that may follow one another (UAX #15, Stream-Safe Text Format); more are no writing.

It is also what keeps NFC linear: CPython sorts a run of marks by insertion.
"""

_UNWANTED_CHARACTERS = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls that are no white space
    "\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"  # show nothing
    "\ufdd0-\ufdef\ufffe\uffff"  # no characters (Unicode 23.7)
    "\ud800-\udfff"  # halves of a pair
)
_UNWANTED = re.compile(f"[{_UNWANTED_CHARACTERS}]+")
_UNREMARKABLE = bytes(code for code in range(128) if not _UNWANTED.match(chr(code)))
_PIECE_CHARS = 65_536
_SURROGATES = re.compile("[\ud800-\udfff]+")
_MAYBE_MARKS = re.compile(rf"[^\w\s\x00-\u02ff]{{{MAX_MARKS_IN_A_ROW + 1},}}")
_LINE_ENDS, _PAGE_ENDS = "\r\n\x0b\x85\u2028", "\x0c\x1c-\x1f\u2029"
_SECOND_HALF = rf"(?:(?<=\r)[{_UNWANTED_CHARACTERS}]*+\n)?+"
_BLANK = rf"(?:[^\S{_LINE_ENDS}]|[{_UNWANTED_CHARACTERS}])*"
_PARAGRAPH_END = re.compile(
    rf"[{_LINE_ENDS}{_PAGE_ENDS}](?:(?<=[{_PAGE_ENDS}])|{_SECOND_HALF}{_BLANK}[{_LINE_ENDS}])[\s{_UNWANTED_CHARACTERS}]*"
)
"""A page end, or two line ends with nothing to see between them; begins with one set, which is found quickly."""


class Cleaned(NamedTuple):
    """A cleaned text, ``""`` if nothing is left, and what cleaning changed in it."""

    text: str
    counts: CleaningCounts


def clean_line(text: str) -> Cleaned:
    """Return a text as one line: entries, titles, domains. All white space is folded to single spaces."""
    if text.isascii() and text.isprintable():
        return Cleaned(_fold_space(text), NOTHING_CHANGED)
    tally = _Tally(text)
    return Cleaned(_fold_space(tally.compose(text)), tally.counts())


def clean_prose(text: str) -> Cleaned:
    r"""Return a chapter's text as paragraphs with ``\n\n`` between them.

    Blank lines and page ends part paragraphs; within one, all white space is folded to single spaces. Worked on piece
    by piece, and a clean text is returned as it is: one wide character makes every copy of a text four times as large.
    """
    tally = _Tally(text)
    if not tally.has_unwanted and _is_clean(text):
        return Cleaned(text, NOTHING_CHANGED)
    blocks: list[str] = []
    block: list[str] = []
    chars = 0
    for separator, piece in _pieces(text):
        visible = piece if tally.is_plain else tally.compose(piece)
        folded = " ".join(visible.split()) if len(visible) <= _PIECE_CHARS else _fold_space(visible)
        if folded:
            if chars or blocks:
                block.append(separator)
            block.append(folded)
            chars += len(folded)
            if chars > _PIECE_CHARS:
                blocks.append("".join(block))
                block, chars = [], 0
    blocks.append("".join(block))
    return Cleaned("".join(blocks), tally.counts())


def _is_clean(text: str) -> bool:
    """Say whether cleaning would change nothing in a text without unwanted characters; looks up to the first change."""
    if text[:1].isspace() or text[-1:].isspace():
        return False
    end = 0
    for separator, piece in _pieces(text):
        begin = end + len(separator) if end else 0
        end = begin + len(piece)
        if (
            not piece
            or text[begin:end] != piece
            or (begin and text[begin - len(separator) : begin] != separator)
        ):
            return False
        if _fold_space(piece) != piece or not unicodedata.is_normalized("NFC", piece):
            return False
    return end == len(text)


def _has_unwanted(text: str) -> bool:
    """Say whether a text holds unwanted characters; ASCII is looked through twenty times as fast as by the pattern."""
    if not text.isascii():
        return _UNWANTED.search(text) is not None
    pieces = (text[begin : begin + _PIECE_CHARS] for begin in range(0, len(text), _PIECE_CHARS))
    return any(piece.encode("ascii").translate(None, _UNREMARKABLE) for piece in pieces)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield what stands between blank lines, long ones in pieces; each with what parts it from the last one."""
    begin = 0
    for parting in _PARAGRAPH_END.finditer(text):
        end = parting.start()
        if end - begin > _PIECE_CHARS:
            yield from _cut(text, begin, end)
        elif end > begin:
            yield "\n\n", text[begin:end]
        begin = parting.end()
    yield from _cut(text, begin, len(text))


def _cut(text: str, begin: int, end: int) -> Iterator[tuple[str, str]]:
    """Yield a paragraph in pieces that end at a space; no mark composes with a space."""
    separator = "\n\n"
    while begin < end:
        space = text.find(" ", begin + _PIECE_CHARS, end)
        stop = end if space < 0 else space
        yield separator, text[begin:stop]
        begin, separator = stop + 1, " "


class _Tally:
    """What cleaning changes in a text, which may be composed in parts.

    Args:
        text: The whole.

    Attributes:
        has_unwanted: There is something to remove.
        is_plain: There is nothing to remove and nothing to compose.
    """

    def __init__(self, text: str) -> None:
        self._nul = self._surrogates = self._controls = self._normalised = 0
        self._is_ascii = text.isascii()
        self.has_unwanted = _has_unwanted(text)
        self.is_plain = self._is_ascii and not self.has_unwanted
        if self.has_unwanted:
            self._nul = text.count("\0")
            self._surrogates = sum(len(found[0]) for found in _SURROGATES.finditer(text))
            unwanted = sum(len(found[0]) for found in _UNWANTED.finditer(text))
            self._controls = unwanted - self._nul - self._surrogates

    def compose(self, part: str) -> str:
        """Return a part without what carries no text, composed; white space stays as it is."""
        result = _UNWANTED.sub("", part) if self.has_unwanted else part
        if self._is_ascii or unicodedata.is_normalized("NFC", result):
            return result
        bounded = _MAYBE_MARKS.sub(_bound_marks, result)
        self._controls += len(result) - len(bounded)
        composed = unicodedata.normalize("NFC", bounded)
        self._normalised += max(1, abs(len(bounded) - len(composed)))
        return composed

    def counts(self) -> CleaningCounts:
        """Return what was changed so far."""
        if not (self._nul or self._surrogates or self._controls or self._normalised):
            return NOTHING_CHANGED
        return CleaningCounts(self._nul, self._surrogates, self._controls, self._normalised, texts_changed=1)


def _fold_space(text: str) -> str:
    """Return a text with single spaces, none at its ends.

    Piece by piece: the words of a whole book as objects would take ten times the book's memory.
    """
    if len(text) <= _PIECE_CHARS:
        return " ".join(text.split())
    folded: list[str] = []
    space = False
    for begin in range(0, len(text), _PIECE_CHARS):
        piece = text[begin : begin + _PIECE_CHARS]
        words = " ".join(piece.split())
        if words:
            if folded and (space or piece[0].isspace()):
                folded.append(" ")
            folded.append(words)
            space = piece[-1].isspace()
        else:
            space = True
    return "".join(folded)


def _bound_marks(match: re.Match[str]) -> str:
    """Cut each run of combining marks after the thirtieth."""
    kept: list[str] = []
    run = 0
    for character in match.group():
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= MAX_MARKS_IN_A_ROW:
            kept.append(character)
    return "".join(kept)
