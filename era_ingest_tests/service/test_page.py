"""The page without a browser: what it says, what it lets in, and that nothing of what it shows becomes markup."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from psycopg import conninfo, sql

from era_ingest.service.pages import reading
from era_ingest.settings import load_settings
from era_ingest_tests.service.page_kit import (
    HOSTILE_BOOK,
    HOSTILE_NAME,
    HTML,
    PARTLY,
    SAMPLES,
    WHOLE,
    load_books,
    post,
    see,
    write_book,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from era_ingest_tests.service_kit import Installation, Served

PAGES = ("/", "/books", "/domains", "/search", "/jobs", "/quarantine")


@pytest.fixture(scope="module")
def stocked(shared_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with the shipped samples, a hostile book, and 60 refusals in another."""
    folder = tmp_path_factory.mktemp("more")
    write_book(folder, HOSTILE_NAME, HOSTILE_BOOK)
    refused = [{"chapter_index": 0, "domains": ["ethics"], "rules": ["One.", *range(60)]}]
    write_book(folder, "mostly-refused", refused)
    load_books(SAMPLES, folder)
    return shared_installation


@pytest.fixture(scope="module")
def served(stocked: Installation) -> Iterator[Served]:
    """A service without tokens."""
    with stocked.serve() as opened:
        yield opened


def test_the_front_page_says_what_is_there(served: Served) -> None:
    """Books, entries, passages, domains and refusals, and the way to each."""
    html = see(served, "/")
    figures = dict(re.findall(r"<dt>(?:<a[^>]*>)?(\w+)(?:</a>)?</dt><dd>([\d,]+)</dd>", html))
    assert figures["Books"] == "6"
    assert figures["Quarantined"] == "61"
    assert int(figures["Entries"]) > 100
    assert int(figures["Passages"]) > 10
    assert "hashing/768" in html
    for path in ("/books", "/domains", "/jobs", "/quarantine", "/search", "/books/the-slow-garden"):
        assert f'href="{path}"' in html or f'action="{path}"' in html


def test_every_page_is_our_own_under_a_strict_policy(served: Served) -> None:
    """Nothing inline, nothing from elsewhere, nothing that another site may frame or read."""
    paths = [*PAGES, "/books/the-slow-garden", "/domains/negotiation", "/search?q=patience", "/nowhere"]
    for path in paths:
        answer = served.ask("GET", path, headers=HTML)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        html = answer.body.decode()
        assert not re.search(r"<style|\sstyle=|\son\w+=\"|<script(?! src=)", html), path
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", html), path


def test_what_pages_load_is_kept_for_ever_and_only_under_its_hash(served: Served) -> None:
    """A new version has a new address; an old one is gone, not wrong."""
    urls = re.findall(r"\"(/static/[^\"]+)\"", see(served, "/"))
    assert {url.rpartition("/")[2] for url in urls} == {"page.css", "page.js", "icon.svg"}
    for url in urls:
        answer = served.ask("GET", url)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert served.ask("GET", "/static/0123456789abcdef/page.css").status == 404
    assert served.ask("GET", "/static/x/..%2f..%2f__init__.py").status == 404


def test_a_book_is_shown_down_to_its_files(served: Served) -> None:
    """Chapters with their titles, counts and domains; file, hash and run."""
    html = see(served, "/books/the-lighthouse-handbook")
    assert "02_doctrine.json" in html
    assert re.search(r'title="[0-9a-f]{64}"', html)
    assert "by-hand" in html
    chapters = re.findall(r'<tr id="chapter-(\d+)">', html)
    assert chapters == sorted(chapters, key=int)
    assert "The Relief Boat" in html
    assert 'href="/domains/leadership"' in html


def test_a_domain_is_shown_with_its_books(served: Served) -> None:
    """Those that give most come first; one that has doctrine names its folder."""
    html = see(served, "/domains/negotiation")
    assert html.index("letters-on-bargaining") > 0
    assert "ministers/negotiation" in html


def test_books_are_found_by_a_part_of_their_name(served: Served) -> None:
    """In whatever case; wildcards are letters; what is not there says so."""
    assert "the-slow-garden" in see(served, "/books?q=SLOW")
    assert "letters-on-bargaining" not in see(served, "/books?q=SLOW")
    for part in ("%25", "_______________________", "'; drop table era.jobs; --", "\0"):
        assert "contains" in see(served, f"/books?q={quote(part)}")
    assert "There are no more" in see(served, "/books?page=99")


def test_the_quarantine_is_paged_and_explained(served: Served) -> None:
    """Every row once, over the pages; by book and by reason."""
    seen: list[str] = []
    url: str | None = "/quarantine?book=mostly-refused"
    while url:
        html = see(served, url)
        seen += re.findall(r"/0/rules/(\d+)<", html)
        following = re.search(r'<a href="([^"]+)" rel="next"', html)
        url = following[1].replace("&amp;", "&") if following else None
    assert sorted(map(int, seen)) == list(range(1, 61))
    html = see(served, "/quarantine?reason=unknown_item_shape")
    assert "An entry is neither a text nor an object" in html
    assert "61" in html
    assert "Nothing here" in see(served, "/quarantine?reason=no-such-reason")


def test_search_results_say_where_they_come_from(served: Served) -> None:
    """Score, book, chapter, file, hash and run; the form keeps what was asked."""
    html = see(served, "/search?q=trade+what+matters+little&domain=Negotiation&category=rule&k=25")
    first = html.split('<ol class="cards hits">')[1].split("</li>")[0]
    assert re.search(r'<span class="num">0\.\d\d</span>', first)
    assert re.search(r'href="/books/[\w-]+#chapter-\d+"', first)
    assert re.search(r'title="SHA-256 [0-9a-f]{64}"', first)
    assert "<option selected>rule</option>" in html
    assert "<option selected>25</option>" in html
    assert 'value="trade what matters little"' in html
    assert 'id="words" name="words" type="checkbox" value="1">' in html
    assert 'value="1" checked>' in see(served, "/search?q=cloth+merchant&words=1")
    assert "Nothing was found" in see(served, "/search?q=patience&book=no-such-book")
    assert "no category" in see(served, "/search?q=patience&category=nonsense", 422)


def test_nothing_that_a_book_says_becomes_markup(served: Served) -> None:
    """HTML in names, titles, domains, texts and queries comes out as text, on every page."""
    slug = re.search(r'href="/books/([\w-]*img[\w-]*)"', see(served, "/books"))
    assert slug is not None
    attack = "</title><script>alert(9)</script>\"'><img src=x onerror=alert(9)>"
    paths = [
        "/",
        "/books",
        f"/books/{slug[1]}",
        "/domains",
        f"/quarantine?book={quote(HOSTILE_NAME)}",
        f"/search?q=patience&book={quote(HOSTILE_NAME)}",
        f"/search?q={quote(attack)}&domain={quote(attack)}",
        f"/books?q={quote(attack)}",
        f"/jobs?book={quote(attack)}",
        f"/quarantine?book={quote(attack)}&reason={quote(attack)}",
    ]
    for path in paths:
        html = see(served, path)
        assert not re.search(r"<img|<script(?! src=\"/static/)|<b>|<i>|onerror=alert\(\d\)>", html), path
    assert "&lt;img src=x" in see(served, f"/books/{slug[1]}")


def test_errors_are_pages_for_people_and_problems_for_programs(served: Served) -> None:
    """What is not there, and what makes no sense; never a trace."""
    for path, status in (
        ("/nowhere", 404),
        ("/books/no-such-book", 404),
        ("/books/..%2f..%2fetc%2fpasswd", 404),
        ("/books/a%00b", 404),
        ("/domains/no-such-domain", 404),
        ("/domains/a%00b", 404),
        ("/jobs/00000000-0000-0000-0000-000000000000", 404),
        ("/jobs/nonsense", 422),
        ("/books?page=0", 422),
        ("/jobs?state=done", 422),
        ("/?span=century", 422),
    ):
        html = see(served, path, status)
        assert "Traceback" not in html
        assert str(status) in html
        assert served.ask("GET", path).headers["content-type"] == "application/problem+json"
    assert served.ask("GET", "/v1/nowhere", headers=HTML).code == "not_found"
    assert served.ask("DELETE", "/").status == 405


def test_an_empty_installation_says_what_to_do(installation: Installation) -> None:
    """The landing folder by its path, and the request that hands a book in."""
    with installation.serve() as served:
        html = see(served, "/")
        assert "No books yet" in html
        assert str(installation.landing) in html
        assert f"http://127.0.0.1:{served.port}/v1/ingest" in html
        assert "No books yet" in see(served, "/books")
        assert "Nothing was refused" in see(served, "/quarantine")
        assert "No domain has anything" in see(served, "/domains")
        assert "POST /v1/ingest" in see(served, "/jobs")
        assert "Nothing has been loaded yet" in see(served, "/search?q=patience", 503)


def test_jobs_are_listed_and_shown(installation: Installation) -> None:
    """The latest first, by state and book, each with its page; a piece of it is no whole page."""
    with installation.serve(dagster_url="https://dagster.example/ui/") as served:
        jobs = [post(served, f"book-{number % 2}", WHOLE) for number in range(3)]
        assert served.ask("DELETE", f"/v1/jobs/{jobs[0]}").status == 202
        listed = re.findall(r'href="/jobs/([0-9a-f-]{36})"', see(served, "/jobs"))
        assert listed == jobs[::-1]
        assert re.findall(r'href="/jobs/([0-9a-f-]{36})"', see(served, "/jobs?state=cancelled")) == [jobs[0]]
        assert re.findall(r'href="/jobs/([0-9a-f-]{36})"', see(served, "/jobs?book=book-1")) == [jobs[1]]
        page = see(served, f"/jobs/{jobs[0]}")
        assert "cancelled" in page
        assert f'href="https://dagster.example/ui/runs/{jobs[0]}"' in page
        for path in (f"/jobs/{jobs[0]}/piece", "/jobs/latest", "/jobs/piece"):
            piece = see(served, path)
            assert "<html" not in piece
            assert "cancelled" in piece
        refused = served.ask("POST", "/v1/ingest?book=x", PARTLY, headers={"Sec-Fetch-Site": "cross-site"})
        assert refused.code == "foreign_page"


def test_without_its_address_nothing_links_to_dagster(served: Served) -> None:
    """No dead link; an address that is none is refused at the start."""
    assert "Dagster" not in see(served, "/")
    with pytest.raises(Exception, match="ERA_DAGSTER_URL"):
        load_settings(dagster_url="javascript:alert(1)")


def test_a_database_that_is_away_is_told_on_a_page(
    installation: Installation, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 in words, with when to come again; and all is well once it is back."""
    monkeypatch.setattr(reading, "PATIENCE_S", 1.0)
    name = sql.Identifier(str(conninfo.conninfo_to_dict(installation.url)["dbname"]))
    shut = sql.SQL("alter database {} allow_connections {}")
    with installation.serve() as served, psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(shut.format(name, sql.SQL("false")))
        try:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                (conninfo.conninfo_to_dict(installation.url)["dbname"],),
            )
            for path in PAGES:
                answer = served.ask("GET", path, headers=HTML)
                html = answer.body.decode()
                assert (answer.status, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
                assert int(answer.headers["retry-after"]) > 0
                assert "database" in html.lower()
                assert "Traceback" not in html
        finally:
            connection.execute(shut.format(name, sql.SQL("true")))
        assert "No books yet" in see(served, "/")


def test_a_link_from_elsewhere_leads_here_and_nothing_else_does(served: Served) -> None:
    """Without tokens: somebody may follow a link from Dagster's UI; scripts and frames of other pages get nothing."""
    follow = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for site in ("same-site", "cross-site"):
        assert "Overview" in see(served, "/", headers={**follow, "Sec-Fetch-Site": site})
        for change in (
            {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
            {"Sec-Fetch-Dest": "iframe"},
            {"Host": "evil.example"},
        ):
            headers = {**HTML, **follow, "Sec-Fetch-Site": site, **change}
            assert served.ask("GET", "/", headers=headers).status == 403
        assert served.ask("GET", "/v1/jobs", headers={**follow, "Sec-Fetch-Site": site}).status == 403
    assert served.ask("GET", "/sign-in").headers["location"] == "/"


def test_pages_are_no_part_of_the_api(served: Served) -> None:
    """Its document names /v1, health and metrics."""
    paths = served.ask("GET", "/v1/openapi.json").json["paths"]
    assert not [path for path in paths if not path.startswith(("/v1/", "/healthz", "/readyz", "/metrics"))]


def test_a_folder_of_hostile_names_is_listed(installation: Installation, tmp_path: Path) -> None:
    """200 characters, another direction, a line break: each book has its line and its page."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    names = ["א" * 60, "x" * 200, "a\u202eb", "tab\there", "100% sure & <b>"]
    for name in names:
        write_book(folder, name, WHOLE)
    load_books(folder)
    with installation.serve() as served:
        slugs = re.findall(r'<a href="/books/([^"]+)"><bdi', see(served, "/books"))
        assert len(slugs) == len(names)
        for slug in slugs:
            assert 'id="chapter-0"' in see(served, f"/books/{slug}")
