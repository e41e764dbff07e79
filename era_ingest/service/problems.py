"""Errors as one JSON shape: problem details (RFC 9457), whatever part of the service they come from."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from era_ingest.core.defects import pointer
from era_ingest.errors import (
    BookRefusedError,
    ConflictError,
    EraError,
    NotFoundError,
    PermanentError,
    QueueFullError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:era-ingest:problem:"
MAX_ERRORS = 100
"""Places that one answer names, at most."""
_RETRY_AFTER_S = 5.0
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

_log = logging.getLogger(__name__)


class ProblemPlace(BaseModel):
    """One thing that is wrong, and where."""

    pointer: str = Field(description='JSON pointer (RFC 6901) into the body; "": the whole of it')
    reason: str = Field(description="a short stable code")
    detail: str


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(description=f"{TYPE_PREFIX}<code>; the code is stable")
    title: str
    status: int
    detail: str = Field(description="what happened, and what to do")
    errors: list[ProblemPlace] = Field([], description=f"what is wrong where, at most {MAX_ERRORS}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error answer.

    Attributes:
        status: HTTP status.
        code: Stable name of the kind of error.
        detail: What happened, and what to do.
        errors: What is wrong where: ``pointer``, ``reason``, ``detail`` each.
        headers: Further headers.
    """

    status: int
    code: str
    detail: str
    errors: tuple[Mapping[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """Return it as an answer; ASCII only, so that no text can break it."""
        body: dict[str, Any] = {
            "type": TYPE_PREFIX + self.code,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = list(self.errors[:MAX_ERRORS])
        return Response(json.dumps(body), self.status, dict(self.headers), MEDIA_TYPE)


def problem_of(error: EraError) -> Problem:
    """Return what an error of this project is over HTTP."""
    if isinstance(error, TransientError):
        code = "queue_full" if isinstance(error, QueueFullError) else "unavailable"
        wait_s = getattr(error, "retry_after_s", None) or _RETRY_AFTER_S
        return Problem(503, code, error.message, headers={"Retry-After": f"{max(1, math.ceil(wait_s))}"})
    if not isinstance(error, PermanentError):
        return Problem(503, "not_configured", error.message)
    if isinstance(error, BookRefusedError):
        places = tuple(_place(d.pointer, d.reason, d.detail) for d in error.defects)
        return Problem(422, "book_refused", error.message, places)
    if isinstance(error, ConflictError):
        return Problem(409, error.reason, error.message)
    missing = isinstance(error, NotFoundError)
    return Problem(404 if missing else 422, "not_found" if missing else "unprocessable", error.message)


def _place(where: str, reason: str, detail: str) -> dict[str, str]:
    return {"pointer": where, "reason": reason, "detail": detail}


def add_handlers(app: FastAPI, show: Callable[[Request, Problem], Response]) -> None:
    """Let every error of the application end as a problem.

    Args:
        app: The application.
        show: Makes the answer: problem details, or a page for people.
    """

    async def era(request: Request, error: Exception) -> Response:
        assert isinstance(error, EraError)
        return show(request, problem_of(error))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        places = tuple(_place(*_explain(item)) for item in error.errors())
        detail = "The request is not as it should be; `errors` says what is wrong where."
        return show(request, Problem(422, "invalid_request", detail, places))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        headers = dict(error.headers or {})
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(request))
        return show(request, Problem(status, status.name.lower(), error.detail, headers=headers))

    async def unknown(request: Request, error: Exception) -> Response:
        _log.error("a request failed", exc_info=error)
        detail = "Something unforeseen happened; the service's log says what."
        return show(request, Problem(500, "internal_error", detail))

    app.add_exception_handler(EraError, era)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unknown)


def _methods(request: Request) -> list[str]:
    """Return the methods of all routes at a request's path; the router names those of the first alone."""
    return [
        method
        for method in _METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]


def _explain(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return place, reason and detail of one thing that pydantic found; never what was sent."""
    where, *path = item["loc"]
    text = str(item["msg"])
    if where == "body":
        return pointer(*path), str(item["type"]), text
    return "", str(item["type"]), f"{where} parameter {'.'.join(map(str, path))}: {text}"
