"""Arrow arrays made from their buffers.

``pyarrow.array`` looks whether what it gets belongs to pandas, and imports pandas to find out: 0.2 s and 40 MB that
an ingestion otherwise never needs. The layouts are those of the Arrow columnar format, "Physical Memory Layout".
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def fixed_binary_array(values: Sequence[bytes], size: int) -> pa.Array:
    """Return ``fixed_size_binary[size]`` of values that are all ``size`` bytes long.

    Raises:
        ValueError: They are not.
    """
    payload = b"".join(values)
    if len(payload) != size * len(values) or any(len(value) != size for value in values):
        raise ValueError(f"The values are not all {size} bytes long.")
    return pa.Array.from_buffers(pa.binary(size), len(values), [None, pa.py_buffer(payload)])


def string_array(values: Sequence[str | None]) -> pa.Array:
    """Return ``string``, null where the value is None."""
    encoded = [b"" if value is None else value.encode() for value in values]
    return pa.Array.from_buffers(
        pa.string(),
        len(values),
        [_validity(values), _offsets([len(part) for part in encoded]), pa.py_buffer(b"".join(encoded))],
    )


def int32_array(values: Sequence[int | None]) -> pa.Array:
    """Return ``int32``, null where the value is None."""
    data = np.array([0 if value is None else value for value in values], dtype="<i4")
    return pa.Array.from_buffers(pa.int32(), len(values), [_validity(values), pa.py_buffer(data)])


def float64_array(values: Sequence[float]) -> pa.Array:
    """Return ``double``."""
    return pa.Array.from_buffers(
        pa.float64(), len(values), [None, pa.py_buffer(np.array(values, dtype="<f8"))]
    )


def string_list_array(values: Sequence[Sequence[str]]) -> pa.Array:
    """Return ``list<string>``."""
    items = string_array(list(chain.from_iterable(values)))
    offsets = _offsets([len(value) for value in values])
    return pa.Array.from_buffers(pa.list_(pa.string()), len(values), [None, offsets], children=[items])


def _offsets(lengths: Sequence[int]) -> Any:
    """Return where each item begins, and where the last one ends.

    Raises:
        OverflowError: The items take more than an array's 2 GiB.
    """
    ends: NDArray[np.int64] = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=ends[1:])
    if ends[-1] > np.iinfo(np.int32).max:
        raise OverflowError("An Arrow array of strings holds 2 GiB at most.")
    return pa.py_buffer(ends.astype("<i4"))


def _validity(values: Sequence[object]) -> Any:
    """Return the bitmap of what is not None; None where nothing is."""
    present = np.fromiter((value is not None for value in values), dtype=bool, count=len(values))
    return None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
