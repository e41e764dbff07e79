from __future__ import annotations

import json
import math

import pytest

from era_ingest.core.json_document import RawFile, decode_text, parse_json
from era_ingest.core.json_walk import MAX_MEMBERS, JsonObject
from era_ingest.core.limits import InputLimits
from era_ingest.errors import MalformedDocumentError
from era_ingest_tests.unit.json_kit import whole_value

WHOLE = '[{"chapter_index": 1, "principles": ["Sow in three parts – früh.", true, 1.5e3, null]}]'


def _refused(data: bytes | str, limits: InputLimits | None = None) -> MalformedDocumentError:
    raw = data.encode() if isinstance(data, str) else data
    with pytest.raises(MalformedDocumentError) as caught:
        parse_json(RawFile("book.json", raw), limits or InputLimits())
    assert caught.value.file == "book.json"
    assert "book.json" in caught.value.message
    assert len(caught.value.message) < 300
    return caught.value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings_are_recognised(encoding: str) -> None:
    """UTF-8 with and without a mark, UTF-16 and UTF-32 are read alike."""
    assert whole_value(parse_json(RawFile("f", WHOLE.encode(encoding)))) == json.loads(WHOLE)


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f600",
        "a\\\U0001f600",
        "\\\\\U0001f600\\",
        "\U0010ffff\U00010000\uffff\ud7ff\ue000\u0100\xff\x80",
        "“curly” – \U0001f600",
    ],
)
def test_a_character_beyond_16_bits_changes_nothing(text: str) -> None:
    """Documents with few of them are read by another way, which takes a quarter of the memory."""
    document = [{"key \U0001f600": text + "plain " * 100}, text]
    for data in (json.dumps(document, ensure_ascii=False), json.dumps(document)):
        assert whole_value(parse_json(RawFile("f", data.encode()))) == document


def test_utf_16_whose_bytes_look_like_wide_utf_8_is_read_as_it_is() -> None:
    """U+9FF0 and U+8098 are F0 9F 98 80 there, which UTF-8 would take for an emoji."""
    document = ["\u9ff0\u8098" + "plain " * 100]
    for encoding in ("utf-16", "utf-16-le"):
        data = json.dumps(document, ensure_ascii=False).encode(encoding)
        assert b"\xf0\x9f\x98\x80" in data
        assert whole_value(parse_json(RawFile("f", data))) == document


@pytest.mark.parametrize(
    "data", ['["\\\U0001f600"]', "[\U0001f600]", '["\U0001f600" 1]', '["\U0001f600', '["\U0001f600"]]']
)
def test_errors_name_the_place_in_the_file_itself(data: str) -> None:
    """Not in what it was turned into."""
    padded = data.replace("[", '["' + "plain " * 100 + '",', 1)
    same = padded.replace("\U0001f600", "\u20ac")
    assert _refused(padded).message == _refused(same).message


@pytest.mark.parametrize("data", ["", " \n", "\ufeff", "\0" * 512])
def test_an_empty_file_says_so(data: str) -> None:
    """Nothing, white space, a mark alone, or the zeros that a crash leaves."""
    assert _refused(data).reason == "empty"


@pytest.mark.parametrize(
    "data", ["hello", "<html></html>", "{'a': 1}", "[1,]", '["a\nb"]', "[1 2]", "%PDF-1.7", "nul"]
)
def test_what_is_no_json_says_where(data: str) -> None:
    """The message names line and column."""
    error = _refused(data + " ")
    assert error.reason == ("truncated" if data == "nul" else "not_json")
    assert "line 1" in error.message or "line 2" in error.message


@pytest.mark.parametrize("length", range(1, len(WHOLE)))
def test_every_prefix_is_truncated(length: int) -> None:
    """A file that was cut anywhere is told from one that is wrong."""
    assert _refused(WHOLE[:length]).reason == "truncated"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_a_cut_inside_a_character_is_truncated(encoding: str) -> None:
    """Half of a character at the end is no wrong encoding."""
    assert _refused('["frü'.encode(encoding)[:-1]).reason == "truncated"


def test_latin_1_is_refused() -> None:
    """No encoding is guessed: what is no Unicode is refused with the byte's position."""
    assert _refused('["früh, und noch mehr"]'.encode("latin-1")).reason == "not_unicode"


@pytest.mark.parametrize("data", ["[] []", "[]\n{}\n", "[]x", "[]\0"])
def test_data_after_the_end_is_refused(data: str) -> None:
    """Concatenated documents are not silently halved."""
    error = _refused(data)
    assert error.reason == "trailing_data"
    assert "after the end" in error.message


@pytest.mark.parametrize("unit", ["[", '{"a":'])
def test_deep_nesting_is_an_error_not_a_crash(unit: str) -> None:
    """A hundred thousand levels are refused."""
    assert _refused(unit * 100_000).reason == "too_deep"


@pytest.mark.parametrize(
    "data", ["[" + "[]," * 50 + "[]]", "{" + ",".join(f'"{n}" : 1' for n in range(51)) + "}"]
)
def test_too_many_values_are_refused_before_they_are_made(data: str) -> None:
    """The number of lists, objects and members is bounded: each takes far more memory than its text."""
    assert _refused(data, InputLimits(max_values=50)).reason == "too_many_values"


def test_an_object_of_too_many_members_is_refused() -> None:
    """Its members are held together, so their number is bounded."""
    data = "{" + ",".join(f'"{number}":0' for number in range(MAX_MEMBERS + 1)) + "}"
    assert _refused(data).reason == "too_many_values"


def test_a_number_of_many_digits_is_no_trap() -> None:
    """Thousands of digits are read as a float: converting them exactly takes quadratic time."""
    (value,) = parse_json(RawFile("f", b"[" + b"9" * 100_000 + b"]"))  # type: ignore[misc]
    assert value == math.inf  # type: ignore[has-type]


def test_of_equal_keys_the_last_counts_and_none_is_forgotten() -> None:
    """The object knows what it refused."""
    value = parse_json(RawFile("f", b'{"a": 1, "b": 2, "a": 3}'))
    assert isinstance(value, JsonObject)
    assert value == {"a": 3, "b": 2}
    assert value.refused == (("a", 1),)


def test_what_cleaning_can_mend_is_accepted() -> None:
    """NaN, infinities and lone surrogates, escaped or raw, are let in; NUL too."""
    data = b'["\\ud800", "\xed\xa0\x80", NaN, 1e999, -Infinity, "\\u0000"]'
    value = parse_json(RawFile("f", data))
    value = whole_value(value)
    assert value[:2] == ["\ud800", "\ud800"]
    assert math.isnan(value[2])
    assert value[3:] == [math.inf, -math.inf, "\0"]


def test_text_is_decoded_by_its_mark() -> None:
    """Plain text is UTF-8 unless a mark says otherwise."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decode_text(RawFile("f", "früh".encode(encoding))) == "früh"
