"""Errors as people see them: a page that says what happened and what to do, never a trace."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from era_ingest.service.pages.door import asks_for_a_page
from era_ingest.service.pages.rendering import render

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from era_ingest.service.problems import Problem

_HEADS = {
    403: "Not from there",
    404: "There is no such page",
    405: "Not like this",
    408: "That took too long to arrive",
    413: "That is too large",
    422: "That cannot be shown",
    429: "Too many requests just now",
    500: "Something went wrong",
    503: "Not available just now",
}
_NOT_LET_IN = frozenset({401, 403})
_NOTHING_SAID = "Nothing can be had at this address in this way; a link to it may be old."


def show_problem(request: Request, problem: Problem) -> Response:
    """Return an error as a page to whoever asked for one, as problem details to programs."""
    if not asks_for_a_page(request.scope["path"], request.headers):
        return problem.response()
    if problem.detail == HTTPStatus(problem.status).phrase:
        problem = replace(problem, detail=_NOTHING_SAID)
    head = _HEADS.get(problem.status, "That did not work")
    answer = render(
        request,
        "error.html",
        status=problem.status,
        head=head,
        problem=problem,
        bare=problem.status in _NOT_LET_IN,
        wait_s=int(problem.headers.get("Retry-After", 0)),
    )
    answer.headers.update(problem.headers)
    return answer
