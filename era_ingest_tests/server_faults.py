"""What can go wrong with an embedding server, as requests that a test server answers wrongly on purpose."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum
from time import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BOMB_BYTES = 256 << 20


class Fault(StrEnum):
    """A way to fail; the text on the right is its name on the command line."""

    SLOW_DOWN = "429"
    SLOW_DOWN_SECONDS = "429-seconds"
    SLOW_DOWN_DATE = "429-date"
    SLOW_DOWN_MS = "429-ms"
    NO_QUOTA = "429-insufficient-quota"
    TOO_LARGE = "429-too-large"
    BAD_KEY = "401"
    FORBIDDEN = "403"
    NO_MODEL = "404"
    TIMEOUT = "408"
    TOO_MANY_TEXTS = "413"
    BAD_TEXT = "400"
    ECHO = "422"
    BACKEND = "424"
    INTERNAL = "500"
    GATEWAY = "502"
    BUSY = "503"
    GATEWAY_TIMEOUT = "504"
    RESET = "reset"
    HANG = "hang"
    DRIP = "drip"
    TRUNCATED = "truncated"
    NOT_JSON = "not-json"
    WRONG_COUNT = "wrong-count"
    WRONG_SIZE = "wrong-size"
    NAN = "nan"
    ZERO = "zero"
    OUT_OF_ORDER = "out-of-order"
    HUGE_ERROR = "huge-error"
    BOMB = "gzip-bomb"
    ECHO_KEY = "401-echo-key"


SPOILS_REPLY = frozenset(
    {Fault.WRONG_COUNT, Fault.WRONG_SIZE, Fault.NAN, Fault.ZERO, Fault.OUT_OF_ORDER, Fault.TRUNCATED}
)
"""Faults that need the good reply first, to spoil it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a fault happens.

    Attributes:
        fault: What happens.
        rate: Share of requests that it hits, 0 to 1.
        text: It hits every request that holds a text with this in it; None: any.
        first: Only the first so many requests of the server's life; None: all.
        retry_after_s: Seconds that the 429s with a hint name.
    """

    fault: Fault
    rate: float = 1.0
    text: str | None = None
    first: int | None = None
    retry_after_s: float = 1.0

    def hits(self, texts: Sequence[str], number: int, uniform: Callable[[], float]) -> bool:
        """Return True if it happens to this request (``number`` counts from 1)."""
        if self.first is not None and number > self.first:
            return False
        if self.text is not None and not any(self.text in text for text in texts):
            return False
        return self.rate >= 1.0 or uniform() < self.rate


def parse_rule(raw: str) -> Rule:
    """Return the rule of ``fault[:rate[:text]]``, such as ``500:0.01`` or ``400:1:poison``."""
    name, _, rest = raw.partition(":")
    rate, _, text = rest.partition(":")
    return Rule(Fault(name), float(rate or 1), text or None)


_OPENAI_ERRORS: Mapping[Fault, tuple[int, str, str, str | None]] = {
    Fault.SLOW_DOWN: (429, "Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    Fault.SLOW_DOWN_SECONDS: (429, "Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    Fault.SLOW_DOWN_DATE: (429, "Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    Fault.SLOW_DOWN_MS: (429, "Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    Fault.NO_QUOTA: (429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
    Fault.TOO_LARGE: (429, "Request too large for the model: Limit 1000, Requested 9000", "tokens", None),
    Fault.BAD_KEY: (401, "Incorrect API key provided", "invalid_request_error", "invalid_api_key"),
    Fault.FORBIDDEN: (403, "Country not supported", "request_forbidden", None),
    Fault.NO_MODEL: (404, "The model `nope` does not exist", "invalid_request_error", "model_not_found"),
    Fault.TIMEOUT: (408, "Request timeout", "timeout", None),
    Fault.TOO_MANY_TEXTS: (413, "batch size 64 > maximum allowed batch size 32", "Validation", None),
    Fault.BAD_TEXT: (400, "'$.input' is invalid", "invalid_request_error", None),
    Fault.BACKEND: (424, "inference failed", "Backend", None),
    Fault.INTERNAL: (500, "The server had an error while processing your request", "server_error", None),
    Fault.GATEWAY: (502, "Bad gateway", "bad_gateway", None),
    Fault.BUSY: (
        503,
        "server busy, please try again.  maximum pending requests exceeded",
        "overloaded",
        None,
    ),
    Fault.GATEWAY_TIMEOUT: (504, "Gateway timeout", "timeout", None),
}


async def answer_fault(rule: Rule, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Answer a request wrongly; see ``Fault``. Not for those that spoil a good reply."""
    special = _SPECIAL.get(rule.fault)
    if special is not None:
        return await special(request, texts)
    status, message, kind, code = _OPENAI_ERRORS[rule.fault]
    if request.path.endswith("/api/embed"):
        body: dict[str, Any] = {"error": message}
    else:
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return web.json_response(body, status=status, headers=_retry_headers(rule))


def spoil(fault: Fault, rows: list[list[float]]) -> list[list[float]]:
    """Return the rows of a good reply, spoilt."""
    if fault is Fault.WRONG_COUNT:
        return rows[:-1]
    if fault is Fault.WRONG_SIZE:
        return [row[:-1] for row in rows]
    if fault is Fault.NAN:
        return [[float("nan"), *row[1:]] for row in rows]
    if fault is Fault.ZERO:
        return [[0.0] * len(row) for row in rows]
    return rows


async def send_truncated(request: web.Request, body: bytes) -> web.StreamResponse:
    """Announce the whole body, send half of it, and hang up."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


def _retry_headers(rule: Rule) -> dict[str, str]:
    if rule.fault is Fault.SLOW_DOWN_SECONDS:
        return {"Retry-After": f"{rule.retry_after_s:g}"}
    if rule.fault is Fault.SLOW_DOWN_DATE:
        return {"Retry-After": formatdate(time() + rule.retry_after_s, usegmt=True)}
    if rule.fault is Fault.SLOW_DOWN_MS:
        return {"retry-after-ms": f"{rule.retry_after_s * 1000:g}"}
    return {}


async def _echo(_: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Infinity's 422: the whole input comes back in the error."""
    detail = [{"type": "string_type", "loc": ["body", "input"], "msg": "Input invalid", "input": list(texts)}]
    return web.json_response({"detail": detail}, status=422)


async def _echo_key(request: web.Request, _: Sequence[str]) -> web.StreamResponse:
    said = f"Incorrect API key provided: {request.headers.get('Authorization', '')}"
    return web.json_response({"error": {"message": said, "code": "invalid_api_key"}}, status=401)


async def _reset(request: web.Request, _: Sequence[str]) -> web.StreamResponse:
    """Send a RST instead of a reply."""
    assert request.transport is not None
    plain = request.transport.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response(status=500)


async def _hang(_: web.Request, __: Sequence[str]) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _drip(request: web.Request, _: Sequence[str]) -> web.StreamResponse:
    """Send a byte now and then, for ever."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def _not_json(_: web.Request, __: Sequence[str]) -> web.StreamResponse:
    return web.Response(text="<html><body>It works!</body></html>", content_type="text/html")


async def _huge_error(_: web.Request, __: Sequence[str]) -> web.StreamResponse:
    return web.Response(status=500, body=b"x" * (2 << 20))


async def _bomb(_: web.Request, __: Sequence[str]) -> web.StreamResponse:
    """A few hundred kB that unpack to ``BOMB_BYTES``."""
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    return web.Response(body=_bomb_body(), headers=headers)


def _bomb_body() -> bytes:
    if not _BOMB:
        _BOMB.append(gzip.compress(bytes(BOMB_BYTES), compresslevel=9))
    return _BOMB[0]


_BOMB: list[bytes] = []
_SPECIAL = {
    Fault.ECHO: _echo,
    Fault.ECHO_KEY: _echo_key,
    Fault.RESET: _reset,
    Fault.HANG: _hang,
    Fault.DRIP: _drip,
    Fault.NOT_JSON: _not_json,
    Fault.HUGE_ERROR: _huge_error,
    Fault.BOMB: _bomb,
}
