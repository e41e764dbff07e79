"""Before anything of a request is read: who asks, and may he? As ASGI middleware, outside of everything else."""

from __future__ import annotations

import ipaddress
import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse

from era_ingest.service.access import Scope, find_grant
from era_ingest.service.pages import door
from era_ingest.service.pages.faces import show_problem
from era_ingest.service.pages.sessions import COOKIE
from era_ingest.service.problems import Problem
from era_ingest.service.rates import MAX_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as RequestScope

    from era_ingest.service.access import Grant
    from era_ingest.service.pages.sessions import Sessions
    from era_ingest.service.rates import Rates

PUBLIC = frozenset({"/healthz", "/readyz"})
"""What load balancers ask without a token; it tells nothing."""
LOCAL_CALLER = "local"
_READING = frozenset({("POST", "/v1/search")})


class Guard:
    """Lets through whom the tokens allow; without any, programs of this machine that are no web page.

    A page in a browser can post to 127.0.0.1 without being able to read the answer, and read it too where its own
    name is made to point there. So without tokens, requests that a foreign page made, or that name another host,
    are refused; not so a link that somebody follows to our page.

    With tokens, people sign in with one: their session reads the page, and nothing under ``/v1``.

    Args:
        app: What is guarded.
        grants: The tokens; empty: only where bound to the loopback interface.
        sessions: Of people who signed in.
        rates: How much one caller may ask: a token, or the address of whoever has none.
    """

    def __init__(self, app: ASGIApp, grants: Sequence[Grant], sessions: Sessions, rates: Rates) -> None:
        self._app = app
        self._grants = grants
        self._sessions = sessions
        self._rates = rates

    async def __call__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with 401, 403 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if scope["path"] in PUBLIC or door.is_looks(scope["path"]):
            await self._app(scope, receive, send_marked)
            return
        grant = self._grant_of(scope)
        asker = grant.caller if grant else f"address {(scope.get('client') or ('',))[0]}"
        refusal = self._refuse_more(asker) or self._refuse(scope, grant)
        with self._rates.working(asker) as has_room:
            if not has_room:
                refusal = _too_many("too_many_at_once", f"at most {MAX_AT_ONCE} requests at once", 1.0)
            if isinstance(refusal, Problem):
                refusal = show_problem(Request(scope), refusal)
            answer = refusal or self._app
            await answer(scope, receive, send_marked)

    def _grant_of(self, scope: RequestScope) -> Grant | None:
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        return find_grant(self._grants, token.strip()) if scheme.lower() == "bearer" else None

    def _refuse_more(self, asker: str) -> Problem | None:
        wait_s = self._rates.take(asker)
        if not wait_s:
            return None
        return _too_many("too_many_requests", "as often as ERA_SERVE_RATE_PER_S says", wait_s)

    def _refuse(self, scope: RequestScope, grant: Grant | None) -> Problem | Response | None:
        """Return why a request is refused; None where it is not, its caller noted."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        state = scope.setdefault("state", {})
        if not self._grants:
            state["caller"] = LOCAL_CALLER
            return _refuse_pages(headers, follows_link=door.is_navigation(method, path, headers))
        if grant is None:
            return self._let_people_in(scope, headers)
        if grant.scope is not Scope.WRITE and not _only_reads(method, path):
            asked = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
            return Problem(403, "read_only_token", "This token may only read.", (), asked)
        state["caller"] = grant.caller
        return None

    def _let_people_in(self, scope: RequestScope, headers: Headers) -> Problem | Response | None:
        """Let a session read the page; send people without one to the sign-in, and programs away."""
        method, path = scope["method"], scope["path"]
        if path == door.SIGN_IN:
            return None
        reads = method in door.SAFE or path == door.SIGN_OUT
        caller = self._sessions.find(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))
        if caller is not None and reads and door.is_page(path):
            scope["state"] |= {"caller": caller, "session": True}
            return None
        if method in door.SAFE and door.asks_for_a_page(path, headers):
            return RedirectResponse(
                door.sign_in_url(path, scope["query_string"].decode("ascii", "replace")), 303
            )
        asked = {"WWW-Authenticate": "Bearer"}
        detail = "Send `Authorization: Bearer <token>` with a known token."
        return Problem(401, "no_token", detail, (), asked)


def _too_many(code: str, bound: str, wait_s: float) -> Problem:
    wait = {"Retry-After": f"{max(1, math.ceil(wait_s))}"}
    return Problem(429, code, f"A caller may ask {bound}: slow down.", headers=wait)


def _only_reads(method: str, path: str) -> bool:
    return method in door.SAFE or (method, path) in _READING


def _refuse_pages(headers: Headers, *, follows_link: bool) -> Problem | None:
    """Refuse what a web page of another site made a browser send."""
    host = headers.get("host", "")
    if not _is_local(host):
        detail = "Without tokens the service answers only to names of this machine, such as 127.0.0.1."
        return Problem(403, "foreign_host", detail)
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != host
    if foreign or (not follows_link and headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}):
        return Problem(403, "foreign_page", "Requests that pages of other sites make are refused.")
    return None


def _is_local(host: str) -> bool:
    """Say whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
