"""deploy/monitoring: its rules by promtool, its queries by a real Prometheus that scrapes a real service."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dev_kit import free_port
from era_ingest_tests.servers import EmbeddingServer, ServerOptions
from tools.write_dashboard import FILE, build_dashboard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from era_ingest_tests.service_kit import Installation, Served

PATIENCE_S = 120.0
MONITORING = FILE.parent
UNPACKED = Path(sys.prefix) / "prometheus" / "usr" / "bin"


def find(program: str) -> str:
    """Return where a program of Prometheus is; the test is skipped where it could not be had."""
    path = shutil.which(program) or shutil.which(program, path=str(UNPACKED))
    if path is None:
        pytest.skip(f"no {program}: neither installed, nor unpacked by tools/ensure_prometheus.sh")
    return path


def promtool(*arguments: str, given: bytes = b"") -> str:
    """Run promtool; return what it says, once it says that all is well."""
    done = subprocess.run(
        [find("promtool"), *arguments], input=given, capture_output=True, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_rules_and_configuration_are_valid_and_every_alert_fires_where_it_should() -> None:
    """`promtool check`, and its unit tests: each alert of the file is among them, firing and silent."""
    assert "SUCCESS" in promtool("check", "config", str(MONITORING / "prometheus.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(MONITORING / "era_alerts_test.yml"))
    cases = (MONITORING / "era_alerts_test.yml").read_text()
    alerts = [
        line.split()[-1]
        for line in (MONITORING / "era_alerts.yml").read_text().splitlines()
        if "alert:" in line
    ]
    assert len(alerts) > 10
    for alert in alerts:
        assert f"alertname: {alert}\n" in cases, f"nothing shows that {alert} fires"
        assert f"alertname: {alert}, exp_alerts: []" in cases, f"nothing shows where {alert} is silent"


def test_the_dashboard_is_what_its_script_writes() -> None:
    assert json.loads(FILE.read_text()) == build_dashboard()


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Run Prometheus with the shipped configuration, quicker and on free ports; yield a function that asks it."""
    program = find("prometheus")
    shutil.copy(MONITORING / "era_alerts.yml", folder)
    text = (MONITORING / "prometheus.yml").read_text()
    for shipped, quick in (("interval: 15s", "interval: 500ms"), (":8321", f":{target}")):
        assert shipped in text
        text = text.replace(shipped, quick)
    (folder / "prometheus.yml").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]

    def get(path: str, **arguments: str) -> Any:
        with urllib.request.urlopen(f"http://{address}{path}?{urllib.parse.urlencode(arguments)}") as reply:
            return json.load(reply)["data"]

    def ask(query: str) -> list[dict[str, Any]]:
        if query == "RULES":
            return [rule for group in get("/api/v1/rules")["groups"] for rule in group["rules"]]
        found = get("/api/v1/query", query=query)["result"]
        assert isinstance(found, list)
        return found

    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            assert Waiter().until(lambda: _answers(address), PATIENCE_S)
            yield ask
        finally:
            process.terminate()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready"):
            return True
    except OSError:
        return False


def ingest(installation: Installation) -> None:
    command = [sys.executable, "-m", "era_ingest", "ingest", "-q", str(installation.landing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, 3}, done.stderr


def write_book(installation: Installation, name: str) -> None:
    installation.landing.mkdir(exist_ok=True)
    rules = [f"rule {name} {n}" for n in range(30)] + [{"odd": 1}, "a rule of every book"]
    text = "A passage of some length. " * 60
    chapter = {"chapter_index": 0, "raw_text": text, "domains": ["strategy"], "rules": rules}
    (installation.landing / f"{name}.json").write_text(json.dumps({"chapters": [chapter]}))


def numbers(found: list[dict[str, Any]]) -> list[float]:
    return [float(series["value"][1]) for series in found]


async def test_every_query_of_dashboard_and_alerts_gives_data(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingests while Prometheus looks on, a search, a book posted: no panel is empty, no rule asks for nothing.

    One request goes at a time, so that both ingests wait, and for the same.
    """
    monkeypatch.setattr("era_ingest.pipelines.watching.RUNS_EVERY_S", 0.5)
    monkeypatch.setattr("era_ingest.pipelines.watching.CORPUS_EVERY_S", 0.5)
    async with EmbeddingServer(ServerOptions(dimensions=8, latency_s=0.05)) as server:
        for name, value in {
            "ERA_EMBEDDER": "openai",
            "ERA_EMBED_URL": server.url,
            "ERA_EMBED_MODEL": "m",
            "ERA_EMBED_DIMENSIONS": "8",
            "ERA_EMBED_PRICE": "1000",
            "ERA_EMBED_CONTROLLER": "fixed",
            "ERA_EMBED_CONCURRENCY": "1",
            "ERA_EMBED_BATCH_TEXTS": "4",
        }.items():
            monkeypatch.setenv(name, value)
        write_book(installation, "one")
        await asyncio.to_thread(ingest, installation)
        with installation.serve() as served, prometheus(tmp_path, served.port) as ask:
            await asyncio.to_thread(_look, installation, served, ask)


def _look(installation: Installation, served: Served, ask: Callable[[str], list[dict[str, Any]]]) -> None:
    assert Waiter().until(lambda: bool(ask("era_texts_embedded_total")), PATIENCE_S)
    assert served.ask("POST", "/v1/search", {"text": "patience"}).status == 200
    posted = {"chapters": [{"chapter_index": 0, "raw_text": "Posted.", "rules": ["a rule of every book"]}]}
    assert served.ask("POST", "/v1/ingest?book=three", posted).status == 202
    with psycopg.connect(installation.url) as connection:  # as if the sensor had seen a book that nobody took
        connection.execute(
            "insert into era.landing_files (slug, name, root, path, fingerprint, since) "
            "values ('four', 'four', '/', '/four', 'x', now() - interval '1 h')"
        )
    conditional = ("era_queue_waiting_since_timestamp_seconds", "era_landing_waiting_since_timestamp_seconds")
    assert Waiter().until(lambda: all(ask(query) for query in conditional), PATIENCE_S)
    write_book(installation, "two")
    ingest(installation)  # a rate is that of a series seen before
    assert Waiter().until(lambda: not any(_empty_queries(ask)), PATIENCE_S), list(_empty_queries(ask))
    assert Waiter().until(lambda: numbers(ask("sum(era_books)")) == [3.0], PATIENCE_S)
    assert Waiter().until(lambda: all(rule["health"] == "ok" for rule in ask("RULES")), PATIENCE_S)
    names = {series["metric"]["__name__"] for series in ask('{job="era"}')}
    for rule in ask("RULES"):
        asked = set(_metric_names(rule["query"]))
        assert asked
        assert asked <= names, f"{rule['name']} asks for what there is not: {asked - names}"
    page = served.ask("GET", "/metrics").body
    assert promtool("check", "metrics", given=page) == ""


def _empty_queries(ask: Callable[[str], list[dict[str, Any]]]) -> Iterator[str]:
    for panel in build_dashboard()["panels"]:
        for target in panel.get("targets", ()):
            found = numbers(ask(target["expr"].replace("$__rate_interval", "5m")))
            if not any(number == number for number in found):  # noqa: PLR0124 - NaN is no figure
                yield f"{panel['title']}: {target['expr']}"


def _metric_names(query: str) -> Iterator[str]:
    word = ""
    for letter in query + " ":
        if letter.isalnum() or letter == "_":
            word += letter
        else:
            if word == "up" or ((word.startswith("era_") and letter in "{[) ") and word != "era"):
                yield word
            word = ""
