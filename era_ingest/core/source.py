"""Where a book comes from: its files, as a scan of the landing folder saw them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a book.

    Attributes:
        path: Absolute path, as ``os`` gives it (undecodable bytes as surrogate escapes).
        role: ``doctrine``, ``chapters``, or ``book`` (both in one).
        size: Bytes.
        mtime_ns: Time of the last change, nanoseconds since 1970.
        inode: Inode number; changes when a file is replaced by renaming.
    """

    path: str
    role: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class BookSource:
    """One book in a landing folder.

    Attributes:
        name: The folder's name or the file's stem, as valid text.
        slug: See `core.names.book_slug`.
        root: The landing folder that it was found under.
        format: ``doctrine`` (a folder), ``json``, ``markdown``, ``text``, or a plugged-in reader's suffix.
        files: What it consists of, never empty; the doctrine before the chapters' text.
    """

    name: str
    slug: str
    root: str
    format: str
    files: tuple[SourceFile, ...]

    @property
    def path(self) -> str:
        """The book's own path: the folder, or the one file."""
        first = self.files[0].path
        return os.path.dirname(first) if self.format == "doctrine" else first

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def modified_ns(self) -> int:
        """When the newest of its files changed, nanoseconds since 1970."""
        return max(file.mtime_ns for file in self.files)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change when a file's path, size, time or inode does; the bytes are not read."""
        digest = blake2b(digest_size=16)
        for file in self.files:
            facts = f"{file.size}\0{file.mtime_ns}\0{file.inode}\0"
            digest.update(facts.encode() + file.path.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()
