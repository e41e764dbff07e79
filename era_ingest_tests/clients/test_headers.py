"""Rate limit headers in all their dialects."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from era_ingest.clients.headers import MAX_WAIT_S, parse_duration_s, parse_hints, parse_retry_after_s
from era_ingest.core.limiter import NO_HINTS, ServerHints

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("1s", 1),
        ("500us", 0.0005),
        ("7.66s", 7.66),
        ("0", 0),
        ("59", 59),
        (" 1m ", 60),
        ("-1", None),
        ("-1s", None),
        ("", None),
        ("soon", None),
        ("1x", None),
        ("s", None),
        ("1s2", None),
        ("nan", None),
        ("1e9", None),
    ],
)
def test_go_durations_and_plain_seconds(text: str, seconds: float | None) -> None:
    """OpenAI sends Go durations, Azure whole seconds and -1."""
    found = parse_duration_s(text)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_go_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, ms: int) -> None:
    """Hours, minutes, seconds and milliseconds add up."""
    text = f"{hours}h{minutes}m{seconds}s{ms}ms"
    assert parse_duration_s(text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + ms / 1000)


@given(st.text(max_size=200))
def test_no_header_raises_and_no_time_is_negative(text: str) -> None:
    """Whatever a server sends, there is a sane number or none."""
    for found in (parse_duration_s(text), parse_retry_after_s(text, now_epoch_s=NOW)):
        assert found is None or found >= 0
    headers = {"retry-after": text, "retry-after-ms": text, "x-ratelimit-remaining-tokens": text}
    hints = parse_hints(headers, now_epoch_s=NOW)
    assert hints.retry_after_s is None or 0 <= hints.retry_after_s <= MAX_WAIT_S


@given(st.integers(-10_000, 10_000))
def test_retry_after_may_be_a_date(ahead_s: int) -> None:
    """A date ahead is the time until then; one in the past is now."""
    text = formatdate(NOW + ahead_s, usegmt=True)
    assert parse_retry_after_s(text, now_epoch_s=NOW) == pytest.approx(max(0, ahead_s))


@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "-1", "retry-after": "2"}, 2),
        ({"llm_provider-retry-after": "3"}, 3),
        ({"Retry-After": "86400"}, MAX_WAIT_S),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "Fri, 31 Feb 2099 99:99:99 GMT"}, None),
    ],
)
def test_retry_after_in_its_forms(headers: dict[str, str], retry_after_s: float | None) -> None:
    """Milliseconds win over seconds; litellm's own name counts; a day is cut to ten minutes."""
    assert parse_hints(CIMultiDict(headers), now_epoch_s=NOW).retry_after_s == retry_after_s


def test_the_headers_of_openai() -> None:
    """All six numbers."""
    headers = CIMultiDict(
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "1000000",
            "x-ratelimit-remaining-tokens": "999000",
            "x-ratelimit-reset-tokens": "6m0s",
        }
    )
    assert parse_hints(headers, now_epoch_s=NOW) == ServerHints(500, 499, 0.12, 1e6, 999_000, 360)


def test_negative_and_meaningless_numbers_count_as_absent() -> None:
    """Litellm's remaining of -3 says nothing; a limit of -1 or 0 takes what is left of it along."""
    headers = {"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "-3"}
    assert parse_hints(headers, now_epoch_s=NOW) == ServerHints(limit_requests=10)
    for limit in ("-1", "0"):
        headers = {
            "x-ratelimit-limit-tokens": limit,
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "-1",
        }
        assert parse_hints(headers, now_epoch_s=NOW) == NO_HINTS


def test_ordinary_headers_say_nothing() -> None:
    """The common case."""
    assert parse_hints({"content-type": "application/json"}, now_epoch_s=NOW) is NO_HINTS
