"""No request is worked on for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request

from era_ingest.service.bodies import BOOKS_PATH
from era_ingest.service.pages.faces import show_problem
from era_ingest.service.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ_BYTES_PER_S = 1_000_000
"""Reading a book takes a second of CPU a megabyte, at most: its request may take that much longer."""
_RETRY_AFTER_S = 5


class Deadline:
    """Ends the work on a request whose answer does not begin in time, and says so; streams, once begun, go on.

    Args:
        app: What does the work, bodies at hand.
        timeout_s: How long it may take, seconds; a posted book's bytes are allowed for besides.
    """

    def __init__(self, app: ASGIApp, *, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowed_s = self._timeout_s
        if scope["path"] == BOOKS_PATH:
            allowed_s += scope["state"]["body_bytes"] / READ_BYTES_PER_S
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            if not begun and not deadline.expired():
                deadline.reschedule(None)
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(allowed_s) as deadline:
                await self._app(scope, receive, send_and_note)
        except TimeoutError:
            if begun or not deadline.expired():
                raise
            wait = {"Retry-After": f"{_RETRY_AFTER_S}"}
            detail = f"It was not done within {allowed_s:g} seconds (ERA_SERVE_TIMEOUT_S)."
            problem = Problem(503, "too_slow", detail, headers=wait)
            await show_problem(Request(scope), problem)(scope, receive, send)
