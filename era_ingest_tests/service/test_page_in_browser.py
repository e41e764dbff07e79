"""The page as people see it, in a real Chromium on the real service.

Pictures of it are by-products; those of the README (the speed in them is made up) are renewed by
``ERA_SCREENSHOTS=docs python -m pytest -m ui era_ingest_tests/service/test_page_in_browser.py``.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from era_ingest.orchestration.instance import open_instance
from era_ingest.service.access import Scope, load_grants, new_token
from era_ingest.settings import load_settings
from era_ingest_tests.service.jobs_kit import execute
from era_ingest_tests.service.page_kit import (
    HOSTILE_BOOK,
    HOSTILE_NAME,
    PARTLY,
    SAMPLES,
    WHOLE,
    begin,
    load_books,
    observe,
    open_browser,
    post,
    write_book,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster as dg
    from playwright.sync_api import Browser, Page

    from era_ingest_tests.service_kit import Installation, Served

pytestmark = [pytest.mark.ui, pytest.mark.timeout(240)]

DESK, PHONE = {"width": 1180, "height": 860}, {"width": 375, "height": 760}
STEP_TIMEOUT_MS = 60_000
DAGSTER = "http://127.0.0.1:9"
CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const paper = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("title, noscript")) continue;
    const [ink, back] = [rgba(getComputedStyle(element).color), paper(element)].map(light);
    const ratio = (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
    if (ratio < 4.5) poor.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""
"""Texts whose contrast to what is behind them is less than WCAG's AA asks for."""

UNLABELLED = """
[...document.querySelectorAll("input:not([type=hidden]), select, progress")]
  .filter((field) => !field.labels.length && !field.ariaLabel).length
"""


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

    @property
    def paths(self) -> dict[str, str]:
        """One page of each kind."""
        return {
            "front": "/",
            "books": "/books",
            "book": "/books/the-slow-garden",
            "domains": "/domains",
            "domain": "/domains/negotiation",
            "jobs": "/jobs",
            **{state: f"/jobs/{job_id}" for state, job_id in self.jobs.items()},
            "quarantine": "/quarantine",
            "ask": "/search",
            "search": "/search?q=patience+under+pressure&k=25",
        }


@pytest.fixture(scope="module")
def browser(scene: Scene) -> Iterator[Browser]:
    """A Chromium, opened after the scene is set: Playwright keeps a loop in our thread, and runs want their own."""
    del scene
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
    """The shipped samples, a job of each kind, and an hour of made-up speed."""
    load_books(SAMPLES)
    _make_up_an_hour(shared_installation.url)
    with (
        shared_installation.serve(dagster_url=DAGSTER) as served,
        open_instance(load_settings(), capture_prints=False) as instance,
    ):
        yield Scene(f"http://127.0.0.1:{served.port}", _hand_in(served, instance), instance)


@pytest.fixture(scope="module")
def hostile(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The same, with a book of a hostile name."""
    folder = tmp_path_factory.mktemp("hostile")
    write_book(folder, HOSTILE_NAME, HOSTILE_BOOK)
    load_books(folder)
    return scene


def _hand_in(served: Served, instance: dg.DagsterInstance) -> dict[str, str]:
    """Hand in a book for each state of a job; return the jobs' ids by state."""
    jobs = {"partly": post(served, "on-beginning", PARTLY)}
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


def _make_up_an_hour(url: str) -> None:
    """Let the last hour look as if a corpus had been loaded, in two runs."""
    minutes = [minute for minute in range(4, 58) if not 24 <= minute < 33]
    amounts = [
        (minute, name, labels, value)
        for minute in minutes
        for wave in [abs(minute % 17 - 8)]
        for name, labels, value in (
            ("era_texts_embedded_total", {"model": "m"}, 5_200 + 210 * wave),
            ("era_embedding_held_seconds_total", {"by": "pipe"}, 60),
            ("era_embedding_requests_total", {"model": "m", "outcome": "ok"}, 82 + 3 * wave),
            ("era_embedding_requests_total", {"model": "m", "outcome": "rate_limited"}, int(minute == 40)),
            ("era_embedding_request_duration_seconds_bucket", {"model": "m", "le": "0.1"}, 30 + 4 * wave),
            ("era_embedding_request_duration_seconds_bucket", {"model": "m", "le": "0.25"}, 52 - wave),
        )
    ]
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into era.counter_history (minute, name, labels, value) "
            "values (date_trunc('minute', now()) - make_interval(mins => %s), %s, %s, %s) on conflict do nothing",
            [(minute, name, Jsonb(labels), value) for minute, name, labels, value in amounts],
        )


@contextmanager
def tab(browser: Browser, size: dict[str, int] = DESK, *, failing: int = 0, **options: Any) -> Iterator[Page]:
    """Yield a tab; at its end its console showed no errors, and nothing was asked of anybody else.

    Args:
        browser: Chromium.
        size: Of the window.
        failing: Answers that are errors by intention, which the console shows.
        options: Of the browser's context.
    """
    wrong: list[str] = []
    asked: set[str] = set()
    context = browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.set_default_timeout(STEP_TIMEOUT_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        yield page
        hosts = {page.url.split("/")[2]}
    finally:
        context.close()
    assert len(wrong) == failing, wrong
    assert asked == hosts


def is_too_wide(page: Page) -> bool:
    """Say whether a page scrolls sideways."""
    wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return bool(wide)


def test_pictures_for_the_readme(scene: Scene, browser: Browser, pictures: Path) -> None:
    """The front page on a desk in the light, and a search on a phone in the dark, are small enough to be shown."""
    with tab(browser, {"width": 1180, "height": 960}, color_scheme="light") as page:
        page.goto(scene.url)
        page.screenshot(path=pictures / "page.png")
    with tab(browser, PHONE, color_scheme="dark") as page:
        page.goto(scene.url + scene.paths["search"])
        page.screenshot(path=pictures / "page-phone.png")
    for name in ("page.png", "page-phone.png"):
        assert (pictures / name).stat().st_size < 150_000


@pytest.mark.parametrize(("scheme", "size"), [("light", PHONE), ("dark", DESK)])
def test_every_page_can_be_read(
    hostile: Scene, browser: Browser, scheme: str, size: dict[str, int], tmp_path: Path
) -> None:
    """Nothing scrolls sideways; contrasts are AA, each field has its label, each page one heading and one content."""
    with tab(browser, size, color_scheme=scheme) as page:
        for name, path in hostile.paths.items():
            page.goto(hostile.url + path)
            page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            assert not is_too_wide(page), name
            assert not page.evaluate(CONTRAST), name
            assert [page.locator(tag).count() for tag in ("h1", "main", "header")] == [1, 1, 1], name
            assert page.evaluate(UNLABELLED) == 0, name
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
            assert len(ids) == len(set(ids)), name


def test_errors_and_the_sign_in_can_be_read(scene: Scene, browser: Browser, tmp_path: Path) -> None:
    """Also where there is little on the page."""
    with tab(browser, PHONE, failing=1, color_scheme="dark") as page:
        page.goto(scene.url + "/nowhere")
        page.screenshot(path=tmp_path / "missing.png")
        assert not page.evaluate(CONTRAST)
        page.get_by_role("link", name="Overview").last.click()
        assert page.get_by_text("Latest books").is_visible()


def test_the_keyboard_is_enough(scene: Scene, browser: Browser) -> None:
    """The first stop skips to the content; whatever has the focus is seen to have it; a search needs no mouse."""
    with tab(browser) as page:
        page.goto(scene.url)
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        assert skip.evaluate(
            "(link) => link === document.activeElement && link.getBoundingClientRect().top >= 0"
        )
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "q"
        for _ in range(12):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            page.keyboard.press("Tab")
        page.get_by_role("searchbox").focus()
        page.keyboard.type("patience under pressure")
        page.keyboard.press("Enter")
        page.locator("ol.hits li").first.wait_for()
        assert page.get_by_role("searchbox").input_value() == "patience under pressure"


def test_a_running_job_moves_by_itself(scene: Scene, browser: Browser) -> None:
    """Its progress grows while one looks, on its page and on the front page, and the focus stays where it is."""
    job = scene.jobs["running"]
    with tab(browser) as page:
        page.goto(f"{scene.url}/jobs/{job}")
        page.get_by_text("420 / 1,000").wait_for()
        page.get_by_role("link", name=job[:8]).focus()
        page.evaluate("window.stays = true")
        observe(scene.instance, job, done=610, expected=1_000)
        page.get_by_text("610 / 1,000").wait_for()
        assert page.evaluate("document.activeElement.innerText").startswith(job[:8])
        assert page.evaluate("window.stays")
        page.goto(scene.url)
        observe(scene.instance, job, done=780, expected=1_000)
        page.get_by_text("78 %, 10 min left").wait_for()


def test_without_scripts_everything_works_by_reloading(scene: Scene, browser: Browser) -> None:
    """Links, forms and progress."""
    with tab(browser, java_script_enabled=False) as page:
        page.goto(scene.url)
        page.get_by_role("searchbox").fill("patience")
        page.get_by_role("button", name="Search").click()
        page.locator("ol.hits li").first.wait_for()
        page.get_by_role("link", name="Jobs").first.click()
        page.get_by_role("link", name="Failed").click()
        page.get_by_role("link", name="a-costly-book").click()
        assert page.get_by_text("Raise ERA_EMBED_MAX_TOKENS").is_visible()


def test_speed_is_drawn_and_told(scene: Scene, browser: Browser) -> None:
    """Bars for an hour; a longer time is a link away; figures in words and as a table."""
    with tab(browser) as page:
        page.goto(scene.url)
        assert page.locator("svg[role=img]").count() == 2
        assert page.locator("svg[role=img] rect.fill").count() > 80
        assert page.locator("svg[role=img] rect.hurt").count() == 1
        assert page.get_by_text("texts in the last hour").is_visible()
        page.get_by_text("As a table").click()
        assert page.get_by_role("cell", name=re.compile(" ms$")).count() > 80
        page.get_by_role("link", name="Week").click()
        assert page.get_by_text("texts in the last week").is_visible()


def test_a_hostile_book_does_nothing_but_stand_there(hostile: Scene, browser: Browser) -> None:
    """No script of it runs, its direction turns nothing else round, and its page is found by its link."""
    with tab(browser, PHONE) as page:
        page.goto(hostile.url + "/books")
        page.get_by_role("link", name=re.compile("<img")).click()
        assert "<img src=x onerror=alert(1)>" in page.locator("h1").inner_text()
        assert page.evaluate("document.title").startswith("\u2068<img")
        assert page.locator("main img, main script").count() == 0
        page.goto(hostile.url + "/search?q=Patience.&k=10")
        assert page.get_by_text("<script>alert(3)</script>").is_visible()


def test_people_sign_in_and_out(shared_installation: Installation, scene: Scene, browser: Browser) -> None:
    """With a token, by keyboard, back to the page that was wanted; the policy lets the form through."""
    token, setting = new_token(Scope.READ)
    grants = load_grants(load_settings(serve_tokens=SecretStr(setting)))
    with shared_installation.serve(grants) as served, tab(browser, failing=1) as page:
        url = f"http://127.0.0.1:{served.port}"
        page.goto(f"{url}/books/the-slow-garden")
        assert not page.evaluate(CONTRAST)
        for typed in ("wrong", token):
            page.get_by_label("Token").fill(typed)
            page.keyboard.press("Enter")
            if typed == "wrong":
                page.get_by_text("This token is not known.").wait_for()
        page.get_by_role("heading", name="the-slow-garden").wait_for()
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("link", name="Overview").click()
        page.get_by_text("Latest books").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").wait_for()
        page.goto(url)
        assert page.get_by_label("Token").is_visible()


def test_an_empty_installation_is_a_page_too(
    installation: Installation, browser: Browser, tmp_path: Path
) -> None:
    """It says what to do, on a phone as well."""
    with installation.serve() as served, tab(browser, PHONE) as page:
        page.goto(f"http://127.0.0.1:{served.port}")
        page.screenshot(path=tmp_path / "empty.png", full_page=True)
        assert page.get_by_role("heading", name="No books yet").is_visible()
        assert not is_too_wide(page)
        assert not page.evaluate(CONTRAST)
