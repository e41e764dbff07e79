"""Signing in to the page: who gets in, for how long, and that no other site takes part in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from era_ingest.service.access import Scope, load_grants, new_token
from era_ingest.service.pages.sessions import LIFETIME_S, Sessions
from era_ingest.settings import load_settings
from era_ingest_tests.service.page_kit import HTML, see, submit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.service.access import Grant
    from era_ingest_tests.service_kit import Installation, Served

READ, WRITE = new_token(Scope.READ), new_token(Scope.WRITE)
GRANTS = load_grants(load_settings(serve_tokens=SecretStr(f"{READ[1]}, {WRITE[1]}")))


@pytest.fixture(scope="module")
def guarded(shared_installation: Installation) -> Iterator[Served]:
    """A service with a reader's and a writer's token."""
    with shared_installation.serve(GRANTS) as opened:
        yield opened


def test_people_sign_in_with_a_token_and_read(guarded: Served) -> None:
    """They are led to the form and back to where they wanted to go; their cookie reads pages, and nothing else."""
    wanted = "/books?q=slow"
    led = guarded.ask("GET", wanted, headers=HTML)
    assert (led.status, led.headers["location"]) == (303, f"/sign-in?next={quote(wanted, safe='')}")
    assert 'name="next" value="/books?q=slow"' in see(guarded, led.headers["location"])
    wrong = submit(guarded, "/sign-in", token="wrong", next=wanted)
    assert wrong.status == 401
    assert "not known" in wrong.body.decode()
    assert "set-cookie" not in wrong.headers
    for token in (READ[0], WRITE[0]):
        signed = submit(guarded, "/sign-in", token=f" {token}\n", next=wanted)
        assert (signed.status, signed.headers["location"]) == (303, wanted)
        cookie, _, flags = signed.headers["set-cookie"].partition(";")
        assert {"httponly", "samesite=strict", "path=/"} <= {
            flag.strip().lower() for flag in flags.split(";")
        }
        assert token not in cookie
        assert "Sign out" in see(guarded, wanted, headers={"Cookie": cookie})
        for method, path in (
            ("GET", "/v1/jobs"),
            ("POST", "/v1/search"),
            ("POST", "/v1/ingest"),
            ("GET", "/metrics"),
        ):
            assert guarded.ask(method, path, headers={**HTML, "Cookie": cookie}).code == "no_token"
        assert guarded.ask("POST", "/books", headers={"Cookie": cookie}).code == "no_token"
        forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
        for bad in (forged, "era_session=", "era_session=a.1.b", cookie.replace("=", "=0")):
            assert guarded.ask("GET", "/", headers={**HTML, "Cookie": bad}).status == 303
    out = submit(guarded, "/sign-out", cookie)
    assert out.status == 303
    assert "max-age=0" in out.headers["set-cookie"].lower()


def test_behind_tls_the_cookie_never_leaves_it(guarded: Served) -> None:
    """The proxy speaks plainly to us; the browser says where it is."""
    origin = f"https://127.0.0.1:{guarded.port}"
    assert (
        "; secure" in submit(guarded, "/sign-in", origin=origin, token=READ[0]).headers["set-cookie"].lower()
    )
    assert "; secure" not in submit(guarded, "/sign-in", token=READ[0]).headers["set-cookie"].lower()


def test_no_other_site_signs_anybody_in_or_leads_them_away(guarded: Served) -> None:
    """A form of another page is refused; the way back stays on this service."""
    for path in ("/sign-in", "/sign-out"):
        foreign = submit(guarded, path, origin="https://evil.example", token=READ[0])
        assert foreign.status in {401, 403}
        assert "set-cookie" not in foreign.headers
    crossed = guarded.ask(
        "POST",
        "/sign-in",
        raw=b"token=x",
        headers={"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
    )
    assert crossed.code == "foreign_page"
    for away in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/\tx",
        "javascript:alert(1)",
        "",
    ):
        signed = submit(guarded, "/sign-in", token=READ[0], next=away)
        assert signed.headers["location"] == "/", away


def test_programs_are_not_led_to_a_form(guarded: Served) -> None:
    """Without a token they are told so, whatever they ask for; with one they may read pages too."""
    assert guarded.ask("GET", "/").code == "no_token"
    assert guarded.ask("GET", "/v1/jobs", headers=HTML).code == "no_token"
    assert guarded.ask("GET", "/sign-in").status == 200
    assert "Overview" in see(guarded, "/", headers={"Authorization": f"Bearer {READ[0]}"})


def test_a_session_goes_on_elsewhere_and_ends_with_its_time_and_the_tokens() -> None:
    """Another process with the same tokens takes it; one with others, or after twelve hours, does not."""
    now = [1_000.0]

    def at_another(*grants: Grant) -> str | None:
        return Sessions(grants, clock=lambda: now[0]).find(cookie)

    opened = Sessions(GRANTS, clock=lambda: now[0])
    cookie = opened.open(READ[0]) or ""
    assert opened.open("unknown") is None
    assert opened.find(cookie) == at_another(*GRANTS) == at_another(*reversed(GRANTS)) == GRANTS[0].caller
    added = load_grants(load_settings(serve_tokens=new_token(Scope.READ)[1]))
    promoted = replace(GRANTS[0], scope=Scope.WRITE)
    for changed in (GRANTS[:1], GRANTS[1:], (*GRANTS, *added), (promoted, *GRANTS[1:]), ()):
        assert at_another(*changed) is None
    assert opened.find(f"{cookie.partition('.')[0]}.{int(now[0]) + 10 * LIFETIME_S}.{cookie[-64:]}") is None
    now[0] += LIFETIME_S - 1
    assert at_another(*GRANTS) == GRANTS[0].caller
    now[0] += 1
    assert at_another(*GRANTS) is None


def test_people_stay_signed_in_over_a_restart(installation: Installation) -> None:
    """The cookie of one service opens the page of the next one, and none where the token is gone."""
    with installation.serve(GRANTS) as first:
        cookie = submit(first, "/sign-in", token=READ[0]).headers["set-cookie"].partition(";")[0]
    with installation.serve(GRANTS) as second:
        assert second.ask("GET", "/", headers={**HTML, "Cookie": cookie}).status == 200
    with installation.serve(GRANTS[1:]) as third:
        assert third.ask("GET", "/", headers={**HTML, "Cookie": cookie}).status == 303
