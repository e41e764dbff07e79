"""Cleaning: what every text goes through before it gets an identity.

Removed: NUL, lone surrogates, control characters, and format characters that show nothing (soft hyphen,
zero-width space, byte order mark, marks of writing direction). Then NFC, then white space is folded. Cleaning
twice changes nothing, and takes time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

from era_ingest.core.model import CleaningCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING_CHANGED = CleaningCounts()
MAX_MARKS_IN_A_ROW = 30
"""Combining marks that may follow one another (UAX #15, Stream-Safe Text Format); more are no writing.

It is also what keeps NFC linear: CPython sorts a run of marks by insertion.
"""

_UNWANTED = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls that are no white space
    "\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"  # show nothing
    "\ufdd0-\ufdef\ufffe\uffff"  # no characters (Unicode 23.7)
    "\ud800-\udfff]+"  # halves of a pair
)
_PIECE_CHARS = 65_536
_SURROGATES = re.compile("[\ud800-\udfff]+")
_MAYBE_MARKS = re.compile(rf"[^\w\s\x00-\u02ff]{{{MAX_MARKS_IN_A_ROW + 1},}}")
_LINE_END = re.compile("\r\n?|[\x0b\x85\u2028]")
_PAGE_END = re.compile("[\x0c\x1c-\x1f\u2029]")
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")


class Cleaned(NamedTuple):
    """A cleaned text, ``""`` if nothing is left, and what cleaning changed in it."""

    text: str
    counts: CleaningCounts


def clean_line(text: str) -> Cleaned:
    """Return a text as one line: entries, titles, domains. All white space is folded to single spaces."""
    visible, counts = _remove_unwanted(text)
    return Cleaned(_fold_space(visible), counts)


def clean_prose(text: str) -> Cleaned:
    r"""Return a chapter's text as paragraphs with ``\n\n`` between them.

    Blank lines and page ends part paragraphs; within one, all white space is folded to single spaces.
    """
    visible, counts = _remove_unwanted(text)
    lines = _PAGE_END.sub("\n\n", _LINE_END.sub("\n", visible))
    cleaned = StringIO()  # a list of the paragraphs would take eight bytes and more for each
    for paragraph in _paragraphs(lines):
        if folded := _fold_space(paragraph):
            cleaned.write("\n\n" if cleaned.tell() else "")
            cleaned.write(folded)
    return Cleaned(cleaned.getvalue(), counts)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield what stands between blank lines, one at a time: together they would be the text again."""
    begin = 0
    for blank in _BLANK_LINES.finditer(text):
        yield text[begin : blank.start()]
        begin = blank.end()
    yield text[begin:] if begin else text


def _remove_unwanted(text: str) -> Cleaned:
    """Remove what carries no text and compose the rest; white space stays as it is."""
    if text.isascii() and text.isprintable():
        return Cleaned(text, NOTHING_CHANGED)
    nul = surrogates = controls = normalised = 0
    result = _UNWANTED.sub("", text)
    if len(result) != len(text):
        nul = text.count("\0")
        surrogates = sum(map(len, _SURROGATES.findall(text)))
        controls = len(text) - len(result) - nul - surrogates
    if not result.isascii() and not unicodedata.is_normalized("NFC", result):
        bounded = _MAYBE_MARKS.sub(_bound_marks, result)
        controls += len(result) - len(bounded)
        result = unicodedata.normalize("NFC", bounded)
        normalised = max(1, abs(len(bounded) - len(result)))
    if not (nul or surrogates or controls or normalised):
        return Cleaned(result, NOTHING_CHANGED)
    return Cleaned(result, CleaningCounts(nul, surrogates, controls, normalised, texts_changed=1))


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
