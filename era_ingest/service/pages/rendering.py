"""Templates to HTML: every value is escaped, numbers and times are written in one way, nothing foreign is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from fastapi.responses import HTMLResponse

from era_ingest.service.parts import parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # a search is nobody else's business
    "X-Frame-Options": "DENY",
}
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_FIRST_STRONG, _POP = "\u2068", "\u2069"
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_RECENT_DAYS = 30


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that pages load: its bytes, type, and a hash of them, which makes its address."""

    data: bytes
    media_type: str
    digest: str


def load_static() -> dict[str, StaticFile]:
    """Return the files that pages load, by name."""
    folder = resources.files("era_ingest.service.pages").joinpath("static")
    found = {}
    for item in folder.iterdir():
        data = item.read_bytes()
        found[item.name] = StaticFile(
            data, _TYPES[item.name.rpartition(".")[2]], sha256(data).hexdigest()[:16]
        )
    return found


STATIC = load_static()


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page."""
    settings = parts_of(request).settings
    html = _ENVIRONMENT.get_template(template).render(
        path=request.scope["path"],  # not of the URL: a Host header may be none
        base=str(request.base_url),
        signed_in=getattr(request.state, "session", False),
        dagster=(settings.dagster_url or "").rstrip("/"),
        now=time.time(),
        **values,
    )
    return HTMLResponse(html, status, HEADERS)


def static_url(name: str) -> str:
    """Return the address of a file that pages load; it changes with its content, so that it may be kept for ever."""
    return f"/static/{STATIC[name].digest}/{name}"


def show_count(value: float) -> str:
    """Write a count with thousands separators."""
    return f"{value:,.0f}"


def show_figure(value: float) -> str:
    """Write a measured value to three figures."""
    if value >= 100:  # noqa: PLR2004 - three figures
        return f"{value:,.0f}"
    return f"{value:.3g}"


def show_seconds(seconds: float | None) -> str:
    """Write a span of time in two units at most."""
    if seconds is None:
        return "–"  # noqa: RUF001 - the dash of an empty cell
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two figures
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S:.0f} min {seconds % _MINUTE_S:.0f} s"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S:.0f} h {seconds % _HOUR_S // _MINUTE_S:.0f} min"
    return f"{seconds // _DAY_S:,.0f} d {seconds % _DAY_S // _HOUR_S:.0f} h"


def show_about(seconds: float) -> str:
    """Write an estimate of a span of time, in one unit."""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:,.0f} h"


def show_ago(moment: datetime, now: float) -> str:
    """Write how long ago a moment was; after a month, its date."""
    seconds = now - moment.timestamp()
    if seconds < _MINUTE_S:
        return "just now"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S:.0f} min ago"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S:.0f} h ago"
    if seconds < _RECENT_DAYS * _DAY_S:
        days = int(seconds // _DAY_S)
        return "yesterday" if days == 1 else f"{days} days ago"
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def show_moment(moment: datetime) -> str:
    """Write a moment to the second, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def isolate(text: str) -> str:
    """Return a text that does not turn round what stands beside it, for where no element can: a page's title."""
    return f"{_FIRST_STRONG}{text}{_POP}"


def _build_environment(filters: Mapping[str, Any]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("era_ingest.service.pages"),
        autoescape=True,
        auto_reload=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    environment.globals["static"] = static_url
    return environment


_ENVIRONMENT = _build_environment(
    {
        "count": show_count,
        "figure": show_figure,
        "seconds": show_seconds,
        "about": show_about,
        "ago": show_ago,
        "moment": show_moment,
        "isolate": isolate,
    }
)
