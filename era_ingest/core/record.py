"""What is known of a parsed book besides its chunks: origin, counts, defects."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from era_ingest.core.model import CleaningCounts, Defect

PROCESSING_VERSION = 1
"""Raised when the same bytes give other chunks than before; every book is then worked anew."""


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One source file as it was read.

    Attributes:
        path: Absolute path.
        role: ``doctrine``, ``chapters`` or ``book``.
        size: Bytes.
        mtime_ns: Time of last modification, nanoseconds since 1970.
        inode: The file system's number of it.
        sha256: Hexadecimal digest of its bytes.
    """

    path: str
    role: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BookRecord:
    """A book's provenance and counts.

    Attributes:
        name: The book's name.
        slug: Its partition key.
        title: A title that the document gives itself, or None.
        root: The folder under which it was found.
        format: ``doctrine``, ``json``, ``markdown``, ``text``, or the suffix of a reader's entry point.
        files: The files that it was read from.
        processing: Fingerprint of the settings and code that shaped it.
        chapters: Number of chapters.
        entries: Number of doctrine chunks.
        passages: Number of passage chunks.
        defects: What was refused.
        cleaning: What cleaning changed.
    """

    name: str
    slug: str
    title: str | None
    root: str
    format: str
    files: tuple[FileDigest, ...]
    processing: str
    chapters: int
    entries: int
    passages: int
    defects: tuple[Defect, ...] = ()
    cleaning: CleaningCounts = field(default_factory=CleaningCounts)

    @property
    def content_fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of everything that decides what the book's rows are."""
        parts = [self.name, self.processing, *(f"{file.role}:{file.sha256}" for file in self.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def modified_ns(self) -> int:
        """The latest modification of its files, nanoseconds since 1970."""
        return max(file.mtime_ns for file in self.files)

    def to_json(self) -> str:
        """Return it as JSON, the same bytes for the same record."""
        return json.dumps(asdict(self), ensure_ascii=True, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> BookRecord:
        """Return what ``to_json`` wrote.

        Raises:
            ValueError, KeyError, TypeError: It was written by something else.
        """
        raw: dict[str, Any] = json.loads(text)
        raw["files"] = tuple(FileDigest(**file) for file in raw["files"])
        raw["defects"] = tuple(Defect(**defect) for defect in raw["defects"])
        raw["cleaning"] = CleaningCounts(**raw["cleaning"])
        return cls(**raw)


def processing_fingerprint(
    *, passage_sizes: tuple[int, int, int] | None, aliases: dict[str, str], version: int = PROCESSING_VERSION
) -> str:
    """Return a short name of everything besides a book's bytes that shapes its chunks.

    Args:
        passage_sizes: Least length, greatest length and overlap in characters; None: no passages.
        aliases: Domain synonyms.
        version: Of the code.
    """
    shape = json.dumps([version, passage_sizes, sorted(aliases.items())])
    return hashlib.sha256(shape.encode()).hexdigest()[:16]
