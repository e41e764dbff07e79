"""The page as people see it: a real Chromium on the real service. Pictures of it are by-products, renewed by

ERA_SCREENSHOTS=docs python -m pytest -m ui era_ingest_tests/service/test_page_in_browser.py
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest.orchestration.instance import open_instance
from era_ingest.settings import load_settings
from era_ingest_tests.service.page_kit import (
    PARTLY,
    SAMPLES,
    WHOLE,
    begin,
    execute,
    load_books,
    observe,
    open_browser,
    post,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster as dg
    from playwright.sync_api import Browser, Page

    from era_ingest_tests.service_kit import Installation, Served

pytestmark = [pytest.mark.ui, pytest.mark.timeout(240)]

DESK, PHONE = {"width": 1180, "height": 860}, {"width": 375, "height": 760}
STEP_TIMEOUT_MS = 20_000
HOSTILE = "<img src=x onerror=alert(1)> ‮gnp.exe אחיות " + "unbroken" * 17
"""HTML, a bidirectional override, another script, and 136 characters that no line break divides."""
HOSTILE_BOOK = [
    {
        "chapter_index": 0,
        "chapter_title": "</title><script>alert(2)</script>",
        "domains": ["אחיות <b>Justice</b>", "x" * 300],
        "rules": ["</blockquote><script>alert(3)</script> Patience.", {"<i>": 17}],
    }
]


@dataclass(frozen=True)
class Scene:
    """An installation with jobs in every state.

    Attributes:
        url: Of the service.
        jobs: Ids by state.
        instance: Dagster's.
    """

    url: str
    jobs: dict[str, str]
    instance: dg.DagsterInstance


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: ERA_SCREENSHOTS, or a folder of the test's own."""
    folder = Path(os.environ.get("ERA_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def scene(shared_installation: Installation) -> Iterator[Scene]:
    """The shipped samples and a job of each kind."""
    load_books(SAMPLES)
    with (
        shared_installation.serve(dagster_url="http://127.0.0.1:3000") as served,
        open_instance(load_settings(), capture_prints=False) as instance,
    ):
        yield Scene(f"http://127.0.0.1:{served.port}", _hand_in(served, instance), instance)


def _hand_in(served: Served, instance: dg.DagsterInstance) -> dict[str, str]:
    """Hand in a book for each state of a job; return the jobs' ids by state."""
    jobs = {"partly": post(served, HOSTILE, HOSTILE_BOOK)}
    assert execute(instance, jobs["partly"])
    jobs["succeeded"] = post(served, "on-finishing", WHOLE)
    assert execute(instance, jobs["succeeded"])
    jobs["failed"] = post(served, "a-costly-book", PARTLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERA_EMBEDDER", "openai")
        patch.setenv("ERA_EMBED_URL", "http://127.0.0.1:9")
        patch.setenv("ERA_EMBED_API_KEY", "sk-secret")
        patch.setenv("ERA_EMBED_MAX_TOKENS", "1")
        assert not execute(instance, jobs["failed"])
    jobs["cancelled"] = post(served, "not-wanted", PARTLY)
    served.ask("DELETE", f"/v1/jobs/{jobs['cancelled']}")
    jobs["running"] = post(served, "the-long-road", WHOLE)
    begin(instance, jobs["running"])
    observe(instance, jobs["running"], done=420, expected=1_000)
    jobs["queued"] = post(served, "patience", WHOLE)
    return jobs


@contextmanager
def tab(browser: Browser, size: dict[str, int] = DESK, **options: Any) -> Iterator[Page]:
    """Yield a tab; at its end nothing was wrong in its console, and it did not scroll sideways."""
    wrong: list[str] = []
    context = browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.set_default_timeout(STEP_TIMEOUT_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        yield page
    finally:
        context.close()
    assert not wrong, "the browser's console shows errors"


def test_look(scene: Scene, browser: Browser, pictures: Path) -> None:
    paths = {
        "front": "/",
        "books": "/books",
        "book": "/books/the-slow-garden",
        "domains": "/domains",
        "domain": "/domains/negotiation",
        "jobs": "/jobs",
        "running": f"/jobs/{scene.jobs['running']}",
        "failed": f"/jobs/{scene.jobs['failed']}",
        "partly": f"/jobs/{scene.jobs['partly']}",
        "quarantine": "/quarantine",
        "search": "/search?q=patience+under+pressure",
    }
    for mode, size, scheme in (("light", DESK, "light"), ("dark", DESK, "dark"), ("phone", PHONE, "light")):
        with tab(browser, size, color_scheme=scheme) as page:
            for name, path in paths.items():
                page.goto(scene.url + path)
                page.screenshot(path=pictures / f"{name}-{mode}.png", full_page=True)
                wide = page.evaluate("document.documentElement.scrollWidth")
                print(name, mode, wide, size["width"])
