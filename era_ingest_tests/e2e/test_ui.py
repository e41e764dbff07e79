"""The Dagster UI, as a person uses it: a real Chromium on the webserver and daemon that ``era dev`` starts.

The pictures of the README are by-products, renewed by

    ERA_SCREENSHOTS=docs python -m pytest -m ui era_ingest_tests/e2e/test_ui.py
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import dagster as dg
import psutil
import psycopg
import pytest

import era_ingest
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dev_kit import free_port
from era_ingest_tests.service.page_kit import open_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

PACKAGE = Path(era_ingest.__file__).parent
BOOK = "the-slow-garden"
"""The book that is loaded by hand; its domains are those of the other samples, so nothing else is left to do."""
OTHERS = ("a-workshop-notebook.md", "letters-on-bargaining.json", "the-lighthouse-handbook")
LOAD_ASSETS = ("books", "chunks", "embeddings", "vector_tables")

COMMAND_TIMEOUT_S = 180.0
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 90.0
RUN_TIMEOUT_MS = 180_000
FOLLOW_TIMEOUT_MS = 150_000
"""The sensor's ticks, its wait for quiet, the queue and the run."""
STEP_TIMEOUT_MS = 60_000

GRAPH_SIZE = (1800, 640)
DETAIL_SIZE = (1400, 900)
EVERYTHING_OPEN = """
localStorage.setItem('dagster-nav-collapsed', 'true');
localStorage.setItem('asset-graph-direction', '"horizontal"');
localStorage.setItem('asset-node-facets', '["checks","latest-event","status","kind-tag","partitions"]');
"""
"""State of the UI that a person would click together once: the graph from left to right, what a node shows."""
GRAPH = "/asset-groups?expanded=global%40global%3Acorpus%2Cglobal%40global%3Adomains"


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A landing folder with a copy of the shipped samples; the environment points to it."""
    folder = tmp_path / "landing"
    shutil.copytree(PACKAGE / "samples", folder, ignore=shutil.ignore_patterns("__*"))
    monkeypatch.setenv("ERA_LANDING_DIR", str(folder))
    monkeypatch.setenv("ERA_MINISTERS_DIR", str(tmp_path / "ministers"))
    monkeypatch.setenv("ERA_EMBEDDER", "hashing")
    monkeypatch.setenv("ERA_SETTLE_S", "0")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: ERA_SCREENSHOTS, or the test's own folder."""
    folder = Path(os.environ.get("ERA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A tab of a headless Chromium; a test that uses it is skipped where there is none."""
    with open_browser() as browser:
        tab = browser.new_page()
        tab.set_default_timeout(STEP_TIMEOUT_MS)
        tab.add_init_script(EVERYTHING_OPEN)
        yield tab
        tab.screenshot(path=tmp_path / "last.png")  # what was on the screen, should the test have failed


@pytest.mark.ui
@pytest.mark.timeout(900)
def test_a_book_is_materialized_in_the_ui(
    dagster_instance: dg.DagsterInstance,
    dagster_database_url: str,
    landing: Path,
    tmp_path: Path,
    pictures: Path,
    page: Page,
) -> None:
    """A person opens the graph, materializes the catalogue and one book, and reads what came of it."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    home, log = tmp_path / "dagster_home", tmp_path / "programs.log"
    home.mkdir()
    shutil.copy(PACKAGE / "orchestration" / "dagster.yaml", home)
    with log.open("wb") as output:
        with ThreadPoolExecutor(2) as both:
            done = [both.submit(_run, output, home, *command) for command in _preparations(landing)]
        for each in done:
            each.result()
        with _era_dev(output) as url:
            _open_graph(page, url)
            _materialize_catalogue(page)
            _materialize_book(page)
            _open_graph(page, url)
            _see_the_graph(page)
            if (
                "ERA_SCREENSHOTS" in os.environ
            ):  # the sensor follows within a tick; a test need not wait for it
                _see_ministers_renewed(page)
            page.screenshot(path=pictures / "asset-graph.png")
            _see_the_asset(page, url)
            page.screenshot(path=pictures / "asset-detail.png")
    assert dagster_instance.get_dynamic_partitions("books").count(BOOK) == 1
    for asset in LOAD_ASSETS:
        assert BOOK in dagster_instance.get_materialized_partitions(dg.AssetKey(asset)), asset
    with psycopg.connect(dagster_database_url) as connection:
        rows = connection.execute(
            "SELECT count(*) FROM era.doctrine_embeddings_all WHERE book = %s", [BOOK]
        ).fetchone()
    assert rows is not None
    assert rows[0] > 0
    assert not wrong, "the browser's console shows errors"


def _preparations(landing: Path) -> Iterator[tuple[str, ...]]:
    """Yield commands that load the other books, and leave this one to the person at the UI."""
    yield "-m", "dagster", "sensor", "stop", "landing_sensor", "-m", "era_ingest.definitions"
    yield "-m", "era_ingest", "ingest", *(str(landing / name) for name in OTHERS)


def _run(output: BinaryIO, home: Path, *arguments: str) -> None:
    """Run a program of ours to its end, which must be good."""
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "DAGSTER_HOME": str(home)},
        check=True,
        timeout=COMMAND_TIMEOUT_S,
        stdout=output,
        stderr=output,
    )


@contextmanager
def _era_dev(output: BinaryIO) -> Iterator[str]:
    """Run ``era dev``; the UI's URL. Nothing that it started is left, however the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "era_ingest", "dev", "--port", str(port), "--serve-port", "0"]
    program = psutil.Popen(command, stdout=output, stderr=output)
    try:
        assert Waiter().until(lambda: program.poll() is not None or _answers(url), START_TIMEOUT_S), (
            "the webserver does not answer"
        )
        assert program.poll() is None, "era dev ended by itself"
        yield url
    finally:
        family = [program, *program.children(recursive=True)]
        program.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, STOP_TIMEOUT_S)
        names = [process.cmdline() for process in left if process.is_running()]
        for process in left:
            process.kill()
    assert not names, "era dev left processes behind"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _open_graph(page: Page, url: str) -> None:
    """Show the whole graph and nothing beside it."""
    width, height = GRAPH_SIZE
    page.set_viewport_size({"width": width, "height": height})
    page.goto(url + GRAPH)
    _node(page, "minister_files").wait_for()
    opened = page.get_by_label("panel_show_right")
    if opened.count():
        opened.click()
    page.mouse.dblclick(width // 2, height - 40)  # on the background: zoom so that everything fits
    page.get_by_text("Latest event").first.wait_for()


def _node(page: Page, asset: str) -> Locator:
    return page.get_by_text(asset, exact=True).first


def _materialize_catalogue(page: Page) -> None:
    """Materialize an asset without partitions: one click, no dialog."""
    _node(page, "landing_catalog").click()
    page.get_by_role("button", name="Materialize selected").click()
    _see_success(page)
    page.go_back()
    _node(page, "vector_tables").wait_for()


def _materialize_book(page: Page) -> None:
    """Materialize one partition of the four assets that load a book, through the dialog."""
    page.mouse.click(GRAPH_SIZE[0] // 2, GRAPH_SIZE[1] - 40)  # on the background: select nothing
    for position, asset in enumerate(LOAD_ASSETS):
        _node(page, asset).click(modifiers=["Shift"] if position else [])
    page.get_by_role("button", name=f"Materialize selected ({len(LOAD_ASSETS)})").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Select a partition").click()
    page.get_by_text(BOOK, exact=True).locator("visible=true").last.click()
    page.keyboard.press("Escape")
    dialog.get_by_role("button", name=re.compile("^Launch")).click()
    _see_success(page)


def _see_success(page: Page) -> None:
    """Follow the message that a run was launched; wait until its page says how it ended."""
    page.get_by_text("Launched").first.wait_for()
    view = page.get_by_role("button", name="View", exact=True)
    view.or_(page.get_by_role("link", name="View", exact=True)).last.click()
    page.get_by_text(re.compile("^(Success|Completed|Failure|Failed)$")).first.wait_for(
        timeout=RUN_TIMEOUT_MS
    )
    assert page.get_by_text(re.compile("^(Success|Completed)$")).first.is_visible()


def _see_the_graph(page: Page) -> None:
    for asset in ("landing_catalog", *LOAD_ASSETS, "quarantine", "minister_files", "domain_index"):
        assert _node(page, asset).is_visible(), asset
    page.get_by_text("Materialized").first.wait_for()
    page.get_by_text("2 / 2 Passed").first.wait_for()


def _see_ministers_renewed(page: Page) -> None:
    """Wait until the run that the sensor starts has checked the minister files, as ``books`` was checked."""
    page.get_by_text("1 / 1 Passed").nth(1).wait_for(timeout=FOLLOW_TIMEOUT_MS)
    page.get_by_text("Materializing").first.wait_for(state="hidden", timeout=RUN_TIMEOUT_MS)


def _see_the_asset(page: Page, url: str) -> None:
    """Look at the book's partition of the vector tables: its metadata, and that its checks passed."""
    width, height = DETAIL_SIZE
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"{url}/assets/vector_tables?view=partitions&partition={BOOK}")
    page.get_by_text("rows written", exact=True).first.wait_for()
    for label in ("model", "status", "rows deleted", "run: books"):
        assert page.get_by_text(label, exact=True).first.is_visible(), label
