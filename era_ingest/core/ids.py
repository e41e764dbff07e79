"""Identities that come from content: the same input gives the same id on every machine, at every time."""

from __future__ import annotations

from hashlib import sha1, sha256
from uuid import UUID

NAMESPACE = UUID("2d1f7c6e-6b3c-5a0e-9f5e-0c9b8f6f7a51")
"""Namespace of chunk ids. Changing it changes every id: never change it."""


def content_hash(text: str) -> bytes:
    """Return the SHA-256 of a text's UTF-8 bytes, 32 bytes: the key of the embedding store."""
    return sha256(text.encode()).digest()


def chunk_id(book: str, chapter: int, category: str, text: str) -> UUID:
    """Return the UUIDv5 of one chunk.

    NUL stands between the parts: no file name and no cleaned text can hold it, so no two chunks run together.

    Args:
        book: The book's name.
        chapter: The chapter's index in it.
        category: ``principle``, ``rule``, ``claim``, ``warning`` or ``passage``.
        text: Cleaned text.
    """
    name = f"{book}\0{chapter}\0{category}\0{text}".encode()
    # The same as uuid.uuid5, which is four times slower (RFC 9562, section 5.5).
    return UUID(bytes=sha1(NAMESPACE.bytes + name, usedforsecurity=False).digest()[:16], version=5)
