"""Which requests are for pages, and which of them another site made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
STATIC_PREFIX = "/static/"
SAFE = frozenset({"GET", "HEAD"})
_PROGRAMS = ("/v1/", "/healthz", "/readyz", "/metrics")
_OWN = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}")


def is_looks(path: str) -> bool:
    """Say whether a path is one of the files that pages load: they tell nothing, and refusals look like pages too."""
    return path.startswith(STATIC_PREFIX)


def is_page(path: str) -> bool:
    """Say whether people look at a path, rather than programs."""
    return not path.startswith(_PROGRAMS)


def asks_for_a_page(path: str, headers: Mapping[str, str]) -> bool:
    """Say whether a request wants to be answered with HTML, as browsers do."""
    return is_page(path) and "text/html" in headers.get("accept", "")


def is_navigation(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Say whether somebody follows a link to a page, from wherever: nothing is changed, nor read by the other site."""
    to_a_tab = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return method in SAFE and is_page(path) and to_a_tab


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Say whether a page of another site made a browser send this. Programs send neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"none", "same-origin"}
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def sign_in_url(path: str, query: str) -> str:
    """Return where to sign in, to come back to a page afterwards."""
    wanted = f"{quote(path)}?{query}" if query else quote(path)
    return f"{SIGN_IN}?next={quote(wanted, safe='')}"


def own_path(wanted: str) -> str:
    """Return a path of this service to go on to; the front page where it would lead anywhere else."""
    return wanted if _OWN.fullmatch(wanted) else "/"
