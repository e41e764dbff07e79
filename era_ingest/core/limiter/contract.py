"""What the driver asks of a controller, and what it tells it: the seat that every limiter fills.

Sans-I/O and clock-free: time comes in as an argument (seconds on any monotonic clock), decisions go out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class FailureKind(StrEnum):
    """Why a request failed, as far as flow control is concerned."""

    RATE_LIMITED = "rate_limited"
    """429 "slow down" (or Ollama's 503 "server busy"): the server is well, we are too fast."""
    SERVER_ERROR = "server_error"
    """5xx."""
    TIMEOUT = "timeout"
    """No answer within the request's time limit."""
    CONNECTION = "connection"
    """Refused, reset, or closed before the answer was whole."""
    REJECTED = "rejected"
    """The server is well and refuses these inputs (400, 413, 422, 424); says nothing about load."""


@dataclass(frozen=True, slots=True)
class ServerHints:
    """What a reply's headers say about the server's limits; None (or absent) where they say nothing.

    Attributes:
        limit_requests: ``x-ratelimit-limit-requests``, requests a window.
        remaining_requests: ``x-ratelimit-remaining-requests``.
        reset_requests_s: Seconds until the request window is full again.
        limit_tokens: ``x-ratelimit-limit-tokens``.
        remaining_tokens: ``x-ratelimit-remaining-tokens``.
        reset_tokens_s: Seconds until the token window is full again.
        retry_after_s: ``retry-after`` (seconds or date) or ``retry-after-ms``, in seconds, >= 0.
    """

    limit_requests: float | None = None
    remaining_requests: float | None = None
    reset_requests_s: float | None = None
    limit_tokens: float | None = None
    remaining_tokens: float | None = None
    reset_tokens_s: float | None = None
    retry_after_s: float | None = None


NO_HINTS = ServerHints()


@dataclass(frozen=True, slots=True)
class LimiterState:
    """A picture of a controller for people: progress lines, metadata, plots.

    Attributes:
        limit: Requests that may be in flight at present.
        in_flight: Requests that are.
        rate_per_s: Requests a second that the pace allows; None: no pace is set.
        held_by: What holds the next request: ``pipe``, ``quota``, ``rate``, ``turns`` (others use the same key),
        ``breaker``, ``fixed``, or ``""``.
        breaker_open: The server is taken for down; single probes go.
    """

    limit: float
    in_flight: int
    rate_per_s: float | None
    held_by: str
    breaker_open: bool = False


class Limiter(Protocol):
    """A controller of requests to one server. All times in seconds, all costs in tokens (>= 0)."""

    def gate(self, now: float, cost: float) -> float:
        """Return 0 if a request of this cost may go now, else seconds to wait.

        ``inf`` means: until the next event (a reply, a failure). A finite wait may turn out longer or
        shorter after an event: ask again then.
        """
        ...

    def on_send(self, now: float, cost: float) -> int:
        """Note a request that goes out now; return its ticket."""
        ...

    def on_success(
        self, now: float, ticket: int, *, hints: ServerHints = NO_HINTS, cost: float | None = None
    ) -> None:
        """Note a good reply; ``cost`` is what the server counted, where it said."""
        ...

    def on_failure(
        self, now: float, ticket: int, kind: FailureKind, *, hints: ServerHints = NO_HINTS
    ) -> None:
        """Note a failure."""
        ...

    def on_cancel(self, now: float, ticket: int) -> None:
        """Forget a request whose outcome will never be known (cancelled by us)."""
        ...

    def state(self, now: float) -> LimiterState:
        """Return a picture of the controller."""
        ...
