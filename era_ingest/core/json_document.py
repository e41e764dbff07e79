"""Bytes to a JSON value, or an error that says what is wrong where."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from era_ingest.core.json_walk import MAX_MEMBERS, TooManyMembersError, read_value, skip_value
from era_ingest.core.limits import InputLimits
from era_ingest.errors import MalformedDocumentError

DEFAULT_LIMITS = InputLimits()
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_CUT = frozenset({"unexpected end of data", "truncated data"})
_LEADS_BEYOND_16_BITS = tuple(bytes([lead]) for lead in range(0xF0, 0xF5))
_LEADS_BEYOND_8_BITS = bytes(range(0xC4, 0xF5))
_BEYOND_8_BITS = re.compile(
    rb"(?<!\\)(?:[\xc4-\xdf]|(?:\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f])"
    rb"|(?:\xf0[\x90-\xbf]|[\xf1-\xf3][\x80-\xbf]|\xf4[\x80-\x8f])[\x80-\xbf])[\x80-\xbf]"
)
"""A character of UTF-8 beyond U+00FF, but for halves of pairs."""
_BYTES_AN_ESCAPED = 16
"""With more characters to escape, the escapes would take what they save."""
_PIECE_BYTES = 1 << 20
_LONGEST_ESCAPE = len("\\uXXXX")
_SPACE = " \t\n\r"
_CONTENT = re.compile(r"[^ \t\n\r\0]")
_BEGIN = re.compile(r"[^ \t\n\r]|\Z")
WALKED_LEVELS = 4
"""The document, its chapters, a chapter, a list in it: what lies deeper is small."""


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file's bytes, and the path that errors and defects name."""

    path: str
    data: bytes


def parse_json(file: RawFile, limits: InputLimits = DEFAULT_LIMITS) -> object:
    """Return the one JSON value that a file holds, valid to its end; its outer lists as ``json_walk.JsonList``.

    Accepted beyond RFC 8259: a byte order mark, UTF-16 and UTF-32, ``NaN`` and ``Infinity``, lone surrogates.
    Of equal keys the last one counts, as everywhere; ``json_walk.JsonObject`` keeps the others.

    Raises:
        MalformedDocumentError: ``reason`` is ``empty``, ``not_unicode``, ``not_json``, ``truncated``,
            ``trailing_data``, ``too_deep`` or ``too_many_values``.
    """
    narrow = _narrow(file.data)
    if narrow is not None:
        try:
            return _parse_text(RawFile(file.path, narrow), limits)
        except MalformedDocumentError:
            del narrow  # the file itself is read again, for the places that the error names
    return _parse_text(file, limits)


def _narrow(data: bytes) -> bytes | None:
    """Return UTF-8 with JSON's escapes for what makes Python take more than a byte a character.

    One character beyond U+FFFF makes it four bytes for each character of the document, before any of it is read.

    Returns:
        The same document; None where there is no such character, or where escapes would be too many.
    """
    if not any(lead in data for lead in _LEADS_BEYOND_16_BITS) or json.detect_encoding(data) != "utf-8":
        return None
    escaped = len(data) - len(data.translate(None, _LEADS_BEYOND_8_BITS))
    if escaped * _BYTES_AN_ESCAPED > len(data):
        return None
    narrow = bytearray()
    begin = 0
    while begin < len(data):  # in pieces: each escape is an object for a moment
        end = data.find(b" ", begin + _PIECE_BYTES) + 1 or len(data)
        narrow += _BEYOND_8_BITS.sub(_escape, data[begin:end])
        begin = end
    return bytes(narrow)


def _parse_text(file: RawFile, limits: InputLimits) -> object:
    text = decode_text(file, detect_json=True)
    if not _CONTENT.search(text):
        _refuse(file, "empty", "The file is empty; it may still be on its way.")
    values = sum(text.count(mark) for mark in ("[", "{", '":', '" :'))
    if values > limits.max_values:
        _refuse(
            file,
            "too_many_values",
            f"It holds some {values:,} lists, objects and members, over {limits.max_values:,}: split it.",
        )
    begin = _start_of(_BEGIN.search(text))
    try:
        end = skip_value(text, begin, WALKED_LEVELS)
    except json.JSONDecodeError as error:
        _refuse_syntax(file, text, error)
    except RecursionError:
        _refuse(file, "too_deep", "It is nested deeper than any book is.")
    except TooManyMembersError:
        _refuse(file, "too_many_values", f"An object in it has over {MAX_MEMBERS:,} members: it is no book.")
    except ValueError as error:
        _refuse(file, "not_json", f"It cannot be read as JSON: {str(error)[:120]}.")
    if _start_of(_BEGIN.search(text, end)) < len(text):
        _refuse(
            file,
            "trailing_data",
            f"There is data after the end of the JSON, at {_place(text, end)}: keep one document a file.",
        )
    return read_value(text, begin, WALKED_LEVELS)


def _escape(match: re.Match[bytes]) -> bytes:
    """Return a character as JSON writes it in ASCII: two escapes."""
    return json.dumps(match.group().decode()).strip('"').encode()


def decode_text(file: RawFile, *, detect_json: bool = False) -> str:
    """Return a file's text: UTF-8, or UTF-16 or UTF-32 where a byte order mark says so.

    Args:
        file: The file.
        detect_json: Recognise UTF-16 and UTF-32 without a mark too, by the NULs among the first four bytes.

    Raises:
        MalformedDocumentError: ``reason`` is ``truncated`` (the last character is cut) or ``not_unicode``; it
            names the first byte that does not fit.
    """
    encoding = json.detect_encoding(file.data) if detect_json or _has_mark(file.data) else "utf-8"
    try:
        return file.data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        if error.end == len(file.data) and error.reason in _CUT:
            _refuse(file, "truncated", "It ends inside a character: it was cut, or is still being written.")
        _refuse(
            file,
            "not_unicode",
            f"It is no {encoding.upper()} text: byte {error.start:,} does not fit. Save the file as UTF-8.",
        )


def _has_mark(data: bytes) -> bool:
    return data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"))


def _refuse_syntax(file: RawFile, text: str, error: json.JSONDecodeError) -> NoReturn:
    """Say whether the text only ends too early, or is wrong in the middle."""
    rest = text[error.pos : error.pos + _LONGEST_ESCAPE + 4].rstrip(_SPACE)
    at_end = (
        not text[error.pos : error.pos + 1_000].strip(_SPACE)
        or error.msg.startswith("Unterminated string")
        or ("escape" in error.msg and error.pos + _LONGEST_ESCAPE > len(text))
        or (rest != "" and any(literal.startswith(rest) for literal in _LITERALS))
        or not rest.strip("+-.eE")  # within a number
    )
    if at_end:
        _refuse(
            file,
            "truncated",
            f"The JSON ends too early, at {_place(text, len(text))}: it was cut, or is still being written.",
        )
    _refuse(file, "not_json", f"It is no JSON: {error.msg} at {_place(text, error.pos)}.")


def _start_of(match: re.Match[str] | None) -> int:
    assert match is not None
    return match.start()


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"line {line:,}, column {column:,}"


def _refuse(file: RawFile, reason: str, message: str) -> NoReturn:
    raise MalformedDocumentError(f"{file.path}: {message}", file=file.path, reason=reason) from None
