"""The embedding store: a vector for each (model, hash of the text), paid for once and kept for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import errors

from era_ingest.errors import PermanentError, ResponseMismatchError
from era_ingest.store.binary import COPY_HEADER, COPY_TRAILER, BytesArray

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from psycopg import AsyncConnection

HASH_BYTES = 32
_PIECE_ROWS = 256
"""Rows that are encoded and sent at a time: 0.8 MB at 768 dimensions."""
NORM_TOLERANCE = 1e-3
"""How far a vector's length may be from 1; the table's own constraint says the same."""

_COPY_COLUMNS = "(model_id, content_hash, embedding) from stdin (format binary)"


async def known_hashes(conn: AsyncConnection[Any], model_id: int, hashes: Collection[bytes]) -> set[bytes]:
    """Return those of the hashes whose vectors the store has.

    Args:
        conn: A connection.
        model_id: The model's number.
        hashes: SHA-256 digests, 32 bytes each; repeats allowed. One query for all: 10,000 take about 25 ms.
    """
    if not hashes:
        return set()
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            "select content_hash from era.embeddings where model_id = %s and content_hash = any(%b)",
            (model_id, BytesArray(hashes)),
        )
        return {row[0] for row in await cursor.fetchall()}


async def store_vectors(
    conn: AsyncConnection[Any],
    model_id: int,
    hashes: Sequence[bytes],
    vectors: NDArray[np.float32],
    *,
    dimensions: int | None = None,
) -> int:
    """Store the vectors of a finished request; return how many of them are new.

    One binary COPY, 1.5 times faster than ``insert ... on conflict`` from arrays. Only if another run
    stored one of the texts at the same time is it undone and repeated by way of a temporary table that
    leaves out what is there. Rows go in by the order of their hashes, so that two writers wait for each
    other, never both ways: call it once a transaction.

    Args:
        conn: A connection. Outside a transaction the call commits by itself.
        model_id: The model's number.
        hashes: SHA-256 digests of the texts, 32 bytes each; of a repeated one the first vector counts.
        vectors: float32[n, d], one row a hash, of unit length.
        dimensions: d as the model has it; None: not checked here (the model's table checks it again).

    Raises:
        ResponseMismatchError: A vector is zero, not finite, not of unit length or of the wrong size; nothing
            is stored then.
    """
    checked = check_vectors(vectors, count=len(hashes), dimensions=dimensions)
    positions = {content_hash: index for index, content_hash in reversed(list(enumerate(hashes)))}
    if not positions:
        return 0
    ordered = sorted(positions)
    rows = np.fromiter((positions[content_hash] for content_hash in ordered), np.intp, len(ordered))
    try:
        async with conn.transaction(), conn.cursor() as cursor:
            async with cursor.copy(f"copy era.embeddings {_COPY_COLUMNS}") as copy:
                for piece in encode_copy(model_id, ordered, checked, rows):
                    await copy.write(piece)
            return cursor.rowcount
    except errors.UniqueViolation:
        return await _store_missing(conn, encode_copy(model_id, ordered, checked, rows))


async def _store_missing(conn: AsyncConnection[Any], pieces: Iterable[bytes]) -> int:
    async with conn.transaction(), conn.cursor() as cursor:
        await cursor.execute(
            "create temporary table if not exists era_new_vectors "
            "(model_id smallint, content_hash bytea, embedding vector) on commit delete rows"
        )
        await cursor.execute("delete from pg_temp.era_new_vectors")
        async with cursor.copy(f"copy pg_temp.era_new_vectors {_COPY_COLUMNS}") as copy:
            for piece in pieces:
                await copy.write(piece)
        await cursor.execute(
            """
            insert into era.embeddings (model_id, content_hash, embedding)
            select model_id, content_hash, embedding from pg_temp.era_new_vectors order by content_hash
            on conflict do nothing
            """
        )
        return cursor.rowcount


def check_vectors(vectors: NDArray[Any], *, count: int, dimensions: int | None = None) -> NDArray[np.float32]:
    """Return the vectors as float32[n, d] if each of them may be stored.

    Raises:
        ResponseMismatchError: Wrong shape, not finite, zero, or not of unit length; it names the first such
            row.
    """
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != count or (dimensions is not None and array.shape[1] != dimensions):  # noqa: PLR2004
        raise ResponseMismatchError(
            f"Vectors of shape {array.shape} where ({count}, {dimensions or 'd'}) was expected; none is "
            "stored."
        )
    norms = np.linalg.norm(array, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) < NORM_TOLERANCE))  # a NaN compares false: wrong
    if wrong.size:
        row = int(wrong[0])
        raise ResponseMismatchError(
            f"{wrong.size} of {count} vectors cannot be stored: row {row} has length {float(norms[row])!r}, "
            "where 1 is the only one allowed; none is stored."
        )
    return array


def encode_copy(
    model_id: int, hashes: Sequence[bytes], vectors: NDArray[np.float32], rows: NDArray[np.intp]
) -> Iterator[bytes]:
    """Yield rows in PostgreSQL's binary COPY format, made by numpy some hundreds at a time.

    A piece fits into a processor's cache, and a large commit is never in memory a second time. Every row has the same
    length: a count of fields, then each field behind its length, all big-endian (PostgreSQL manual, COPY, "Binary
    Format"); a ``vector`` is its size, 16 unused bits and its floats (pgvector, vector_send).

    Args:
        model_id: The model's number.
        hashes: SHA-256 digests, in the order of writing.
        vectors: float32[n, d].
        rows: The row of ``vectors`` that belongs to each hash.

    Raises:
        PermanentError: A hash is none.
    """
    if any(len(content_hash) != HASH_BYTES for content_hash in hashes):
        raise PermanentError(f"A content hash is not {HASH_BYTES} bytes long: it is no SHA-256 digest.")
    dimensions = vectors.shape[1]
    piece = np.zeros(
        min(_PIECE_ROWS, len(hashes)),
        dtype=[
            ("fields", ">i2"),
            ("model_bytes", ">i4"),
            ("model", ">i2"),
            ("hash_bytes", ">i4"),
            ("hash", f"V{HASH_BYTES}"),
            ("vector_bytes", ">i4"),
            ("dimensions", ">u2"),
            ("unused", ">u2"),
            ("vector", ">f4", (dimensions,)),
        ],
    )
    piece["fields"] = 3
    piece["model_bytes"] = 2
    piece["model"] = model_id
    piece["hash_bytes"] = HASH_BYTES
    piece["vector_bytes"] = 4 + 4 * dimensions
    piece["dimensions"] = dimensions
    yield COPY_HEADER
    for start in range(0, len(hashes), _PIECE_ROWS):
        chosen = slice(start, start + _PIECE_ROWS)
        part = piece[: len(hashes[chosen])]
        part["hash"] = np.frombuffer(b"".join(hashes[chosen]), dtype=f"V{HASH_BYTES}")
        part["vector"] = vectors[rows[chosen]]
        yield part.tobytes()
    yield COPY_TRAILER
