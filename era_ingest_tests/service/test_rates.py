"""How much a caller may ask of the service, how long it may take, and what happens while the database is away."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from era_ingest.pipelines.search import Searcher
from era_ingest.service import readiness
from era_ingest.service.access import Scope, load_grants, new_token
from era_ingest.service.rates import BURST_S, MAX_AT_ONCE, MAX_CALLERS, Rates
from era_ingest.service.readiness import Readiness
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import build_doctrine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest_tests.service_kit import Answer, Installation, Served

READ, WRITE = new_token(Scope.READ), new_token(Scope.WRITE)
SEARCH = {"text": "patience"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_bucket_fills_at_its_rate() -> None:
    """Two seconds' worth at once, then one at a time; the wait that it tells is enough; others are not touched."""
    now = [100.0]
    rates = Rates(5.0, clock=lambda: now[0])
    assert [rates.take("a") for _ in range(int(5 * BURST_S))] == [0.0] * 10
    wait_s = rates.take("a")
    assert wait_s == pytest.approx(0.2)
    assert rates.take("b") == 0.0
    now[0] += wait_s
    assert rates.take("a") == 0.0
    assert rates.take("a") > 0
    now[0] += 1_000
    assert [rates.take("a") for _ in range(11)].count(0.0) == 10


def test_rates_remember_a_bounded_number_of_callers() -> None:
    """Whoever asked longest ago is forgotten first."""
    rates = Rates(1.0, clock=lambda: 0.0)
    for number in range(MAX_CALLERS + 100):
        rates.take(str(number))
    assert len(rates._buckets) == MAX_CALLERS
    assert Rates(0.0).take("x") == 0.0


def test_only_so_many_requests_of_a_caller_are_worked_on_at_once() -> None:
    """One more is refused; when one ends there is room again, and nothing is left of a caller who is gone."""
    rates = Rates(0.0)
    contexts = [rates.working("a") for _ in range(MAX_AT_ONCE)]
    assert all(context.__enter__() for context in contexts)
    with rates.working("a") as room, rates.working("b") as other:
        assert (room, other) == (False, True)
    contexts.pop().__exit__(None, None, None)
    with rates.working("a") as room:
        assert room
    for context in contexts:
        context.__exit__(None, None, None)
    assert not rates._at_once


def test_a_caller_who_asks_too_often_is_told_when_to_come_again(shared_installation: Installation) -> None:
    """By token, so that another is not touched; guesses at tokens by their address; health is never refused."""
    grants = load_grants(load_settings(serve_tokens=f"{READ[1]},{WRITE[1]}"))
    with shared_installation.serve(grants, serve_rate_per_s=0.01) as served:
        answers = [served.ask("POST", "/v1/search", SEARCH, headers=bearer(READ[0])) for _ in range(3)]
        assert [answer.status for answer in answers].count(429) == 2
        assert answers[-1].code == "too_many_requests"
        assert 0 < int(answers[-1].headers["retry-after"]) <= 100
        other = served.ask("POST", "/v1/search", SEARCH, headers=bearer(WRITE[0]))
        assert other.status != 429
        guesses = [served.ask("GET", "/v1/jobs", headers=bearer(f"guess {n}")).status for n in range(3)]
        assert guesses == [401, 429, 429]
        assert {served.ask("GET", "/healthz").status for _ in range(5)} == {200}


def test_a_request_that_takes_too_long_is_ended(
    shared_installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 503 and when to try again; what it worked on is cancelled."""
    cancelled = threading.Event()

    async def never(*_: object, **__: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(Searcher, "find", never)
    with shared_installation.serve(serve_timeout_s=0.5) as served:
        answer = served.ask("POST", "/v1/search", SEARCH)
        assert (answer.status, answer.code) == (503, "too_slow")
        assert int(answer.headers["retry-after"]) > 0
        assert cancelled.wait(60)
        assert served.ask("GET", "/healthz").status == 200


async def test_readiness_is_asked_once_however_many_want_to_know() -> None:
    """All of them within a second share one answer."""
    now, asked = [0.0], []

    async def ping() -> None:
        asked.append(now[0])
        await asyncio.sleep(0)

    parts = Readiness({"database": ping}, clock=lambda: now[0])
    for at in (0.0, readiness.KEPT_S / 2, readiness.KEPT_S):
        now[0] = at
        states = await asyncio.gather(*(parts.states() for _ in range(50)))
        assert states == [{"database": "ok"}] * 50
    assert asked == [0.0, readiness.KEPT_S]


def test_a_wrong_method_is_told_the_right_ones(shared_installation: Installation) -> None:
    """Of all routes of the path."""
    with shared_installation.serve() as served:
        for path, allowed in (
            ("/v1/jobs/00000000-0000-0000-0000-000000000000", "DELETE, GET"),
            ("/v1/search", "POST"),
            ("/healthz", "GET"),
        ):
            answer = served.ask("PATCH", path)
            assert (answer.status, answer.code) == (405, "method_not_allowed")
            assert answer.headers["allow"] == allowed


def test_one_multipart_body_holds_one_book(installation: Installation) -> None:
    """Two files, or a file and something else, are refused in words; nothing is written."""
    boundary = {"Content-Type": "multipart/form-data; boundary=xx"}
    part = b'--xx\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n# One\n\nFinish it.\r\n'
    field = b'--xx\r\nContent-Disposition: form-data; name="more"\r\n\r\nx\r\n'
    end = b"--xx--\r\n"
    with installation.serve() as served:
        for body in (
            part % (b"file", b"a.md") + part % (b"file", b"b.md") + end,
            part % (b"file", b"a.md") + part % (b"other", b"b.md") + end,
            part % (b"file", b"a.md") + field + end,
            part % (b"other", b"a.md") + end,
        ):
            answer = served.ask("POST", "/v1/ingest", raw=body, headers=boundary)
            assert (answer.status, answer.code) == (422, "unprocessable")
            assert "one book" in answer.json["detail"]
    assert not installation.landing.exists()


def test_what_is_sent_writes_no_line_of_the_log(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """Line breaks and control characters of names, paths, keys and bodies appear in no record, nor a whole token."""
    forged = "a%0aERROR%20root%20forged%0d%1b[31m"
    with caplog.at_level(logging.DEBUG), installation.serve() as served:
        for method, path in (
            ("POST", f"/v1/ingest?book={forged}"),
            ("GET", f"/v1/jobs/{forged}"),
            ("GET", f"/v1/{forged}"),
            ("GET", f"/v1/context?query={forged}"),
            ("GET", f"/v1/jobs?book={forged}"),
        ):
            served.ask(method, path, headers=bearer("secret-token"))
        served.ask(
            "POST", "/v1/search", {"text": "x\nERROR root forged"}, headers={"Idempotency-Key": "forged"}
        )
    said = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("psycopg")
    )
    assert "forged" not in said
    assert "secret-token" not in said


@pytest.fixture
def away(installation: Installation, server_url: str) -> Iterator[Away]:
    """A database that can be taken away."""
    switch = Away(server_url, installation.url)
    yield switch
    switch.back()


class Away:
    """Takes one database away from everybody, and gives it back.

    Args:
        server_url: Of another database of the server.
        url: Of that database.
    """

    def __init__(self, server_url: str, url: str) -> None:
        self._server_url = server_url
        self._name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]

    def gone(self) -> None:
        self._allow(allowed=False)
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
                (self._name,),
            )

    def back(self) -> None:
        self._allow(allowed=True)

    def _allow(self, *, allowed: bool) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            statement = sql.SQL("alter database {} allow_connections {}")
            connection.execute(statement.format(sql.Identifier(str(self._name)), sql.Literal(allowed)))


def test_without_the_database_every_request_is_answered_and_streams_wait(
    installation: Installation, away: Away
) -> None:
    """503 with Retry-After for bodies, lists and new streams; a stream that was open goes on once it is back."""
    with installation.serve(serve_search_timeout_s=0.5) as served, ThreadPoolExecutor(8) as threads:
        job = served.ask("POST", "/v1/ingest?book=first", build_doctrine("first")).json["job_id"]
        assert Waiter().until(lambda: _is_queued(installation), 60)
        connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("GET", f"/v1/jobs/{job}/events")
        stream = connection.getresponse()
        assert stream.readline() == b"event: job\n"
        away.gone()
        requests: list[tuple[str, str, Any]] = [
            ("POST", "/v1/ingest?book=second", build_doctrine("second")),
            ("POST", "/v1/search", SEARCH),
            ("GET", "/v1/context?query=x", None),
            ("GET", "/v1/jobs", None),
            ("GET", f"/v1/jobs/{job}", None),
            ("GET", f"/v1/jobs/{job}/events", None),
            ("DELETE", f"/v1/jobs/{job}", None),
        ]
        answers = list(threads.map(lambda one: served.ask(*one), requests))
        assert [(answer.status, answer.code) for answer in answers] == [(503, "unavailable")] * len(requests)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert served.ask("GET", "/readyz").status == 503
        assert served.ask("GET", "/healthz").status == 200
        away.back()
        assert Waiter().until(lambda: served.ask("GET", f"/v1/jobs/{job}").status == 200, 60)
        assert served.ask("DELETE", f"/v1/jobs/{job}").json["state"] == "cancelled"
        told = stream.read().decode()
        connection.close()
    assert json.loads(told.strip().rpartition("data: ")[2])["state"] == "cancelled"
    assert installation.count("select count(*) from era.jobs") == 1


def _is_queued(installation: Installation) -> bool:
    return installation.count("select count(*) from era.jobs where requested_at is not null") == 1


def test_a_book_posted_again_before_it_lay_there_is_placed_by_the_second_post(
    installation: Installation,
) -> None:
    """As after a crash between acceptance and the landing folder: the caller who is told of the job may rely on it."""
    key = {"Idempotency-Key": "again"}

    def post(served: Served) -> Answer:
        return served.ask("POST", "/v1/ingest?book=again", build_doctrine("again"), headers=key)

    with installation.serve() as served:
        first = post(served).json["job_id"]
        assert Waiter().until(lambda: _is_queued(installation), 60)
        (installation.landing / "again.json").unlink()
        with psycopg.connect(installation.url) as connection:
            connection.execute(
                "update era.jobs set placed_at = null, requested_at = null, accepted_at = now()"
            )
        second = post(served).json
        assert (second["job_id"], second["repeated"]) == (first, True)
        assert (installation.landing / "again.json").is_file()
        assert Waiter().until(lambda: _is_queued(installation), 60)
