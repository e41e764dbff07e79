"""Who may call, and with what: the security cases, over HTTP."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from era_ingest.errors import ConfigurationError
from era_ingest.service.access import Scope, check_binding, find_grant, load_grants, new_token
from era_ingest.service.bodies import MAX_SMALL_BYTES, json_depth
from era_ingest.service.server import listen
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest_tests.service_kit import Installation, Served

READ, WRITE = new_token(Scope.READ), new_token(Scope.WRITE)
SEARCH = {"text": "patience"}
GRANTS = load_grants(load_settings(serve_tokens=SecretStr(f"{READ[1]}, {WRITE[1]}")))


@pytest.fixture(scope="module")
def guarded(shared_installation: Installation) -> Iterator[Served]:
    """A service with a reader's and a writer's token."""
    tokens = SecretStr(f"{READ[1]}, {WRITE[1]}")
    with shared_installation.serve(
        load_grants(load_settings(serve_tokens=tokens)), serve_timeout_s=1.0
    ) as served:
        yield served


@pytest.fixture(scope="module")
def local(shared_installation: Installation) -> Iterator[Served]:
    """A service without tokens, bound to the loopback interface."""
    with shared_installation.serve() as served:
        yield served


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_tokens_are_asked_for_and_only_their_hashes_are_known(guarded: Served) -> None:
    """No token, a wrong one, its hash, or another scheme: 401 for every path, told as a problem."""
    assert "WWW-Authenticate".lower() in guarded.ask("POST", "/v1/search", SEARCH).headers
    for headers in (
        {},
        bearer("wrong"),
        bearer(READ[1].partition(":")[2]),
        bearer(""),
        {"Authorization": f"Basic {READ[0]}"},
        {"Authorization": READ[0]},
    ):
        for method, path in (("POST", "/v1/search"), ("GET", "/v1/openapi.json"), ("GET", "/nowhere")):
            answer = guarded.ask(method, path, SEARCH if method == "POST" else None, headers=headers)
            assert (answer.status, answer.code) == (401, "no_token")
    known = guarded.ask("GET", "/v1/openapi.json", headers=bearer(READ[0]))
    assert known.status == 200
    assert guarded.ask("GET", "/nowhere", headers=bearer(READ[0])).code == "not_found"


def test_a_reader_may_search_and_write_nothing(guarded: Served) -> None:
    """What changes anything needs a writer's token; a search does not, though it is a POST."""
    assert guarded.ask("POST", "/v1/search", SEARCH, headers=bearer(READ[0])).code == "not_configured"
    for method, path in (("POST", "/v1/ingest"), ("DELETE", "/v1/jobs/x"), ("PUT", "/v1/search")):
        assert guarded.ask(method, path, headers=bearer(READ[0])).code == "read_only_token"


def test_health_needs_no_token_and_tells_nothing(guarded: Served) -> None:
    """Load balancers get a word a part."""
    assert guarded.ask("GET", "/healthz").json == {"status": "ok", "parts": {}}
    ready = guarded.ask("GET", "/readyz")
    assert ready.status == 200
    assert set(ready.json["parts"].values()) == {"ok"}


def test_every_answer_forbids_sniffing_and_no_answer_allows_other_origins(guarded: Served) -> None:
    """CORS is off: a browser shows no page of another origin what it got."""
    for method in ("GET", "OPTIONS"):
        answer = guarded.ask(
            method, "/v1/openapi.json", headers={"Origin": "https://evil.example", **bearer(READ[0])}
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_without_tokens_pages_of_other_sites_are_refused(local: Served) -> None:
    """Neither a page's cross-site request nor a name that was pointed to this machine gets through."""
    assert local.ask("POST", "/v1/search", SEARCH).code == "not_configured"
    own = {"Origin": f"http://127.0.0.1:{local.port}"}
    assert local.ask("POST", "/v1/search", SEARCH, headers=own).code == "not_configured"
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert local.ask("POST", "/v1/search", SEARCH, headers=headers).code == "foreign_page"
    for host in ("evil.example", "127.0.0.1.evil.example", "[", ""):
        assert local.ask("POST", "/v1/search", SEARCH, headers={"Host": host}).code == "foreign_host"


def test_only_the_loopback_interface_is_served_without_tokens() -> None:
    """Other addresses need a token, whatever family they are of."""
    for address in ("127.0.0.1", "127.8.8.8", "::1"):
        check_binding(address, ())
    grants = load_grants(load_settings(serve_tokens=READ[1]))
    for address in ("0.0.0.0", "::", "192.168.1.7"):
        check_binding(address, grants)
        with pytest.raises(ConfigurationError, match="--new-token"):
            check_binding(address, ())


def test_answers_are_not_held_back_by_the_kernel() -> None:
    """The socket says that it is TCP; otherwise asyncio leaves Nagle's algorithm on, 40 ms an answer."""
    with listen("127.0.0.1", 0, ()) as listener:
        assert listener.proto == socket.IPPROTO_TCP
    with pytest.raises(ConfigurationError, match="cannot be bound"), listen("203.0.113.1", 0, GRANTS):
        pass


def test_tokens_that_are_no_hashes_are_a_wrong_setting() -> None:
    """A token in the clear, or a hash without a scope, is refused; it is never repeated."""
    for raw in ("read:secret", READ[1].partition(":")[2], f"admin:{'0' * 64}"):
        with pytest.raises(ConfigurationError, match="wrong: no") as error:
            load_grants(load_settings(serve_tokens=raw))
        assert raw not in str(error.value)
    grants = load_grants(load_settings(serve_tokens=f"{READ[1]}\n{WRITE[1]}"))
    found = find_grant(grants, WRITE[0])
    assert found is not None
    assert found.scope is Scope.WRITE


@pytest.mark.parametrize(
    ("raw", "depth"),
    [
        (b"", 0),
        (b'"[[["', 0),
        (b'[{"a":[1]}]', 3),
        (b'{"\\"[": "]\\\\"}', 1),
        (b'"' + b'\\"' * 100_000 + b"[[", 0),
        (b"[" * 1_000_000, 1_000_000),
        (b'["' + b"\\", 1),
    ],
)
def test_depth_of_json_is_counted_outside_of_strings(raw: bytes, depth: int) -> None:
    """Brackets in strings do not count, and an open string costs no quadratic time."""
    assert json_depth(raw) == depth


def test_bodies_are_bounded_in_size_depth_and_time(guarded: Served) -> None:
    """Too large (announced or not), too deep, too slow: refused by name, and the service goes on."""
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + (
        f"Authorization: Bearer {READ[0]}\r\n".encode()
    )
    announced = guarded.send_raw(head + b"Content-Length: 99999999999\r\n\r\n")
    assert b"413" in announced.partition(b"\r\n")[0]
    chunk = b"%x\r\n" % 65_536 + b" " * 65_536 + b"\r\n"
    chunks = chunk * (MAX_SMALL_BYTES // 65_536 + 1)
    grown = guarded.ask("POST", "/v1/search", raw=b" " * (MAX_SMALL_BYTES + 1), headers=bearer(READ[0]))
    assert grown.code == "too_large"
    chunked = guarded.send_raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert b"413" in chunked.partition(b"\r\n")[0]
    slow = guarded.send_raw(head + b"Content-Length: 9\r\n\r\n{", ends=False)
    assert b"408" in slow.partition(b"\r\n")[0]
    deep = guarded.ask("POST", "/v1/search", raw=b"[" * 100_000, headers=bearer(READ[0]))
    assert (deep.status, deep.code) == (422, "too_deep")
    assert guarded.ask("GET", "/healthz").status == 200


def test_what_is_no_json_or_not_as_documented_is_named(guarded: Served) -> None:
    """Each wrong member has its pointer; what was sent is not repeated."""
    broken = guarded.ask("POST", "/v1/search", raw=b'{"text": ', headers=bearer(READ[0]))
    assert (broken.status, broken.code) == (422, "invalid_request")
    cases = {
        "/k": {"text": "x", "k": 10**6},
        "/min_score": {"text": "x", "min_score": 3},
        "/book": {"text": "x", "book": "a\0b"},
        "/category": {"text": "x", "category": "poem"},
        "/secret_member": {"text": "x", "secret_member": "hunter2"},
        "/vector/1": {"vector": [1.0, "hunter2"]},
        "": {},
    }
    for where, body in cases.items():
        answer = guarded.ask("POST", "/v1/search", body, headers=bearer(READ[0]))
        assert (answer.status, answer.code) == (422, "invalid_request")
        assert [item["pointer"] for item in answer.json["errors"]] == [where]
        assert b"hunter2" not in answer.body
    for raw in (
        b'{"text": "\\ud800"}',
        b'{"text": "x", "k": 1e999}',
        b'{"text": "x", "k": ' + b"9" * 5_000 + b"}",
    ):
        answer = guarded.ask("POST", "/v1/search", raw=raw, headers=bearer(READ[0]))
        assert answer.status in {400, 422}
        assert answer.code


def test_line_breaks_in_a_request_end_nowhere(guarded: Served) -> None:
    """CRLF in a path or query comes back in no header; bare control characters are no HTTP."""
    for path in ("/v1/context?query=a%0d%0aSet-Cookie:%20x=1", "/v1/x%0d%0aX-Evil:%201"):
        answer = guarded.ask("GET", path, headers=bearer(READ[0]))
        assert answer.code
        assert not {"set-cookie", "x-evil"} & answer.headers.keys()
    smuggled = guarded.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\n\r\n")
    assert b"400" in smuggled.partition(b"\r\n")[0]


def test_the_openapi_document_says_what_is_asked_for(guarded: Served, local: Served) -> None:
    """Every path but the health checks wants a token, where there are any; errors are documented as problems."""
    assert local.ask("GET", "/v1/openapi.json").json["paths"]["/v1/search"]["post"]["security"] == []
    document = json.loads(guarded.ask("GET", "/v1/openapi.json", headers=bearer(READ[0])).body)
    assert document["paths"]["/healthz"]["get"]["security"] == []
    search = document["paths"]["/v1/search"]["post"]
    assert search["security"] == [{"bearer": []}]
    assert "application/problem+json" in search["responses"]["4XX"]["content"]
    schemas = document["components"]["schemas"]
    refs = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert "ProblemBody" in refs
    assert refs <= schemas.keys()
