"""Arrow arrays from buffers are those that pyarrow itself would make."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.store.arrow import (
    fixed_binary_array,
    float64_array,
    int32_array,
    string_array,
    string_list_array,
)

pa.array([0])  # imports pandas, before any test's time counts
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
INTS = st.integers(-(2**31), 2**31 - 1)


@given(st.lists(st.none() | TEXTS, max_size=20))
def test_strings(values: list[str | None]) -> None:
    assert string_array(values).equals(pa.array(values, pa.string()))


@given(st.lists(st.none() | INTS, max_size=20))
def test_integers(values: list[int | None]) -> None:
    assert int32_array(values).equals(pa.array(values, pa.int32()))


@given(st.lists(st.floats(allow_nan=False), max_size=20))
def test_floats(values: list[float]) -> None:
    assert float64_array(values).equals(pa.array(values, pa.float64()))


@given(st.lists(st.lists(TEXTS, max_size=4), max_size=12))
def test_lists_of_strings(values: list[list[str]]) -> None:
    built = string_list_array(values)
    built.validate(full=True)
    assert built.equals(pa.array(values, pa.list_(pa.string())))


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=12))
def test_fixed_binaries(values: list[bytes]) -> None:
    assert fixed_binary_array(values, 16).equals(pa.array(values, pa.binary(16)))


@pytest.mark.parametrize("values", [[b"x"], [b"ab" * 8, b""], [b"a" * 15, b"a" * 17]])
def test_a_binary_of_another_length_is_refused(values: list[bytes]) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        fixed_binary_array(values, 16)


def test_an_integer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        int32_array([2**31])


def test_reading_and_writing_chunks_does_without_pandas() -> None:
    """Pandas costs 0.2 s and 40 MB; only the IO manager of the graph needs it."""
    program = """
import sys
from uuid import UUID
from era_ingest.core.model import Category, Chunk
from era_ingest.pipelines.chunked import ChunkedBook
from era_ingest.store.chunk_files import encode
from era_ingest.store.chunk_table import build_table
chunk = Chunk(UUID(int=1), "B", 1, Category.RULE, ("base",), "text", 1.0, bytes(32))
table = build_table([chunk], titles={1: "One"})
encode(table)
assert ChunkedBook(None, table).texts_of([bytes(32)]) == ["text"]
sys.exit("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
