"""What a row says besides its id, in 16 bytes: equal digests mean that a row need not be written again."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_VERSION = "1"


def condense(table: pa.Table) -> dict[bytes, bytes]:
    """Return each row's digest by its id (16 bytes), in the table's order.

    An id stands for book, chapter, category and text already; the digest covers title, domains, weight and
    offsets. Entries of one chapter share theirs, so most digests are looked up, not computed.
    """
    seen: dict[tuple[object, ...], bytes] = {}
    digests: dict[bytes, bytes] = {}
    names = ("id", "chapter_title", "domains", "weight", "start_char", "end_char")
    columns = [table.column(name).to_pylist() for name in names]
    for identifier, title, domains, weight, start, end in zip(*columns, strict=True):
        key = (title, tuple(domains), weight, start, end)
        digest = seen.get(key)
        if digest is None:
            digest = seen[key] = blake2b(repr((_VERSION, key)).encode(), digest_size=16).digest()
        digests[identifier] = digest
    return digests
