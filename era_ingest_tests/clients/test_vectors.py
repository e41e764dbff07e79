"""Vectors as they arrive: decoded, checked, of length 1."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.clients.failures import MAX_MESSAGE_CHARS, parse_message
from era_ingest.clients.vectors import check_vectors, parse_vectors
from era_ingest.errors import ResponseMismatchError

FINITE = st.floats(-1e6, 1e6, width=32)


def _encode(row: list[float]) -> str:
    return base64.b64encode(np.array(row, "<f4").tobytes()).decode()


@given(st.integers(1, 5).flatmap(lambda d: st.lists(st.lists(FINITE, min_size=d, max_size=d), min_size=1)))
def test_base64_and_numbers_are_the_same(rows: list[list[float]]) -> None:
    """Either form of a reply gives the same table."""
    np.testing.assert_array_equal(parse_vectors(rows), parse_vectors([_encode(row) for row in rows]))


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 2.0], [1.0]],
        ["AAAA", "AAAAAAA="],
        ["not base64!"],
        ["AAA"],
        [_encode([1.0]), [1.0]],
        [[1.0, "x"]],
        [{"a": 1}],
        [1.0, 2.0],
        [[[1.0]]],
        [[1e999, {}]],
    ],
)
def test_what_is_no_table_of_numbers_is_a_mismatch(rows: list[object]) -> None:
    """Ragged, mixed, broken or of another shape."""
    with pytest.raises(ResponseMismatchError):
        check_vectors(parse_vectors(rows), count=len(rows), dimensions=None)


@given(st.lists(st.lists(FINITE, min_size=3, max_size=3), min_size=1))
def test_checked_vectors_have_length_one_or_are_refused(rows: list[list[float]]) -> None:
    """A zero vector is refused; all others keep their direction."""
    table = np.array(rows, np.float32)
    if (np.linalg.norm(table.astype(np.float64), axis=1) < 1e-12).any():
        with pytest.raises(ResponseMismatchError, match="zero"):
            check_vectors(table, count=len(rows), dimensions=3)
    else:
        unit = check_vectors(table, count=len(rows), dimensions=3)
        assert unit.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_values_that_are_not_finite_are_refused(bad: float | None) -> None:
    """NaN as a number, infinity, or the null that JSON makes of NaN."""
    with pytest.raises(ResponseMismatchError, match="finite"):
        check_vectors(parse_vectors([[1.0, bad]]), count=1, dimensions=2)


@given(st.binary(max_size=3000))
def test_messages_of_servers_are_one_bounded_line(body: bytes) -> None:
    """Whatever the body of an error holds."""
    message = parse_message(body)
    assert len(message.text) <= MAX_MESSAGE_CHARS
    assert not any(ord(char) < 32 for char in message.text)


@pytest.mark.parametrize(
    ("body", "text", "codes"),
    [
        (b'{"error": {"message": "no", "type": "A", "code": "b"}}', "no", {"a", "b"}),
        (b'{"error": "model not found"}', "model not found", set()),
        (b'{"error": "too long", "error_type": "Validation"}', "too long", {"validation"}),
        (b'{"detail": [{"loc": ["body"], "msg": "bad", "type": "x", "input": "secret"}]}', "bad", {"x"}),
        (b'{"detail": "nope"}', "nope", set()),
        (b'{"message": "m", "code": 400}', "m", {"400"}),
        (b"<html>\n 502 Bad\tGateway</html>", "<html> 502 Bad Gateway</html>", set()),
        (b"", "", set()),
        (b"[]", "", set()),
        (b"null", "", set()),
    ],
)
def test_errors_are_read_in_every_dialect(body: bytes, text: str, codes: set[str]) -> None:
    """OpenAI, Ollama, TEI, FastAPI, plain text."""
    message = parse_message(body)
    assert (message.text, set(message.codes)) == (text, codes)
