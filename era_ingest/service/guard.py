"""Before anything of a request is read: who asks, and may he? As ASGI middleware, outside of everything else."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from era_ingest.service.access import Scope, find_grant
from era_ingest.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as Request

    from era_ingest.service.access import Grant

PUBLIC = frozenset({"/healthz", "/readyz"})
"""What load balancers ask without a token; it tells nothing."""
LOCAL_CALLER = "local"
_READING = frozenset({("POST", "/v1/search")})
_SAFE = frozenset({"GET", "HEAD"})


class Guard:
    """Lets through whom the tokens allow; without any, programs of this machine that are no web page.

    A page in a browser can post to 127.0.0.1 without being able to read the answer, and read it too where its own
    name is made to point there. So without tokens, requests that a foreign page made, or that name another host,
    are refused.

    Args:
        app: What is guarded.
        grants: The tokens; empty: only where bound to the loopback interface.
    """

    def __init__(self, app: ASGIApp, grants: Sequence[Grant]) -> None:
        self._app = app
        self._grants = grants

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if scope["path"] not in PUBLIC:
            refusal = self._refuse(scope)
            if refusal is not None:
                await refusal.response()(scope, receive, send_marked)
                return
        await self._app(scope, receive, send_marked)

    def _refuse(self, scope: Request) -> Problem | None:
        """Return why a request is refused; None where it is not, its caller noted."""
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        if not self._grants:
            state["caller"] = LOCAL_CALLER
            return _refuse_pages(headers)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        grant = find_grant(self._grants, token.strip()) if scheme.lower() == "bearer" else None
        if grant is None:
            asked = {"WWW-Authenticate": "Bearer"}
            return Problem(
                401, "no_token", "Send `Authorization: Bearer <token>` with a known token.", (), asked
            )
        if grant.scope is not Scope.WRITE and not _only_reads(scope["method"], scope["path"]):
            asked = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
            return Problem(403, "read_only_token", "This token may only read.", (), asked)
        state["caller"] = grant.caller
        return None


def _only_reads(method: str, path: str) -> bool:
    return method in _SAFE or (method, path) in _READING


def _refuse_pages(headers: Headers) -> Problem | None:
    """Refuse what a web page of another site made a browser send."""
    host = headers.get("host", "")
    if not _is_local(host):
        detail = "Without tokens the service answers only to names of this machine, such as 127.0.0.1."
        return Problem(403, "foreign_host", detail)
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != host
    if foreign or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return Problem(403, "foreign_page", "Requests that pages of other sites make are refused.")
    return None


def _is_local(host: str) -> bool:
    """Say whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
