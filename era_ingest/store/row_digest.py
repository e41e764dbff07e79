"""What a row says besides its id, in 16 bytes: equal digests mean that a row need not be written again."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_VERSION = "1"
_OFFSETS = struct.Struct(">ii")
_COLUMNS = ("id", "chapter_title", "domains", "weight", "start_char", "end_char")


def condense(table: pa.Table) -> dict[bytes, bytes]:
    """Return each row's digest by its id (16 bytes), in the table's order.

    An id stands for book, chapter, category and text already; the digest covers title, domains, weight and
    offsets. Entries of one chapter share theirs, so most digests are looked up, not computed.
    """
    shared: dict[tuple[object, ...], bytes] = {}
    digests: dict[bytes, bytes] = {}
    columns = [table.column(name).to_pylist() for name in _COLUMNS]
    for identifier, title, domains, weight, start, end in zip(*columns, strict=True):
        key = (title, *domains, weight)
        digest = shared.get(key)
        if digest is None:
            digest = shared[key] = _hash(repr((_VERSION, title, domains, weight)).encode())
        if start is not None:
            digest = _hash(digest + _OFFSETS.pack(start, end))
        digests[identifier] = digest
    return digests


def _hash(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=16).digest()
