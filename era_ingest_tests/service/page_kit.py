"""An installation with something of everything that the page shows, and a Chromium to look at it."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import dagster as dg
import pytest
from dagster._core.events import AssetObservationData

import era_ingest
from era_ingest.orchestration.progress import build_observation
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.ministers import build_ministers
from era_ingest.pipelines.report import IngestRequest, Progress
from era_ingest.pipelines.services import open_services
from era_ingest.settings import load_settings
from era_ingest_tests.service import jobs_kit
from era_ingest_tests.service.jobs_kit import take

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Browser

    from era_ingest_tests.service_kit import Answer, Served

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SAMPLES = Path(era_ingest.__file__).parent / "samples"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
WHOLE = [{"chapter_index": 0, "domains": ["ethics"], "rules": ["Finish what was begun."]}]
PARTLY = [{"chapter_index": 0, "domains": ["ethics"], "rules": ["Finish what was begun.", 17]}]
HOSTILE_NAME = "<img src=x onerror=alert(1)> \u202egnp.exe אחיות " + "unbroken" * 17
"""HTML, a bidirectional override, another script, and 136 characters that no line break divides."""
HOSTILE_BOOK = [
    {
        "chapter_index": 0,
        "chapter_title": "</title><script>alert(2)</script>",
        "domains": ["אחיות <b>Justice</b>", "x" * 300],
        "rules": ["</blockquote><script>alert(3)</script> Patience.", {"<i>": 17}],
    }
]


def see(served: Served, path: str, status: int = 200, headers: Mapping[str, str] | None = None) -> str:
    """Return the HTML of a page."""
    answer = served.ask("GET", path, headers={**HTML, **(headers or {})})
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.body.decode()


def submit(
    served: Served, path: str, cookie: str = "", *, origin: str | None = None, **fields: str
) -> Answer:
    """Send a form, as a browser on our own page does."""
    headers = {
        **HTML,
        "Content-Type": "application/x-www-form-urlencoded",
        "Origin": origin or f"http://127.0.0.1:{served.port}",
        "Cookie": cookie,
    }
    return served.ask("POST", path, raw=urlencode(fields).encode(), headers=headers)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a headless Chromium; a test that asks for one is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as driver:
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium: `make browser` installs one")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def write_book(folder: Path, name: str, document: Any) -> None:
    """Put a book into a folder."""
    (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


def load_books(*paths: Path) -> None:
    """Load books, and build the files of some of their domains."""

    async def load() -> None:
        async with open_services(load_settings()) as services:
            arrivals = await resolve_paths(services, list(paths))
            report = await ingest_books(services, IngestRequest(arrivals.sources, run_id="by-hand"))
            assert report.error is None
            await build_ministers(services, sorted(report.changed_domains)[:3])

    with ThreadPoolExecutor(1) as thread:  # Playwright has a loop in ours
        thread.submit(lambda: asyncio.run(load())).result()


def post(served: Served, book: str, document: Any) -> str:
    """Hand in a book; return the job's id."""
    answer = jobs_kit.post(served, quote(book), document)
    assert answer.status == 202, answer.body
    return str(answer.json["job_id"])


def begin(instance: dg.DagsterInstance, job_id: str) -> None:
    """Let a job's run begin, as its worker records it, and go no further."""
    take(instance, job_id)
    _report(instance, job_id, dg.DagsterEventType.RUN_START)


def observe(instance: dg.DagsterInstance, job_id: str, *, done: int, expected: int) -> None:
    """Record how far a run is, as its worker does."""
    progress = Progress(
        books_done=0,
        books_total=1,
        texts_done=done,
        texts_known=expected,
        texts_expected=expected,
        reading_done=True,
        texts_per_s=12.5,
        seconds_left=600.0,
        limiter=None,
    )
    observation = AssetObservationData(build_observation(progress))
    _report(instance, job_id, dg.DagsterEventType.ASSET_OBSERVATION, observation)


def _report(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType, data: Any = None) -> None:
    event = dg.DagsterEvent(kind.value, "ingest", event_specific_data=data)
    instance.report_dagster_event(event, run_id, logging.DEBUG, timestamp=time.time())
