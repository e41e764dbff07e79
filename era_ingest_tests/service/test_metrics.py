"""What ``/metrics`` shows: true, bounded, cheap, and there while the database is not."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from era_ingest.pipelines.telemetry import EVERY_S
from era_ingest.service.access import Scope, load_grants, new_token
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

if TYPE_CHECKING:
    import pytest

    from era_ingest_tests.service_kit import Installation, Served

PATIENCE_S = 120.0
Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]
CHAPTERS = [
    {
        "chapter_index": n,
        "raw_text": "",
        "domains": ["strategy"],
        "principles": [f"thing {n} {m}" for m in range(20)],
    }
    for n in range(3)
]


def scrape(served: Served, headers: dict[str, str] | None = None) -> Scrape:
    """Return the samples of one scrape by name and labels; none stands twice."""
    answer = served.ask("GET", "/metrics", headers=headers)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [s for family in text_string_to_metric_families(answer.body.decode()) for s in family.samples]
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def wait_until_up(served: Served, up: int, *, parts: tuple[str, ...]) -> None:
    """Scrape until parts are up (1) or away (0); what was gathered before is shown for as long as it is kept."""

    def are() -> bool:
        found = scrape(served)
        return all(value(found, "era_up", part=part) == up for part in parts)

    assert Waiter().until(are, PATIENCE_S), parts


def value(found: Scrape, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def ingest(installation: Installation, **variables: str) -> dict[str, object]:
    """Run ``era ingest`` in a process of its own over the landing folder; return its summary."""
    done = subprocess.run(
        [sys.executable, "-m", "era_ingest", "ingest", "--json", "-q", str(installation.landing)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, 3}, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(summary, dict)
    return summary


def _write(installation: Installation, name: str, book: object) -> None:
    installation.landing.mkdir(exist_ok=True)
    (installation.landing / f"{name}.json").write_text(json.dumps(book))


def test_metrics_are_the_sums_of_the_runs_of_other_processes_and_survive_a_restart(
    installation: Installation,
) -> None:
    """Two ``era ingest`` in processes that are over by now; a second service shows the same."""
    odd = {"chapter_index": 9, "raw_text": "", "rules": [{"odd": 1}, "another thing"]}
    _write(installation, "one", {"chapters": CHAPTERS})
    with installation.serve() as served:
        empty = scrape(served)
        assert value(empty, "era_up", part="database") == 1
        assert value(empty, "era_books") == value(empty, "era_queue_depth") == 0
        began = time.time()
        first = ingest(installation)
        _write(installation, "two", {"chapters": [*CHAPTERS, odd]})
        second = ingest(installation)
        ended = time.time()
    with installation.serve() as served:
        found = scrape(served)
        counted = installation.count("select count(*) from era.doctrine_embeddings_all")
        assert (
            value(found, "era_rows", kind="entry") + value(found, "era_rows", kind="passage") == counted > 60
        )
        model = next(dict(labels)["model"] for name, labels in found if name == "era_texts_embedded_total")
        for name, labels in (("texts_embedded", {"model": model}), ("rows_written", {})):
            wanted = int(str(first[name])) + int(str(second[name]))
            assert value(found, f"era_{name}_total", **labels) == wanted > 0, name
        assert value(found, "era_texts_reused_total") == 60  # book two's; unchanged ones do not count
        assert value(found, "era_embedding_requests_total", model=model, outcome="ok") == int(
            str(first["requests"])
        ) + int(str(second["requests"]))
        latency = "era_embedding_request_duration_seconds"
        assert value(found, f"{latency}_count", model=model) == value(
            found, f"{latency}_bucket", model=model, le="+Inf"
        )
        assert value(found, "era_quarantine_rows", kind="item", reason="unknown_item_shape") == 1
        assert value(found, "era_books") == 2
        assert value(found, "era_runs", status="success") == 4  # each ingested, and built minister files
        assert value(found, "era_stale_domains") == 0
        for asset in ("books", "chunks", "embeddings", "vector_tables", "minister_files", "domain_index"):
            made = value(found, "era_asset_last_success_timestamp_seconds", asset=asset)
            assert began < made <= ended
        assert began < value(found, "era_run_last_success_timestamp_seconds", job="ingest") <= ended
        names = {label for _, pairs in found for label, _ in pairs}
        assert not names & {"book", "text", "run", "run_id", "path", "slug"}
        assert not any(text in {"one", "two"} for _, pairs in found for _, text in pairs)


async def test_a_killed_run_loses_at_most_one_interval_and_nothing_counts_twice(
    installation: Installation,
) -> None:
    """SIGKILL in the middle: what it had added stays, the next run adds its own, the counters never fall."""
    books = [
        {
            "chapters": [
                {"chapter_index": 0, "raw_text": "", "principles": [f"book {b} thing {m}" for m in range(60)]}
            ]
        }
        for b in range(3)
    ]
    for number, book in enumerate(books):
        _write(installation, f"b{number}", book)
    async with EmbeddingServer(ServerOptions(dimensions=8, latency_s=0.2, workers=1)) as server:
        variables = {
            "ERA_EMBEDDER": "openai",
            "ERA_EMBED_URL": server.url,
            "ERA_EMBED_MODEL": "m",
            "ERA_EMBED_BATCH_TEXTS": "4",
        }

        def watch() -> float:
            with installation.serve() as served:
                command = [sys.executable, "-m", "era_ingest", "ingest", "-q", str(installation.landing)]
                process = subprocess.Popen(
                    command,
                    env={**os.environ, **variables},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                found: Scrape = {}

                def counts() -> bool:
                    nonlocal found
                    assert process.poll() is None
                    found = scrape(served)
                    return any(name == "era_texts_embedded_total" for name, _ in found)

                assert Waiter().until(counts, PATIENCE_S)
                assert value(found, "era_runs_at_work") == 1
                assert value(found, "era_embedding_limit") >= 1
                held = [v for (name, _), v in found.items() if name == "era_embedding_held_runs"]
                assert sum(held) == 1
                process.kill()
                process.wait()
                stored = installation.count("select count(*) from era.embeddings")
                before = _embedded(scrape(served))
                assert 0 < before <= stored
                summary = ingest(installation, **variables)
                after = _embedded(scrape(served))
                assert after == before + int(str(summary["texts_embedded"]))
                return stored - before

        lost = await asyncio.to_thread(watch)
        assert lost <= 4 / 0.2 * (
            EVERY_S + 3
        )  # the server's pace, over an interval and what is kept or on its way


def _embedded(found: Scrape) -> float:
    return sum(v for (name, _), v in found.items() if name == "era_texts_embedded_total")


def test_metrics_are_there_while_the_database_is_not(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked tables stand for a database that does not answer: 200 in time, own metrics, the part said to be away."""
    monkeypatch.setattr("era_ingest.pipelines.watching.WAIT_S", 0.3)
    with installation.serve() as served, psycopg.connect(installation.url) as blocker:
        assert value(scrape(served), "era_up", part="database") == 1
        blocker.execute("lock table era.counters, era.doctrine_sources in access exclusive mode")
        with psycopg.connect(installation.url, autocommit=True) as other:
            other.execute(
                "select pg_sleep(1.1)"
            )  # what is kept is older than its time by the database's clock
        started = time.monotonic()
        found = scrape(served)
        assert time.monotonic() - started < 30  # not the 60 s of the pool and of Dagster's storage
        assert value(found, "era_up", part="database") == 0
        assert value(found, "era_up", part="run_queue") == 1
        assert not any(name == "era_texts_embedded_total" for name, _ in found)
        assert any(name == "process_resident_memory_bytes" for name, _ in found)
        blocker.rollback()
        wait_until_up(served, 1, parts=("database",))


def test_metrics_are_there_while_nobody_can_connect(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection ended and none let in: 200, all parts said to be away; back by itself, with the same totals."""
    monkeypatch.setattr("era_ingest.pipelines.watching.RUNS_EVERY_S", 1.0)
    monkeypatch.setattr("era_ingest.pipelines.watching.CORPUS_EVERY_S", 1.0)
    _write(installation, "one", {"chapters": CHAPTERS})
    ingest(installation)
    name = psycopg.conninfo.conninfo_to_dict(installation.url)["dbname"]
    let_in = sql.SQL("alter database {} with allow_connections {}")
    with (
        installation.serve() as served,
        psycopg.connect(installation.url.replace(f"/{name}?", "/postgres?"), autocommit=True) as admin,
    ):
        before = scrape(served)
        assert _embedded(before) == 60
        admin.execute(let_in.format(sql.Identifier(str(name)), sql.SQL("false")))
        try:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
            )
            wait_until_up(served, 0, parts=("database", "run_queue"))
            found = scrape(served)
            assert _embedded(found) == 0
            assert any(metric == "process_resident_memory_bytes" for metric, _ in found)
            assert any(metric == "era_http_requests_total" for metric, _ in found)
        finally:
            admin.execute(let_in.format(sql.Identifier(str(name)), sql.SQL("true")))
        wait_until_up(served, 1, parts=("database", "corpus", "run_queue"))
        assert _embedded(scrape(served)) == 60


def test_metrics_need_a_token_like_every_other_read(installation: Installation) -> None:
    """A reader's token is enough; the refusals are counted too, by route and never by path."""
    token, setting = new_token(Scope.READ)
    with installation.serve(load_grants(load_settings(serve_tokens=setting))) as served:
        assert served.ask("GET", "/metrics").code == "no_token"
        assert served.ask("GET", "/v1/jobs/secret-name", headers={"Authorization": "Bearer x"}).status == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert (
            served.ask("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000", headers=bearer).status == 404
        )
        assert served.ask("BREW", "/secret-name", headers=bearer).status == 403
        found = scrape(served, bearer)
    requests = {labels: v for (name, labels), v in found.items() if name == "era_http_requests_total"}
    assert sum(requests.values()) == 4
    route = {"method": "GET", "route": "/v1/jobs/{job_id}"}
    assert value(found, "era_http_requests_total", **route, status="404") == 1
    assert value(found, "era_http_request_duration_seconds_count", **route) == 1
    assert value(found, "era_http_requests_total", method="GET", route="none", status="401") == 2
    assert value(found, "era_http_requests_total", method="other", route="none", status="403") == 1
    assert "secret-name" not in str(found)
