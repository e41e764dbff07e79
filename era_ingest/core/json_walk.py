"""JSON lists that are read an element at a time: a document's memory is that of its text, not of its objects.

Python takes a hundred bytes for what can be three in the file, so a document is never decoded whole. Its outer levels
are walked here; what they hold is decoded by the standard library's C scanner when it is asked for, and forgotten.

The standard library's scanner is used on purpose: faster ones keep the last of two equal keys without a word, and
refuse lone surrogates and NaN, which real files hold and cleaning mends.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C function, undocumented, stable since 2.6
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXACT_DIGITS = 18
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*").match
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*").match
_OPENED = re.compile(r"[\[{][ \t\n\r]*").match
_LIST_END = re.compile(r"[ \t\n\r]*\]").match
_OBJECT_END = re.compile(r"[ \t\n\r]*\}").match
MAX_MEMBERS = 65_536
_EMPTY = frozenset({"[]", "{}"})


class TooManyMembersError(ValueError):
    """An object with so many members is no part of a book."""


class JsonObject(dict[str, Any]):
    """A JSON object with repeated keys; one without is a plain dict.

    Attributes:
        refused: Key and value of each member that a later one of the same name replaced.
    """

    refused: tuple[tuple[str, Any], ...] = ()


class JsonList:
    """A list within a valid JSON text; iterating decodes its elements one by one, every time anew.

    Args:
        text: The text, which `skip_value` has found valid here.
        begin: Where the list's bracket stands.
        depth: Levels of lists and objects, this one counted, that are walked rather than decoded, >= 1.
    """

    __slots__ = ("_begin", "_depth", "_text")

    def __init__(self, text: str, begin: int, depth: int) -> None:
        self._text = text
        self._begin = begin
        self._depth = depth

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self.places())

    def __len__(self) -> int:
        """Number of elements; counted each time."""
        return sum(1 for _ in self.places())

    def places(self) -> Iterator[tuple[int, Any]]:
        """Yield each element with the place where it stands, for `at`."""
        text, inner = self._text, self._depth - 1
        if _LIST_END(text, self._begin + 1) is not None:
            return
        place = _after(_OPENED(text, self._begin))
        while True:
            value, end = _read(text, place, inner) if inner else _scan_once(text, place)
            yield place, value
            comma = _COMMA(text, end)
            if comma is None:
                return
            place = comma.end()

    def at(self, place: int) -> Any:
        """Return the element that stands at a place."""
        return _read(self._text, place, self._depth - 1)[0]


def skip_value(text: str, place: int, depth: int) -> int:
    """Return where the value at a place ends.

    Args:
        text: JSON.
        place: Where the value begins.
        depth: Levels of lists and objects that are walked; what lies deeper is decoded, each value by itself.

    Raises:
        json.JSONDecodeError: It is no JSON.
        TooManyMembersError: A walked object has more than ``MAX_MEMBERS``.
        RecursionError: It is nested too deeply.
        ValueError: A number cannot be.
    """
    first = text[place : place + 1]
    if not depth or first not in {"[", "{"}:
        return _scan(text, place)[1]
    is_object = first == "{"
    closed = _OBJECT_END if is_object else _LIST_END
    end = closed(text, place + 1)
    if end is not None:
        return end.end()
    place = _after(_OPENED(text, place))
    members = 0
    while True:
        if is_object:
            members += 1
            if members > MAX_MEMBERS:
                raise TooManyMembersError
            place = _read_key(text, place)[1]
        place = place + 2 if text[place : place + 2] in _EMPTY else skip_value(text, place, depth - 1)
        comma = _COMMA(text, place)
        if comma is not None:
            place = comma.end()
            continue
        end = closed(text, place)
        if end is None:
            raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
        return end.end()


def read_value(text: str, place: int, depth: int) -> Any:
    """Return the value at a place of a valid text; its lists within ``depth`` levels as `JsonList`."""
    return _read(text, place, depth)[0]


def _read(text: str, place: int, depth: int) -> tuple[Any, int]:
    """Return the value at a place, and where it ends."""
    if not depth:
        return _scan(text, place)
    first = text[place]
    if first == "[":
        return JsonList(text, place, depth), skip_value(text, place, depth)
    if first != "{":
        return _scan(text, place)
    if text[place + 1] == "}":
        return {}, place + 2
    end = _OBJECT_END(text, place + 1)
    if end is not None:
        return {}, end.end()
    place = _after(_OPENED(text, place))
    pairs: list[tuple[str, Any]] = []
    while True:
        key, place = _read_key(text, place)
        value, place = _read(text, place, depth - 1)
        pairs.append((key, value))
        comma = _COMMA(text, place)
        if comma is None:
            return _build_object(pairs), _after(_OBJECT_END(text, place))
        place = comma.end()


def _read_key(text: str, place: int) -> tuple[str, int]:
    """Return a member's key, and where its value begins."""
    if text[place : place + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, place)
    key, place = scanstring(text, place + 1, True)
    colon = _COLON(text, place)
    if colon is None:
        raise json.JSONDecodeError("Expecting ':' delimiter", text, place)
    return key, colon.end()


def _scan(text: str, place: int) -> tuple[Any, int]:
    """Decode the value at a place; return it, and where it ends."""
    try:
        value: tuple[Any, int] = _scan_once(text, place)
    except StopIteration as stop:
        raise json.JSONDecodeError("Expecting value", text, stop.value) from None
    return value


def _after(match: re.Match[str] | None) -> int:
    assert match is not None
    return match.end()


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) == len(pairs):
        return built
    last = {key: position for position, (key, _) in enumerate(pairs)}
    repeated = JsonObject(built)
    repeated.refused = tuple(pair for position, pair in enumerate(pairs) if last[pair[0]] != position)
    return repeated


def _parse_int(digits: str) -> int | float:
    """Return an int; a float beyond 18 digits: converting thousands of digits takes quadratic time."""
    return int(digits) if len(digits) <= _EXACT_DIGITS else float(digits)


_scan_once = json.JSONDecoder(object_pairs_hook=_build_object, parse_int=_parse_int).scan_once  # type: ignore[attr-defined]
