"""Ingestion whole: files, a real PostgreSQL, minister files; what must change changes, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import era_ingest
import era_ingest.errors
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.report import BookStatus, IngestRequest, Stage
from era_ingest.pipelines.search import Searcher, SearchRequest
from era_ingest.pipelines.services import Services, open_services
from era_ingest.pipelines.verify import audit_all, is_wrong
from era_ingest_tests.pipelines.ingest_kit import (
    doctrine_file,
    edit,
    fetch_rows,
    files_in,
    hashing_settings,
    ingest,
    stamps_in,
)


async def test_every_entry_is_in_the_table_once_in_each_of_its_views_and_in_their_minister_files(
    services: Services, landing: Path
) -> None:
    """The samples, whole: tables, views and files hold the same entries."""
    report = await ingest(services, landing)
    assert {book.status for book in report.books} == {BookStatus.LOADED}
    entries = await fetch_rows(
        services,
        "select id::text, domains from era.doctrine_embeddings_all where category <> 'passage'",
    )
    assert len(entries) == report.total("entries") > 100
    assert len({row[0] for row in entries}) == len(entries)
    for domain in sorted({domain for _, domains in entries for domain in domains}):
        wanted = {row_id for row_id, domains in entries if domain in domains}
        view = await fetch_rows(
            services, f"select id::text from era.doctrine_embeddings_{domain} where category <> 'passage'"
        )
        assert {row[0] for row in view} == wanted
        found: set[str] = set()
        for name in ("principles", "rules", "claims", "warnings"):
            file = services.settings.ministers_dir / domain / f"{name}.json"
            found |= {entry["id"] for entry in json.loads(file.read_bytes())["entries"]}
        assert found == wanted
    assert not [finding for finding in await audit_all(services) if is_wrong(finding)]


async def test_again_makes_no_request_and_writes_no_row_and_no_file(
    services: Services, landing: Path
) -> None:
    """An unchanged landing folder costs nothing, also when its files were touched."""
    await ingest(services, landing)
    before, stamps = files_in(services.settings.ministers_dir), stamps_in(services.settings.ministers_dir)
    chunks = stamps_in(services.settings.home)
    for touch in (False, True):
        if touch:
            for path in landing.rglob("*.json"):
                os.utime(path)
        report = await ingest(services, landing)
        assert {book.status for book in report.books} == {BookStatus.UNCHANGED}
        assert (report.requests, report.total("rows_written"), report.total("rows_deleted")) == (0, 0, 0)
        assert files_in(services.settings.ministers_dir) == before
        assert stamps_in(services.settings.ministers_dir) == stamps
        assert stamps_in(services.settings.home) == chunks


async def test_a_changed_entry_costs_that_entry(services: Services, landing: Path) -> None:
    """One rule is reworded: one text is embedded, one row goes, one comes, only its domains' files change."""
    await ingest(services, landing)
    before = files_in(services.settings.ministers_dir)
    domains: list[str] = []

    def reword(chapters: list[dict[str, Any]]) -> None:
        chapter = next(chapter for chapter in chapters if chapter["rules"])
        chapter["rules"][0] = "Measure the well before you promise water."
        domains.extend(chapter["domains"])

    edit(doctrine_file(landing), reword)
    report = await ingest(services, landing)
    assert report.total("texts_embedded") == 1
    assert (report.total("rows_written"), report.total("rows_deleted")) == (1, 1)
    after = files_in(services.settings.ministers_dir)
    changed = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    assert changed <= {*domains, "combined_vector.index"}
    assert set(domains) <= changed


async def test_an_added_domain_embeds_nothing(services: Services, landing: Path) -> None:
    """A chapter gets a domain: its rows are updated, a view and a folder appear, no request is made."""
    await ingest(services, landing)
    edit(doctrine_file(landing), lambda chapters: chapters[0]["domains"].append("Star Gazing"))
    report = await ingest(services, landing)
    assert report.requests == 0
    assert report.total("rows_written") > 0
    assert report.total("rows_deleted") == 0
    assert await fetch_rows(services, "select from era.doctrine_embeddings_star_gazing")
    assert (services.settings.ministers_dir / "star_gazing" / "doctrine.json").is_file()


async def test_an_emptied_folder_removes_nothing_until_told(services: Services, landing: Path) -> None:
    """A volume that is not mounted looks the same; it takes a word to remove every book."""
    await ingest(services, landing)
    shutil.rmtree(landing)
    landing.mkdir()
    arrivals = await resolve_paths(services, [landing])
    assert arrivals.removed == ()
    assert "4 of 4 books are gone" in arrivals.held_back[0]
    assert f"`era ingest --allow-removals {landing}`" in arrivals.held_back[0]
    arrivals = await resolve_paths(services, [landing], allow_removals=True)
    assert len(arrivals.removed) == 4
    assert arrivals.held_back == ()


async def test_a_removed_book_is_removed_everywhere(services: Services, landing: Path) -> None:
    """Its rows, chunk file, provenance and entries in minister files are gone; the others' stay."""
    await ingest(services, landing)
    gone = doctrine_file(landing).parent
    shutil.rmtree(gone)
    report = await ingest(services, landing)
    assert report.requests == 0
    assert [book.book for book in report.books if book.status is BookStatus.REMOVED] == [gone.name]
    assert not await fetch_rows(
        services, "select from era.doctrine_embeddings_all where book = %s", gone.name
    )
    assert not any(
        gone.name.encode() in content for content in files_in(services.settings.ministers_dir).values()
    )
    assert gone.name not in {Path(name).stem for name in files_in(services.settings.home / "chunks")}
    assert not [finding for finding in await audit_all(services) if is_wrong(finding)]


async def test_a_renamed_book_is_not_embedded_again(services: Services, landing: Path) -> None:
    """Its rows move to the new name without a request."""
    first = await ingest(services, landing)
    old = doctrine_file(landing).parent
    old.rename(landing / "Another name, for the same book")
    report = await ingest(services, landing)
    assert report.requests == 0
    assert report.total("entries") == first.total("entries")
    books = {
        row[0] for row in await fetch_rows(services, "select distinct book from era.doctrine_embeddings_all")
    }
    assert old.name not in books
    assert "Another name, for the same book" in books


async def test_a_folder_that_cannot_be_listed_removes_nothing(services: Services, landing: Path) -> None:
    """The landing folder is not there (unmounted): that is an error, and every book stays."""
    await ingest(services, landing)
    landing.rename(landing.with_name("elsewhere"))
    landing.mkdir()
    (landing.with_name("elsewhere")).rename(landing / "deeper")
    count = await fetch_rows(services, "select count(*) from era.doctrine_sources")
    shutil.move(landing, landing.with_name("gone"))
    with pytest.raises(era_ingest.errors.ConfigurationError, match="does not exist"):
        await ingest(services, landing)
    assert await fetch_rows(services, "select count(*) from era.doctrine_sources") == count


async def test_a_book_that_cannot_be_read_any_more_stays_as_it_was(services: Services, landing: Path) -> None:
    """A truncated file is refused with its place; the rows of the last good version stay; neighbours load."""
    await ingest(services, landing)
    file = doctrine_file(landing)
    count = await fetch_rows(
        services, "select count(*) from era.doctrine_embeddings_all where book = %s", file.parent.name
    )
    file.write_bytes(file.read_bytes()[:200])
    report = await ingest(services, landing)
    (refused,) = [book for book in report.books if book.status is BookStatus.REFUSED]
    assert refused.error is not None
    assert str(file) in refused.error
    assert report.total("quarantined") == 1
    assert count == await fetch_rows(
        services, "select count(*) from era.doctrine_embeddings_all where book = %s", file.parent.name
    )


async def test_stages_one_after_another_come_to_the_same(services: Services, landing: Path) -> None:
    """Materializing chunks, then embeddings, then tables equals doing all at once."""
    arrivals = await resolve_paths(services, [landing])
    request = IngestRequest(arrivals.sources)
    for stage in Stage:
        report = await ingest_books(services, replace(request, stages=frozenset({stage})))
        assert report.error is None
        assert {book.status for book in report.books} == {BookStatus.LOADED}, stage
    whole = await ingest(services, landing)
    assert {book.status for book in whole.books} == {BookStatus.UNCHANGED}
    assert not [finding for finding in await audit_all(services) if is_wrong(finding)]


async def test_tables_before_embeddings_say_what_is_missing(services: Services, landing: Path) -> None:
    """Loading a book whose texts have no vectors names the asset to materialize first, and loads nothing."""
    arrivals = await resolve_paths(services, [landing])
    chunks = frozenset({Stage.BOOKS, Stage.CHUNKS})
    await ingest_books(services, IngestRequest(arrivals.sources, stages=chunks))
    request = IngestRequest(arrivals.sources, stages=frozenset({Stage.VECTOR_TABLES}))
    report = await ingest_books(services, request)
    assert all(book.status is BookStatus.REFUSED and "embeddings" in str(book.error) for book in report.books)
    assert not await fetch_rows(services, "select from era.doctrine_sources")


async def test_a_new_model_takes_over_in_one_step(tmp_path: Path, database_url: str, landing: Path) -> None:
    """Until the last book is there, search uses the old model; then the new one."""
    async with open_services(hashing_settings(tmp_path, database_url)) as services:
        await ingest(services, landing)
    async with open_services(hashing_settings(tmp_path, database_url, embed_dimensions=32)) as services:
        arrivals = await resolve_paths(services, [landing])
        await ingest_books(services, IngestRequest(arrivals.sources[:1]))
        models = await fetch_rows(services, "select distinct model from era.doctrine_embeddings_all")
        assert models == [("hashing/64",)]
        await ingest_books(services, IngestRequest(arrivals.sources))
        models = await fetch_rows(services, "select distinct model from era.doctrine_embeddings_all")
        assert models == [("hashing/32",)]
        searcher = Searcher(services)
        hits = await searcher.search(SearchRequest("patience and trust", k=3))
        await searcher.aclose()
        assert len(hits) == 3
