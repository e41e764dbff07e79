"""Signing in and out of the page, where the service asks for tokens."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from era_ingest.service.pages.door import SIGN_IN, SIGN_OUT, is_foreign, own_path
from era_ingest.service.pages.faces import show_problem
from era_ingest.service.pages.rendering import render
from era_ingest.service.pages.sessions import COOKIE, LIFETIME_S, Sessions
from era_ingest.service.problems import Problem

MAX_PATH_CHARS = 4_096
_FIELDS = 4

router = APIRouter(include_in_schema=False)


@router.get(SIGN_IN)
async def show_form(
    request: Request, wanted: Annotated[str, Query(alias="next", max_length=MAX_PATH_CHARS)] = "/"
) -> Response:
    """Ask for a token."""
    if not _sessions(request).needed:
        return RedirectResponse(own_path(wanted), 303)
    return render(request, "sign_in.html", wanted=own_path(wanted), refused=False)


@router.post(SIGN_IN)
async def sign_in(request: Request) -> Response:
    """Begin a session, if the token is known; go on to the page that was wanted."""
    if is_foreign(request.headers):
        return show_problem(
            request, Problem(403, "foreign_page", "Sign in on the page of this service itself.")
        )
    async with request.form(max_files=0, max_fields=_FIELDS) as form:
        token, wanted = str(form.get("token", "")).strip(), own_path(str(form.get("next", "/")))
    cookie = _sessions(request).open(token)
    if cookie is None:
        return render(request, "sign_in.html", status=401, wanted=wanted, refused=True)
    answer = RedirectResponse(wanted, 303)
    secure = request.headers.get("origin", "").startswith("https://")  # TLS ends before us, at a proxy
    answer.set_cookie(
        COOKIE, cookie, max_age=LIFETIME_S, httponly=True, samesite="strict", path="/", secure=secure
    )
    return answer


@router.post(SIGN_OUT)
async def sign_out(request: Request) -> Response:
    """End the session in this browser."""
    if is_foreign(request.headers):
        return show_problem(
            request, Problem(403, "foreign_page", "Sign out on the page of this service itself.")
        )
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def _sessions(request: Request) -> Sessions:
    sessions = request.app.state.sessions
    assert isinstance(sessions, Sessions)
    return sessions
