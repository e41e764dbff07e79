"""Minister files: what a reader of one domain loads. Pure: rows in, the bytes of the files out.

The same rows give the same bytes, whatever order they come in; times come from the data. Keys stand in the
order that the contract names them in; further keys follow, which readers of the older files do not ask for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from era_ingest.core.model import DOCTRINE_CATEGORIES, Category

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

DOCTRINE_FILE = "doctrine.json"
CATEGORY_FILES = tuple(f"{category.plural}.json" for category in DOCTRINE_CATEGORIES)
DOMAIN_FILES = (*CATEGORY_FILES, DOCTRINE_FILE)
"""Every file of a domain's folder, in the order in which they are to be put into place: the summary last."""
COMBINED_FILE = "combined_vector.index"


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


@dataclass(frozen=True, slots=True)
class DomainFiles:
    """The files of one domain.

    Attributes:
        domain: Its name, which is the folder's.
        files: Bytes by file name, in the order of ``DOMAIN_FILES``; empty for a domain without any entry.
        statistics: Its counts.
    """

    domain: str
    files: Mapping[str, bytes]
    statistics: DomainStatistics


def build_domain(
    domain: str, entries: Iterable[MinisterEntry], *, last_updated: datetime | None
) -> DomainFiles:
    """Build every file of a domain.

    Args:
        domain: The domain's name.
        entries: All its doctrine entries, in any order.
        last_updated: When a source last changed the domain's doctrine.

    Returns:
        Five files: one a category, and the summary that holds all four lists. Entries are sorted by book,
        chapter and text. A domain without entries has no files.
    """
    stamp = format_time(last_updated)
    ordered = sorted(entries, key=lambda entry: (entry.book, entry.chapter, entry.text, entry.id))
    lists = {
        category: [entry for entry in ordered if entry.category is category]
        for category in DOCTRINE_CATEGORIES
    }
    statistics = _count(ordered, lists, stamp)
    if not ordered:
        return DomainFiles(domain, {}, statistics)
    shown = {category: [_show(entry) for entry in chosen] for category, chosen in lists.items()}
    files = {
        f"{category.plural}.json": _encode(
            {
                "domain": domain,
                "category": category.plural,
                "entries": shown[category],
                "meta": {
                    "total_entries": len(chosen),
                    "last_updated": stamp,
                    "aggregated_from": _origins(chosen),
                },
            }
        )
        for category, chosen in lists.items()
    }
    files[DOCTRINE_FILE] = _encode(
        {
            "domain": domain,
            **{category.plural: shown[category] for category in DOCTRINE_CATEGORIES},
            "aggregated_from": _origins(ordered),
            "meta": statistics.to_dict(),
        }
    )
    return DomainFiles(domain, files, statistics)


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


def _count(
    entries: Sequence[MinisterEntry], lists: Mapping[Category, Sequence[MinisterEntry]], stamp: str | None
) -> DomainStatistics:
    return DomainStatistics(
        total_entries=len(entries),
        principles=len(lists[Category.PRINCIPLE]),
        rules=len(lists[Category.RULE]),
        claims=len(lists[Category.CLAIM]),
        warnings=len(lists[Category.WARNING]),
        embedded_entries=sum(entry.embedding_id is not None for entry in entries),
        total_books=len({entry.book for entry in entries}),
        total_chapters=len({(entry.book, entry.chapter) for entry in entries}),
        last_updated=stamp,
    )


def _show(entry: MinisterEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "text": entry.text,
        "source": {"book": entry.book, "chapter": entry.chapter},
        "weight": entry.weight,
        "embedding_id": entry.embedding_id,
    }


def _origins(entries: Sequence[MinisterEntry]) -> list[dict[str, Any]]:
    origins = sorted({(entry.book, entry.chapter) for entry in entries})
    return [{"book": book, "chapter": chapter} for book, chapter in origins]


def _encode(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
