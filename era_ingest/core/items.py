"""The parts of a chapter as they come: statements, weights, domains, titles. Tolerant in, strict out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from era_ingest.core.defects import DefectLog, excerpt, pointer
from era_ingest.core.json_walk import JsonList, JsonObject
from era_ingest.core.limits import InputLimits
from era_ingest.core.model import Category, CleaningCounts, Entry
from era_ingest.core.names import BASE_DOMAIN, DomainNames
from era_ingest.core.text import NOTHING_CHANGED, clean_line
from era_ingest.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from era_ingest.core.text import Cleaned

MIN_WEIGHT = 1e-6
MAX_WEIGHT = 1e6
MAX_CHAPTER_INDEX = 2**31 - 1
_INDEX_DIGITS = len(str(MAX_CHAPTER_INDEX))
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ParseRules:
    """What the parsing of a book depends on, besides its bytes.

    Attributes:
        domains: Folds domains and resolves synonyms.
        limits: Bounds; what is over one is refused.
    """

    domains: DomainNames = field(default_factory=lambda: DomainNames({}))
    limits: InputLimits = field(default_factory=InputLimits)


class ItemReader:
    """Turns untrusted values of one file into typed ones; what it refuses stands in its log.

    Args:
        file: The path that defects name.
        rules: Domains and bounds.
        log: Where defects go; shared by the files of one book.
    """

    def __init__(self, file: str, rules: ParseRules, log: DefectLog) -> None:
        self.file = file
        self._rules = rules
        self._limits = rules.limits
        self._log = log
        log.begin(file)
        self.cleaning = NOTHING_CHANGED

    def refuse(self, path: Path, reason: str, detail: str, *found: object) -> None:
        """Note one defect of this file.

        Args:
            path: Where it stands.
            reason: A short stable code.
            detail: One sentence; ``{}`` in it stands for an excerpt of each value found.
            found: Those values.
        """
        if self._log.is_full:
            self._log.count()
            return
        shown = detail.format(*map(excerpt, found)) if found else detail
        self._log.add(self.file, self.show_place(path), reason, shown)

    def show_place(self, path: Path) -> str:
        """Return a place as defects name it: a JSON pointer."""
        return pointer(*path)

    def note_repeated_keys(self, value: object, path: Path) -> None:
        """Note what an object's repeated keys held before the last of them."""
        if isinstance(value, JsonObject):
            for key, refused in value.refused:
                detail = "The key stands twice; the last one counts. Refused: {}."
                self.refuse((*path, key), "duplicate_key", detail, refused)

    def index(self, value: object, path: Path) -> int | None:
        """Return a chapter's index, or None and a defect."""
        is_figures = isinstance(value, str) and value.strip().isdecimal() and len(value) <= _INDEX_DIGITS
        if is_figures or (isinstance(value, float) and value.is_integer()):
            value = int(value)  # type: ignore[call-overload]
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_CHAPTER_INDEX:
            return value
        detail = f"A chapter's index is a number from 0 to {MAX_CHAPTER_INDEX:,}; found {{}}."
        self.refuse(path, "bad_chapter_index", detail, value)
        return None

    def title(self, value: object, path: Path) -> str | None:
        """Return a title, or None; one that is no text or too long is a defect."""
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > self._limits.max_title_chars:
            detail = f"A title is a text of at most {self._limits.max_title_chars:,} characters; found {{}}."
            self.refuse(path, "bad_title", detail, value)
            return None
        return self._cleaned(clean_line, value) or None

    def prose(self, value: object, path: Path, clean: Callable[[str], Cleaned]) -> str:
        """Return a chapter's cleaned text, ``""`` where there is none or it is refused."""
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(path, "text_not_string", "A chapter's text is a string; found {}.", value)
            return ""
        if len(value) > self._limits.max_chapter_chars:
            self._refuse_length(value, path, self._limits.max_chapter_chars)
            return ""
        return self._cleaned(clean, value)

    def domains(self, value: object, path: Path) -> tuple[str, ...]:
        """Return a chapter's domains, sorted and unique; ``base`` where none is left."""
        if value is None:
            return (BASE_DOMAIN,)
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | JsonList):
            self.refuse(path, "domains_not_list", "Domains are a list of names; found {}.", value)
            return (BASE_DOMAIN,)
        limit = self._limits.max_domains
        first = list(islice(value, limit + 1))
        if len(first) > limit:
            detail = f"{len(value):,} domains in one chapter; those beyond {limit:,} are refused."
            self.refuse(path, "too_many_domains", detail)
        named = (self._domain(item, (*path, position)) for position, item in enumerate(first[:limit]))
        return tuple(sorted({domain for domain in named if domain})) or (BASE_DOMAIN,)

    def entries(self, category: Category, value: object, path: Path) -> Iterator[Entry]:
        """Yield the entries of one category's list; they may repeat."""
        if value is None:
            return
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | JsonList):
            detail = f"{category.plural.capitalize()} are a list; found {{}}."
            self.refuse(path, "category_not_list", detail, value)
            return
        limit = self._limits.max_entries
        for position, item in enumerate(value):
            if position == limit:
                detail = (
                    f"{len(value):,} {category.plural} in one chapter; those beyond {limit:,} are refused."
                )
                self.refuse(path, "too_many_entries", detail)
                return
            entry = self._entry(category, item, path, position)
            if entry is not None:
                yield entry

    def _entry(self, category: Category, item: object, path: Path, position: int) -> Entry | None:
        weight = 1.0
        statement = item
        if isinstance(item, dict):
            self.note_repeated_keys(item, (*path, position))
            statement = _first_text(item, ("text", "statement", "extraction", category.value, "generalized"))
            weight = self._weight(item.get("weight"), (*path, position, "weight"))
        if not isinstance(statement, str):
            detail = "An item is a text, or an object with a text in it; found {}."
            self.refuse((*path, position), "unknown_item_shape", detail, item)
            return None
        if len(statement) > self._limits.max_entry_chars:
            self._refuse_length(statement, (*path, position), self._limits.max_entry_chars)
            return None
        text = self._cleaned(clean_line, statement)
        if not text:
            self.refuse((*path, position), "empty_text", "Nothing is left after cleaning {}.", statement)
            return None
        return Entry(category, text, weight)

    def _weight(self, value: object, path: Path) -> float:
        """Return a weight; 1 and a defect where it is none."""
        if value is None:
            return 1.0
        number = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
        if MIN_WEIGHT <= number <= MAX_WEIGHT:
            return number
        detail = f"A weight is a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}; found {{}}, used 1."
        self.refuse(path, "bad_weight", detail, value)
        return 1.0

    def _domain(self, item: object, path: Path) -> str | None:
        if not isinstance(item, str) or _is_container_text(item):
            self.refuse(path, "domain_not_text", "A domain is a name; found {}.", item)
            return None
        try:
            return self._rules.domains.normalise(self._cleaned(clean_line, item))
        except InvalidNameError as error:
            self.refuse(path, f"domain_{error.reason}", error.message)
            return None

    def _cleaned(self, clean: Callable[[str], Cleaned], text: str) -> str:
        cleaned, counts = clean(text)
        if counts is not NOTHING_CHANGED:
            self.cleaning = self.cleaning + counts
        return cleaned

    def _refuse_length(self, text: str, path: Path, limit: int) -> None:
        detail = f"{len(text):,} characters, over {limit:,}; it begins {{}}."
        self.refuse(path, "text_too_long", detail, text[:60])


def sum_cleaning(readers: Iterable[ItemReader]) -> CleaningCounts:
    """Return what cleaning changed in all files of a book."""
    return sum((reader.cleaning for reader in readers), NOTHING_CHANGED)


def _first_text(item: dict[object, object], keys: Iterable[str]) -> str | None:
    """Return the first text under one of the keys, preferring one that is not blank."""
    texts = [text for key in keys if isinstance(text := item.get(key), str)]
    return next((text for text in texts if text.strip()), texts[0] if texts else None)


def _is_container_text(text: str) -> bool:
    """Say whether a text is an object or a list that was written as a string."""
    stripped = text.strip()
    return (stripped[:1], stripped[-1:]) in {("{", "}"), ("[", "]")}
