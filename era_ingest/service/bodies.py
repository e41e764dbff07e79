"""Bodies, read whole before the application sees them: bounded in bytes, depth, time, and in all together."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import numpy as np
from starlette.datastructures import Headers
from starlette.requests import Request

from era_ingest.service.pages.faces import show_problem
from era_ingest.service.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_DEPTH = 64
"""Lists and objects within one another in a JSON body; a book has six."""
MAX_SMALL_BYTES = 1024 * 1024
"""Bytes of a body that is no book."""
HELD_BODIES = 4
"""So many of the largest bodies may be in memory at once, or as many bytes of smaller ones."""
BOOKS_PATH = "/v1/ingest"

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


class BodyLimits:
    """Reads a request's body within bounds, and hands it on in one piece.

    Args:
        app: Whose requests.
        max_bytes: Bytes of a posted book.
        timeout_s: Time for a body to arrive, seconds.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with 408, 413, 422 or 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reading = _Reading(self, scope, self._max_bytes if scope["path"] == BOOKS_PATH else MAX_SMALL_BYTES)
        try:
            answer = await reading.read(receive, self._timeout_s)
            if answer is not None:
                await show_problem(Request(scope), answer)(scope, receive, send)
                return
            scope.setdefault("state", {})["body_bytes"] = reading.held_bytes
            await self._app(scope, reading.replay(receive), send)
        finally:
            self.release(reading.held_bytes)

    def reserve(self, count: int) -> bool:
        """Take memory for bytes that arrived; return False where all bodies together hold too much."""
        if self._held_bytes + count > HELD_BODIES * max(self._max_bytes, MAX_SMALL_BYTES):
            return False
        self._held_bytes += count
        return True

    def release(self, count: int) -> None:
        """Give memory back."""
        self._held_bytes -= count


class _Reading:
    """The body of one request."""

    def __init__(self, limits: BodyLimits, scope: Scope, max_bytes: int) -> None:
        self.held_bytes = 0
        self._limits = limits
        self._headers = Headers(scope=scope)
        self._max_bytes = max_bytes
        self._body = b""

    async def read(self, receive: Receive, timeout_s: float) -> Problem | None:
        """Read the body; return why it is refused, or None."""
        announced = self._headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > self._max_bytes:
            return self._too_large()
        try:
            async with asyncio.timeout(timeout_s):
                problem = await self._gather(receive)
        except TimeoutError:
            detail = f"The body did not arrive within {timeout_s:g} seconds."
            return Problem(408, "slow_body", detail, headers={"Connection": "close"})
        if (
            problem is None
            and self._is_json()
            and await asyncio.to_thread(json_depth, self._body) > MAX_DEPTH
        ):
            detail = f"The JSON is nested deeper than {MAX_DEPTH} lists and objects."
            return Problem(422, "too_deep", detail)
        return problem

    def replay(self, receive: Receive) -> Receive:
        """Return what the application receives instead: the whole body, then what comes after it."""
        waiting = [{"type": "http.request", "body": self._body, "more_body": False}]
        self._body = b""

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        return receive_again

    async def _gather(self, receive: Receive) -> Problem | None:
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return Problem(400, "cut_off", "The connection was closed before the body was whole.")
            part = message.get("body", b"")
            more = message.get("more_body", False)
            if self.held_bytes + len(part) > self._max_bytes:
                return self._too_large()
            if not self._limits.reserve(len(part)):
                wait = {"Retry-After": "2"}
                return Problem(503, "too_many_bodies", "Too many large bodies at once.", headers=wait)
            self.held_bytes += len(part)
            parts.append(part)
        self._body = b"".join(parts)
        return None

    def _is_json(self) -> bool:
        kind = self._headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        return kind == "application/json" or kind.endswith("+json")

    def _too_large(self) -> Problem:
        return Problem(413, "too_large", f"The body is larger than {self._max_bytes:,} bytes.")


def json_depth(data: bytes) -> int:
    """Return how deep lists and objects are nested in JSON, at most; in linear time, without building any of it."""
    outside = np.frombuffer(_STRING.sub(b"", data), dtype=np.uint8)
    if not outside.size:
        return 0
    return max(0, int(np.cumsum(_STEPS[outside], dtype=np.int64).max()))
