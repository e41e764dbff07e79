"""Log lines: what they are about, no secret in them, and one line each whatever a name holds."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_ingest import logs
from era_ingest.core.redaction import Redactor
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s3cr/et+pass word"
FORGED = "evil\n00:00:00.000 error   forged run=x\r\x1b[2K\u2028\u202e\x85"

log = logging.getLogger("era_ingest.some.part")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, in either style; the process is left as it was."""
    root, own = logging.getLogger(), logging.getLogger("era_ingest")
    handlers, level = list(root.handlers), own.level
    yield io.StringIO()
    root.handlers[:] = handlers
    own.setLevel(level)


def _raised(text: str) -> Exception:
    """Return an error as it was caught, with its traceback."""

    def fail() -> None:
        raise ValueError(text)

    try:
        fail()
    except ValueError as error:
        return error
    raise AssertionError


def test_a_line_says_what_it_is_about_through_tasks_and_threads(lines: io.StringIO) -> None:
    """The context of a block follows what runs in it, and ends with it; unknown facts are left out."""

    async def work() -> None:
        with logs.bound(book="b", stage=None):
            await asyncio.gather(asyncio.to_thread(log.info, "in a thread", extra={"rows": 3}))
        log.info("after")

    logs.set_up("json", "info", stream=lines)
    with logs.bound(run="r", job="j"):
        asyncio.run(work())
    log.debug("too fine")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "era_ingest.some.part",
        "message": "in a thread",
        "run": "r",
        "job": "j",
        "book": "b",
        "rows": 3,
    }
    assert "book" not in second


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_name_and_no_error_can_forge_a_line(lines: io.StringIO, style: logs.LogFormat) -> None:
    """Line breaks, escape codes and marks of direction in message, facts and traceback are written out."""
    logs.set_up(style, "info", stream=lines)
    with logs.bound(book=FORGED):
        log.info("read %s", FORGED, extra={"file": FORGED})
    said = lines.getvalue()
    assert said.count("\n") == len(said.splitlines()) == 1
    assert said[:-1].isprintable()
    if style == "json":
        line = json.loads(said)
        assert (line["message"], line["book"], line["file"]) == (f"read {FORGED}", FORGED, FORGED)
    lines.truncate(0)
    lines.seek(0)
    log.error("failed", exc_info=_raised(FORGED))
    for number, line in enumerate(lines.getvalue().split("\n")[:-1]):
        assert line.isprintable()
        assert number == 0 or line.startswith("  | ")


@given(st.text())
def test_any_text_stays_in_its_line(text: str) -> None:
    """Whatever Unicode holds, lone surrogates too."""
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "name": "era_ingest", "file": text})
    for style in ("json", "console"):
        line = logs.build_formatter(style, Redactor([])).format(record)
        assert line.isprintable()
        line.encode()
        if style == "json":
            assert json.loads(line)["file"] == text[: logs.MAX_CHARS]


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_in_no_line(lines: io.StringIO, style: logs.LogFormat) -> None:
    """Known ones as they are or percent-encoded, wherever they stand; tokens and passwords also by their place."""
    settings = load_settings(
        embed_api_key=SECRET,
        serve_tokens="read:" + "ab" * 32,
        database_url="postgresql://u:d%40tabase@h/db",
        embed_url="http://u:urlpass@127.0.0.1:1",
    )
    logs.set_up(style, "info", secrets=settings.secrets, stream=lines)
    for text in (
        SECRET,
        "key=s3cr%2Fet%2Bpass%20word&x",
        "key=s3cr%2Fet%2Bpass+word",
        "ab" * 32,
        "d@tabase, d%40tabase.",
        "at http://u:urlpass@127.0.0.1:1",
    ):
        log.error("it was %s", text, exc_info=_raised(text), extra={"sent": text})
    log.warning(
        "Authorization: Bearer abcDEF123-_.~ and postgresql://someone:unknown@h/db, password='un known' x"
    )
    said = lines.getvalue()
    for secret in ("s3cr", "abab", "tabase", "urlpass", "abcDEF", "unknown", "un known"):
        assert secret not in said
    assert "***" in said
    assert "someone:***@h" in said


def test_long_texts_are_cut_and_odd_values_are_words(lines: io.StringIO) -> None:
    logs.set_up("json", "info", stream=lines)
    log.info("x" * 10_000, extra={"share": float("nan"), "place": ("a", 1), "none": None, "done": True})
    line = json.loads(lines.getvalue())
    assert len(line["message"]) < logs.MAX_CHARS + 50
    assert line["message"].endswith("(10,000 characters)")
    assert (line["share"], line["place"], line["none"], line["done"]) == ("nan", "('a', 1)", None, True)


def test_others_are_heard_from_warnings_on_and_dagster_not_twice(lines: io.StringIO) -> None:
    """Set up again, only the last one counts."""
    logs.set_up("console", "info", stream=io.StringIO())
    logs.set_up("json", "info", stream=lines)
    logging.getLogger("another").info("no")
    logging.getLogger("another").warning("yes")
    logging.getLogger("dagster.daemon").warning("it says so itself")
    assert [json.loads(line)["message"] for line in lines.getvalue().splitlines()] == ["yes"]
