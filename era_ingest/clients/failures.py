"""What an HTTP status and an error's body mean: which error, and so whether to wait, to split, or to stop."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from era_ingest.errors import (
    AuthenticationError,
    ConfigurationError,
    EraError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
    RequestTooLargeError,
    UpstreamUnavailableError,
)

if TYPE_CHECKING:
    from era_ingest.core.limiter import ServerHints

MAX_MESSAGE_CHARS = 300
"""No more of what a server says is repeated (infinity's 422 echoes the whole input)."""

_PAYMENT_REQUIRED = 402
_NOT_FOUND = 404
_TOO_LARGE = 413
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500
_NOT_IMPLEMENTED = 501
_STOPS = frozenset({401, _PAYMENT_REQUIRED, 403, _NOT_FOUND, _NOT_IMPLEMENTED})
_REJECTED = frozenset({400, _TOO_LARGE, 422, 424})
_TRANSIENT_4XX = frozenset({408, 409, 425})
_KEY_CODES = frozenset({"invalid_api_key", "authentication_error", "invalid_authentication"})
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """What the body of an error says.

    Attributes:
        text: For people, one line, at most ``MAX_MESSAGE_CHARS``.
        codes: ``error.code`` and ``error.type`` where they are, in lower case.
    """

    text: str
    codes: frozenset[str]


def parse_message(body: bytes) -> ServerMessage:
    """Return what an error's body says, in any of the dialects in use.

    OpenAI ``{"error": {"message", "type", "code"}}``; Ollama and TEI ``{"error": "..."}``; FastAPI
    ``{"detail": "..." | [{"msg", "input"}]}``; others ``{"message": "..."}`` or plain text.
    """
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ServerMessage(_one_line(body.decode("utf-8", "replace")), frozenset())
    found: object = document
    codes: set[str] = set()
    for _ in range(4):
        if isinstance(found, list):
            found = found[0] if found else ""
        if not isinstance(found, dict):
            break
        codes.update(str(found[key]).lower() for key in ("code", "type", "error_type") if found.get(key))
        found = next((found[key] for key in ("error", "message", "detail", "msg") if key in found), "")
    text = found if isinstance(found, str) else ""
    return ServerMessage(_one_line(text), frozenset(codes))


def build_failure(status: int, message: ServerMessage, hints: ServerHints, *, where: str) -> EraError:
    """Return the error that a status stands for.

    Args:
        status: Any but 200.
        message: What the body says; free of secrets.
        hints: What the headers say.
        where: The server's kind and URL.
    """
    said = f"{where} answered {status}" + (f": {message.text}" if message.text else ".")
    if message.codes & _KEY_CODES or status in _STOPS or "insufficient_quota" in message.codes:
        return _build_stop(status, message, said)
    if status == _TOO_MANY_REQUESTS:
        return _build_429(said, message, hints)
    if status in _REJECTED:
        kind = RequestTooLargeError if status == _TOO_LARGE else RequestRejectedError
        return kind(said, status=status, hints=hints)
    if status >= _SERVER_ERRORS or status in _TRANSIENT_4XX:
        return UpstreamUnavailableError(said, status=status, retry_after_s=hints.retry_after_s, hints=hints)
    return ConfigurationError(f"{said} This is not how an embedding server answers; check ERA_EMBED_URL.")


def _build_stop(status: int, message: ServerMessage, said: str) -> ConfigurationError:
    """Return the error of a status after which no other request would be answered either."""
    if status == _NOT_IMPLEMENTED:
        return ConfigurationError(f"{said} Check that ERA_EMBED_MODEL is an embedding model.")
    if status == _NOT_FOUND:
        return ModelNotFoundError(f"{said} Check ERA_EMBED_MODEL and ERA_EMBED_URL.")
    if status == _PAYMENT_REQUIRED or "insufficient_quota" in message.codes:
        return QuotaExhaustedError(f"{said} Nothing more is sent; add credit, then run again.")
    return AuthenticationError(f"{said} Check ERA_EMBED_API_KEY.")


def _build_429(said: str, message: ServerMessage, hints: ServerHints) -> EraError:
    """Tell "the request is too large" (waiting is useless) from "slow down".

    Source: OpenAI's error codes guide, and what its servers send: no money stands in ``code`` and ``type``
    (dealt with before); too large a request is told only by its message.
    """
    if message.text.lower().startswith("request too large"):
        return RequestTooLargeError(said, status=_TOO_MANY_REQUESTS, hints=hints)
    return RateLimitedError(said, retry_after_s=hints.retry_after_s, hints=hints)


def _one_line(text: str) -> str:
    line = _UNPRINTABLE.sub(" ", text[: 4 * MAX_MESSAGE_CHARS]).strip()
    return line if len(line) <= MAX_MESSAGE_CHARS else line[: MAX_MESSAGE_CHARS - 1] + "…"
