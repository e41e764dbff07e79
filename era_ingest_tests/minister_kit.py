"""Minister files in one piece, for tests: the encoder's and the writer's pieces put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from era_ingest.core.minister import DOMAIN_FILES, DomainEncoder, DomainStatistics, MinisterEntry
from era_ingest.core.model import DOCTRINE_CATEGORIES
from era_ingest.store.minister_files import DomainWriter, FileChanges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path


class DomainFiles(NamedTuple):
    """The files of one domain."""

    files: dict[str, bytes]
    statistics: DomainStatistics


def build_domain(
    domain: str, entries: Iterable[MinisterEntry], *, last_updated: datetime | None, batch: int = 2
) -> DomainFiles:
    """Encode entries, given in any order, some at a time."""
    ordered = sorted(
        entries,
        key=lambda e: (DOCTRINE_CATEGORIES.index(e.category), e.book, e.chapter, e.text, e.id),
    )
    encoder = DomainEncoder(domain, last_updated=last_updated)
    pieces = [encoder.add(ordered[start : start + batch]) for start in range(0, len(ordered), batch)]
    files: dict[str, bytes] = {}
    for piece in (*pieces, encoder.finish()):
        for name, part in piece.items():
            files[name] = files.get(name, b"") + part
    return DomainFiles({name: files[name] for name in DOMAIN_FILES if name in files}, encoder.statistics)


def write_domain(root: Path, domain: str, files: Mapping[str, bytes]) -> FileChanges:
    """Write a domain's files, each in two pieces."""
    with DomainWriter(root, domain) as writer:
        for name, payload in files.items():
            writer.append({name: payload[:7]})
            writer.append({name: payload[7:]})
        return writer.publish()


def read_domain(root: Path, domain: str) -> dict[str, bytes]:
    """Return a domain's files by name."""
    return {
        name: (root / domain / name).read_bytes() for name in DOMAIN_FILES if (root / domain / name).is_file()
    }
