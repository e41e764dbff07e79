"""What stands before the application refuses people with a page, and programs with problem details."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from era_ingest.service.access import Scope, load_grants, new_token
from era_ingest.service.bodies import MAX_SMALL_BYTES
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from era_ingest_tests.service_kit import Answer, Installation, Served

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
READ = new_token(Scope.READ)


@pytest.fixture(scope="module")
def served(shared_installation: Installation) -> Iterator[Served]:
    """A service without tokens."""
    with shared_installation.serve() as opened:
        yield opened


def is_a_page(answer: Answer, status: int, *words: str) -> bool:
    """Say whether an answer is a page of ours that says certain words, and what it looks like can be loaded."""
    assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    html = answer.body.decode()
    assert '<link rel="stylesheet" href="/static/' in html
    return all(word in html for word in words)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Host": "evil.example"}, "names of this machine"),
        ({"Host": "["}, "names of this machine"),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, "pages of other sites"),
        ({"Origin": "https://evil.example"}, "pages of other sites"),
    ],
)
def test_who_may_not_come_in_is_told_so(served: Served, headers: Mapping[str, str], why: str) -> None:
    """403, as a page without a menu that would lead nowhere; to programs, and under /v1, as a problem."""
    shown = served.ask("GET", "/books", headers={**HTML, **headers})
    assert is_a_page(shown, 403, why)
    assert b"<nav" not in shown.body
    for path, accept in (("/books", JSON), ("/v1/jobs", HTML)):
        refused = served.ask("GET", path, headers={**accept, **headers})
        assert refused.status == 403
        assert refused.code in {"foreign_host", "foreign_page"}


def test_who_asks_too_often_is_told_when_to_come_again(shared_installation: Installation) -> None:
    """429 with Retry-After, which the page says in words; what the page looks like is never refused."""
    grants = load_grants(load_settings(serve_tokens=READ[1]))
    with shared_installation.serve(grants, serve_rate_per_s=0.001) as served:
        answers = [served.ask("GET", "/sign-in", headers=HTML) for _ in range(3)]
        wait_s = int(answers[-1].headers["retry-after"])
        assert wait_s > 1
        assert is_a_page(answers[-1], 429, "Try again", f"in {wait_s} seconds")
        assert served.ask("GET", "/sign-in", headers=JSON).code == "too_many_requests"
        looks = re.findall(r'"(/static/[^"]+)"', answers[-1].body.decode())
        assert len(looks) == 3
        assert {served.ask("GET", path).status for path in looks} == {200}


def test_what_is_too_large_for_a_form_is_refused_with_a_page(served: Served) -> None:
    """413, announced or not."""
    large = b"token=" + b"x" * MAX_SMALL_BYTES
    assert is_a_page(served.ask("POST", "/sign-in", raw=large, headers={**HTML, **FORM}), 413, "too large")
    assert served.ask("POST", "/sign-in", raw=large, headers={**JSON, **FORM}).code == "too_large"


def test_a_foreign_form_is_refused_with_a_page(shared_installation: Installation) -> None:
    """Whoever is made to sign in or out by another site sees why that does not work."""
    with shared_installation.serve(load_grants(load_settings(serve_tokens=READ[1]))) as served:
        foreign = {"Sec-Fetch-Site": "cross-site", **FORM}
        shown = served.ask("POST", "/sign-in", raw=b"token=x", headers={**HTML, **foreign})
        assert is_a_page(shown, 403, "Sign in on the page of this service itself")
        assert served.ask("POST", "/sign-in", raw=b"token=x", headers=foreign).code == "foreign_page"
