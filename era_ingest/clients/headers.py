"""What the headers of a reply say about the server's limits, over all the dialects in use.

| server | headers |
|---|---|
| OpenAI | ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``; resets are Go durations (``6m0s``) |
| Azure | ``retry-after-ms``; resets are whole seconds, sometimes -1 |
| litellm | ``llm_provider-`` before the provider's own names; ``remaining`` may be negative |
| many | ``retry-after`` as seconds or as an HTTP date (RFC 9110, 10.2.3) |

Sources: the openai-python client (``_base_client.py``), Go's ``time.ParseDuration``, observed replies. What
does not parse, or is negative where it cannot be, counts as absent; so does what is left of a limit that is
itself given as 0 or -1 (observed: limit -1, remaining 0, reset -1 for "no limit").
"""

from __future__ import annotations

import math
import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from era_ingest.core.limiter import NO_HINTS, ServerHints

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_WAIT_S = 600.0
"""Longer waits are taken as this long, and asked for again then."""

MAX_RESET_S = 7 * 86400.0
"""Windows are no longer than a week."""

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_PART = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})", re.ASCII)
_PREFIXES = ("", "llm_provider-")
_MAX_HEADER_CHARS = 100


def parse_hints(headers: Mapping[str, str], *, now_epoch_s: float) -> ServerHints:
    """Return what the headers say.

    Args:
        headers: Headers of a reply; a case-insensitive mapping, or one with lower-case names.
        now_epoch_s: The time, in seconds since 1970 UTC, for dates.
    """
    if not _speaks_of_limits(headers):
        return NO_HINTS
    limit_requests, remaining_requests, reset_requests_s = _parse_quota(headers, "requests")
    limit_tokens, remaining_tokens, reset_tokens_s = _parse_quota(headers, "tokens")
    return ServerHints(
        limit_requests=limit_requests,
        remaining_requests=remaining_requests,
        reset_requests_s=reset_requests_s,
        limit_tokens=limit_tokens,
        remaining_tokens=remaining_tokens,
        reset_tokens_s=reset_tokens_s,
        retry_after_s=_parse_retry_after(headers, now_epoch_s),
    )


def parse_duration_s(value: str | None) -> float | None:
    """Return the seconds of a Go duration (``12ms``, ``6m0s``, ``1h2m3.5s``) or of a plain number of seconds.

    None for None, for what does not parse, and for anything negative (Azure's -1: it does not know).
    """
    if value is None:
        return None
    text = value.strip()[:_MAX_HEADER_CHARS]
    number = _parse_number(text)
    if number is not None:
        return number if number >= 0 else None
    text = text.removeprefix("+")
    parts = _GO_PART.findall(text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        return None
    return math.fsum(float(amount) * _GO_UNITS[unit] for amount, unit in parts)


def parse_retry_after_s(value: str | None, *, now_epoch_s: float) -> float | None:
    """Return the seconds of a ``retry-after`` header: a number, a duration or an HTTP date; never negative.

    None for None, for what does not parse, and for a negative number. A date in the past is 0.
    """
    if value is None:
        return None
    seconds = parse_duration_s(value)
    if seconds is not None:
        return seconds
    try:
        then = parsedate_to_datetime(value.strip()[:_MAX_HEADER_CHARS]).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, then - now_epoch_s)


def _parse_quota(headers: Mapping[str, str], unit: str) -> tuple[float | None, float | None, float | None]:
    """Return (limit, remaining, seconds to reset) of ``requests`` or ``tokens``."""
    given = _find(headers, f"x-ratelimit-limit-{unit}")
    limit = _parse_count(given)
    if given is not None and not limit:
        return None, None, None
    remaining = _parse_count(_find(headers, f"x-ratelimit-remaining-{unit}"))
    reset_s = parse_duration_s(_find(headers, f"x-ratelimit-reset-{unit}"))
    return limit, remaining, None if reset_s is None else min(MAX_RESET_S, reset_s)


def _parse_retry_after(headers: Mapping[str, str], now_epoch_s: float) -> float | None:
    """Prefer the milliseconds, which are finer; bound the wait."""
    milliseconds = _parse_number((_find(headers, "retry-after-ms") or "").strip()[:_MAX_HEADER_CHARS])
    if milliseconds is not None and milliseconds >= 0:
        return min(MAX_WAIT_S, milliseconds / 1e3)
    seconds = parse_retry_after_s(_find(headers, "retry-after"), now_epoch_s=now_epoch_s)
    return None if seconds is None else min(MAX_WAIT_S, seconds)


def _speaks_of_limits(headers: Mapping[str, str]) -> bool:
    """Skip the twenty look-ups for the many servers that say nothing."""
    return any("ratelimit" in name or "retry-after" in name for name in map(str.lower, headers))


def _find(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header by its name or by litellm's name for it."""
    for prefix in _PREFIXES:
        value = headers.get(prefix + name)
        if value is not None:
            return value
    return None


def _parse_number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _parse_count(value: str | None) -> float | None:
    """Return a count of requests or tokens; a negative one (litellm) says nothing that can be relied on."""
    if value is None:
        return None
    number = _parse_number(value.strip()[:_MAX_HEADER_CHARS])
    return number if number is not None and number >= 0 else None
