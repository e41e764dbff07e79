"""The service's own requests, counted around everything else; routes by their templates, never by what was asked."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS_S: Final = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
NO_ROUTE: Final = "none"
"""The route of what was refused before it came to one, or leads nowhere."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = logging.getLogger(__name__)


class HttpMetrics:
    """Counts requests by method, route and status, and times them until their answer begins.

    Args:
        app: Whose requests.
        registry: Where they are counted.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of creation beside each series says nothing here
        self._app = app
        self._requests = Counter(
            "era_http_requests",
            "Requests to this process, by route and status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "era_http_request_duration_seconds",
            "Time from a request's first byte until its answer begins.",
            ("method", "route"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._open = Gauge(
            "era_http_requests_in_progress", "Requests that are being answered.", registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, str(message["status"]), time.perf_counter() - started)
            await send(message)

        with self._open.track_inprogress():
            await self._app(scope, receive, send_counted)

    def _count(self, scope: Scope, status: str, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        facts = {"method": method, "route": route, "status": int(status), "seconds": round(seconds, 4)}
        _log.debug("request answered", extra={**facts, "caller": scope.get("state", {}).get("caller")})
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)
