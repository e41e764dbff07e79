"""Vectors as they arrive become vectors that may be stored: decoded, checked, of length 1."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

import numpy as np
import pybase64

from era_ingest.errors import ResponseMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_NORM = 1e-12
"""Vectors shorter than this count as zero."""


def parse_vectors(rows: Sequence[object]) -> NDArray[np.float32]:
    """Return the vectors of a reply, as they came.

    Args:
        rows: One item a text: base64 of little-endian float32 (OpenAI's and vLLM's ``encoding_format:
            base64``) or a list of numbers.

    Returns:
        float32 of shape (rows, dimensions).

    Raises:
        ResponseMismatchError: A row is neither, or the rows differ in length.
    """
    try:
        if rows and all(isinstance(row, str) for row in rows):
            raw = [pybase64.b64decode(row, validate=True) for row in rows if isinstance(row, str)]
            if len(set(map(len, raw))) > 1:
                raise ResponseMismatchError("The reply's vectors differ in length.")
            return np.frombuffer(b"".join(raw), "<f4").reshape(len(raw), -1).astype(np.float32, copy=False)
        table = np.array(rows, dtype=np.float32)
    except (ValueError, TypeError, binascii.Error, OverflowError) as error:
        raise ResponseMismatchError(
            f"The reply's vectors are neither base64 nor lists of numbers ({type(error).__name__})."
        ) from None
    if table.ndim != 2:  # noqa: PLR2004 - a table has two axes
        raise ResponseMismatchError("The reply's vectors are no table of numbers.")
    return table


def check_vectors(vectors: NDArray[np.float32], *, count: int, dimensions: int | None) -> NDArray[np.float32]:
    """Return the vectors with length 1.

    Args:
        vectors: float32 of shape (n, d), as they came (llama.cpp's are not of unit length).
        count: The number of texts that were sent.
        dimensions: What d must be; None: anything above 0.

    Raises:
        ResponseMismatchError: A wrong count or size; a value that is not finite; a zero vector.
    """
    n, d = vectors.shape
    if n != count:
        raise ResponseMismatchError(f"The reply holds {n} vectors for {count} texts.")
    if d == 0 or (dimensions is not None and d != dimensions):
        raise ResponseMismatchError(
            f"The reply's vectors have {d} dimensions instead of {dimensions or 'some'}."
        )
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    if not np.isfinite(squares).all():
        raise ResponseMismatchError("The reply holds a vector that is not finite.")
    norms = np.sqrt(squares)
    if (norms < MIN_NORM).any():
        raise ResponseMismatchError("The reply holds a zero vector.")
    unit: NDArray[np.float32] = vectors / norms.astype(np.float32)[:, None]
    return unit
