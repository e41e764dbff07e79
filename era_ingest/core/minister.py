"""Minister files: what a reader of one domain loads. Pure: rows in, the bytes of the files out, piece by piece.

The same rows give the same bytes; times come from the data. Keys stand in the order that the contract names them
in; further keys follow, which readers of the older files do not ask for. Entries pass through: what is kept of them
are counts and the chapters that they come from, so that a domain may have more of them than the memory holds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson

from era_ingest.core.model import DOCTRINE_CATEGORIES, Category

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

DOCTRINE_FILE = "doctrine.json"
CATEGORY_FILES = tuple(f"{category.plural}.json" for category in DOCTRINE_CATEGORIES)
DOMAIN_FILES = (*CATEGORY_FILES, DOCTRINE_FILE)
"""Every file of a domain's folder, in the order in which they are to be put into place: the summary last."""
COMBINED_FILE = "combined_vector.index"
_ENTRY_START = b"\n    "
_END = b"\n}\n"

Origin: TypeAlias = tuple[str, int]
"""Where an entry comes from: book and chapter."""
Pieces: TypeAlias = "Mapping[str, bytes]"
"""Bytes to append, by the file's name."""


class MinisterEntry(NamedTuple):
    """One doctrine entry of a domain.

    Attributes:
        id: The chunk's id, a UUID as text.
        text: Its statement.
        book: The book's name.
        chapter: The chapter's index.
        category: One of the four doctrine categories.
        weight: Finite, > 0.
        embedding_id: Id of its row in ``doctrine_embeddings_all``; None where the embedder refused the text.
    """

    id: str
    text: str
    book: str
    chapter: int
    category: Category
    weight: float
    embedding_id: str | None


@dataclass(frozen=True, slots=True)
class DomainStatistics:
    """Counts of one domain, for the combined index.

    Attributes:
        total_entries: Doctrine entries.
        principles: Entries of this category; the others likewise.
        rules: As above.
        claims: As above.
        warnings: As above.
        embedded_entries: Entries with a vector.
        total_books: Books that they come from.
        total_chapters: Chapters that they come from.
        last_updated: When a source last changed the domain, ``YYYY-MM-DDTHH:MM:SSZ``; None if unknown.
    """

    total_entries: int
    principles: int
    rules: int
    claims: int
    warnings: int
    embedded_entries: int
    total_books: int
    total_chapters: int
    last_updated: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in the combined index."""
        return asdict(self)


class DomainEncoder:
    """Encodes every file of one domain: one a category, and the summary that holds all four lists.

    Args:
        domain: The domain's name.
        last_updated: When a source last changed the domain's doctrine.
    """

    def __init__(self, domain: str, *, last_updated: datetime | None) -> None:
        self._domain = domain
        self._stamp = format_time(last_updated)
        self._counts = dict.fromkeys(DOCTRINE_CATEGORIES, 0)
        self._origins: dict[Category, set[Origin]] = {category: set() for category in DOCTRINE_CATEGORIES}
        self._embedded = 0
        self._open = -1

    def add(self, entries: Sequence[MinisterEntry]) -> Pieces:
        """Return what the next entries append to the files.

        Args:
            entries: Sorted, over all calls, by category (as in ``DOCTRINE_CATEGORIES``), book, chapter, text (by
                code points) and id.

        Raises:
            ValueError: A category comes after a later one.
        """
        pieces = _PiecesBuilder()
        for category, group in groupby(entries, key=_category_of):
            self._open_list(DOCTRINE_CATEGORIES.index(category), pieces)
            chosen = list(group)
            shown = b",".join([_ENTRY_START + _encode_entry(entry) for entry in chosen])
            separator = b"," if self._counts[category] else b""
            pieces.append(_file_of(category), separator + shown)
            pieces.append(DOCTRINE_FILE, separator + shown)
            self._counts[category] += len(chosen)
            self._origins[category].update((entry.book, entry.chapter) for entry in chosen)
            self._embedded += sum(entry.embedding_id is not None for entry in chosen)
        return pieces.take()

    def finish(self) -> Pieces:
        """Return what ends the files; nothing for a domain without entries, which has none."""
        pieces = _PiecesBuilder()
        if any(self._counts.values()):
            self._open_list(len(DOCTRINE_CATEGORIES), pieces)
        return pieces.take()

    @property
    def statistics(self) -> DomainStatistics:
        """The counts of what was encoded so far."""
        origins = self._all_origins()
        return DomainStatistics(
            total_entries=sum(self._counts.values()),
            principles=self._counts[Category.PRINCIPLE],
            rules=self._counts[Category.RULE],
            claims=self._counts[Category.CLAIM],
            warnings=self._counts[Category.WARNING],
            embedded_entries=self._embedded,
            total_books=len({book for book, _ in origins}),
            total_chapters=len(origins),
            last_updated=self._stamp,
        )

    def _open_list(self, position: int, pieces: _PiecesBuilder) -> None:
        """End the lists before a position, and begin those up to it; the position after the last ends all."""
        if position < self._open:
            raise ValueError(
                f"{DOCTRINE_CATEGORIES[position]} comes after {DOCTRINE_CATEGORIES[self._open]}."
            )
        while self._open < position:
            if self._open >= 0:
                self._end_list(DOCTRINE_CATEGORIES[self._open], pieces)
            else:
                pieces.append(DOCTRINE_FILE, b"{" + _field("domain", self._domain, first=True))
            self._open += 1
            if self._open < len(DOCTRINE_CATEGORIES):
                self._begin_list(DOCTRINE_CATEGORIES[self._open], pieces)
            else:
                self._end_summary(pieces)

    def _begin_list(self, category: Category, pieces: _PiecesBuilder) -> None:
        head = (_field("domain", self._domain, first=True), _field("category", category.plural))
        pieces.append(_file_of(category), b"".join((b"{", *head, _list_start("entries"))))
        pieces.append(DOCTRINE_FILE, _list_start(category.plural))

    def _end_list(self, category: Category, pieces: _PiecesBuilder) -> None:
        meta = {
            "total_entries": self._counts[category],
            "last_updated": self._stamp,
            "aggregated_from": _show_origins(self._origins[category]),
        }
        end = b"\n  ]" if self._counts[category] else b"]"
        pieces.append(_file_of(category), end + _field("meta", meta) + _END)
        pieces.append(DOCTRINE_FILE, end)

    def _end_summary(self, pieces: _PiecesBuilder) -> None:
        origins = _field("aggregated_from", _show_origins(self._all_origins()))
        pieces.append(DOCTRINE_FILE, origins + _field("meta", self.statistics.to_dict()) + _END)

    def _all_origins(self) -> set[Origin]:
        return set().union(*self._origins.values())


def build_combined(
    statistics: Mapping[str, DomainStatistics], *, model: str | None, dimensions: int | None
) -> bytes:
    """Build the combined index: which domains there are, and their counts.

    Args:
        statistics: By domain; domains without entries are left out.
        model: Identity of the model behind ``doctrine_embeddings_all``.
        dimensions: Size of its vectors.
    """
    present = {name: statistics[name] for name in sorted(statistics) if statistics[name].total_entries}
    stamps = [item.last_updated for item in present.values() if item.last_updated]
    return _encode(
        {
            "domain": "all",
            "combined": True,
            "domains_included": list(present),
            "domain_statistics": {name: item.to_dict() for name, item in present.items()},
            "metadata": {
                "total_domains": len(present),
                "total_entries": sum(item.total_entries for item in present.values()),
                "entries_belong_to_several_domains": True,
                "last_updated": max(stamps, default=None),
                "model": model,
                "dimensions": dimensions,
            },
        }
    )


def format_time(moment: datetime | None) -> str | None:
    """Return a time in UTC as ISO 8601 with seconds and ``Z``; fractions are cut."""
    if moment is None:
        return None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _PiecesBuilder:
    """Collects what is appended to each file."""

    def __init__(self) -> None:
        self._parts: dict[str, list[bytes]] = {}

    def append(self, name: str, piece: bytes) -> None:
        self._parts.setdefault(name, []).append(piece)

    def take(self) -> Pieces:
        return {name: b"".join(parts) for name, parts in self._parts.items()}


def _category_of(entry: MinisterEntry) -> Category:
    return entry.category


def _file_of(category: Category) -> str:
    return f"{category.plural}.json"


def _encode_entry(entry: MinisterEntry) -> bytes:
    """Return an entry as it stands in a list: indented by two levels but for its first line."""
    shown = {
        "id": entry.id,
        "text": entry.text,
        "source": {"book": entry.book, "chapter": entry.chapter},
        "weight": entry.weight,
        "embedding_id": entry.embedding_id,
    }
    return orjson.dumps(shown, option=orjson.OPT_INDENT_2).replace(b"\n", b"\n    ")


def _field(name: str, value: object, *, first: bool = False) -> bytes:
    """Return a field of the outermost object, behind a comma unless it is the first."""
    encoded = orjson.dumps(value, option=orjson.OPT_INDENT_2).replace(b"\n", b"\n  ")
    return b"".join((b"" if first else b",", b'\n  "', name.encode(), b'": ', encoded))


def _list_start(name: str) -> bytes:
    return b"".join((b',\n  "', name.encode(), b'": ['))


def _show_origins(origins: set[Origin]) -> list[dict[str, Any]]:
    return [{"book": book, "chapter": chapter} for book, chapter in sorted(origins)]


def _encode(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
