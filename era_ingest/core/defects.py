"""What was refused, with its place: collected while a book is parsed."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from era_ingest.core.json_walk import JsonList
from era_ingest.core.model import Defect

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_EXCERPT_CHARS = 120
_MAX_DEPTH = 3
_MAX_MEMBERS = 6
_SHOWN_INT_BITS = 128


def excerpt(value: object) -> str:
    """Return a value as a person may see it: printable, at most 120 characters, however large or deep."""
    shown = _sketch(value, _MAX_DEPTH)
    return shown if len(shown) <= MAX_EXCERPT_CHARS else shown[: MAX_EXCERPT_CHARS - 1] + "…"


def _sketch(value: object, depth: int) -> str:
    """Show the beginning of a value; containers no deeper than ``depth``."""
    if isinstance(value, str):
        return repr(value[:MAX_EXCERPT_CHARS])
    if isinstance(value, dict | list | JsonList) and not depth:
        return "…"
    if isinstance(value, dict):
        members = (f"{_sketch(key, 0)}: {_sketch(member, depth - 1)}" for key, member in value.items())
        return f"{{{_first(members, len(value))}}}"
    if isinstance(value, list | JsonList):
        return f"[{_first((_sketch(member, depth - 1) for member in value), len(value))}]"
    small = isinstance(value, float | None) or (
        isinstance(value, int) and value.bit_length() <= _SHOWN_INT_BITS
    )
    return repr(value) if small else f"<{type(value).__name__}>"


def _first(members: Iterable[str], count: int) -> str:
    return ", ".join(islice(members, _MAX_MEMBERS)) + (", …" if count > _MAX_MEMBERS else "")


def pointer(*path: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a path of keys and positions.

    Keys that the file chose are cut after 120 characters.
    """
    tokens = (str(part)[:MAX_EXCERPT_CHARS].replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{token}" for token in tokens)


class DefectLog:
    """Collects the defects of one book, file by file in the order they are found.

    Args:
        max_defects: How many it lists before it `is_full`; one more then says how many there were beyond.
    """

    def __init__(self, max_defects: int) -> None:
        self._max_defects = max_defects
        self._defects: list[Defect] = []
        self._ranks: dict[str, int] = {}
        self._beyond = 0

    @property
    def is_full(self) -> bool:
        """Whether further defects are only counted: then no detail is worth its time."""
        return len(self._defects) >= self._max_defects

    def begin(self, file: str) -> None:
        """Say that a file is next; its defects are listed after those of the files before."""
        self._ranks.setdefault(file, len(self._ranks))

    def add(self, file: str, place: str, reason: str, detail: str) -> None:
        """Note one defect.

        Args:
            file: The file's path.
            place: JSON pointer, or what stands for one (``line:7``).
            reason: A short stable code.
            detail: One sentence; bounded by the caller, with `excerpt` for what was found.
        """
        self._defects.append(Defect(file, place, reason, detail))

    def count(self) -> None:
        """Note one defect that is not listed."""
        self._beyond += 1

    def listing(self) -> tuple[Defect, ...]:
        """Return what was noted."""
        listed = sorted(self._defects, key=lambda defect: self._ranks[defect.file])
        if not self._beyond:
            return tuple(listed)
        detail = f"{self._beyond:,} more defects of this book are not listed; mend the first ones."
        return (*listed, Defect(listed[-1].file, "", "too_many_defects", detail))
