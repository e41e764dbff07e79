"""Eight writers rebuild minister files while the database changes and a reader looks on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.ministers import build_ministers
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.services import open_services
from era_ingest.settings import load_settings
from era_ingest_tests.faults import minister_reader
from era_ingest_tests.faults.kit import Installation, files_below, write_book
from era_ingest_tests.faults.scale import short_and_long

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from era_ingest.pipelines.services import Services

WRITERS = 8
DOMAINS = ("ethics", "war")


def chapters_of(version: int) -> list[dict[str, Any]]:
    """Return a book of 40 entries whose texts end in the version."""
    return [
        {
            "chapter_index": 0,
            "domains": list(DOMAINS),
            **{
                category: [f"{category} {number} of version {version}" for number in range(10)]
                for category in ("principles", "rules", "claims", "warnings")
            },
        }
    ]


async def load(services: Services) -> None:
    arrivals = await resolve_paths(services, [services.settings.landing_dir])
    report = await ingest_books(services, IngestRequest(arrivals.sources))
    assert report.error is None


async def write_while_it_changes(installation: Installation, rounds: int) -> None:
    """Load a version a round, while eight writers build the files of whatever there is."""
    settings = load_settings(**_fields(installation))
    over = asyncio.Event()

    async def build(services: Services) -> None:
        while not over.is_set():
            await build_ministers(services, DOMAINS)

    async with AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(open_services(settings)) for _ in range(WRITERS)]
        async with asyncio.TaskGroup() as group:
            for services in writers:
                group.create_task(build(services))
            for version in range(rounds):
                write_book(installation.landing, "book", chapters_of(version), version=version)
                await load(writers[0])
            over.set()
        for services in writers:
            changes = (await build_ministers(services, DOMAINS)).changes
            assert services is writers[0] or not changes.written


def _fields(installation: Installation) -> dict[str, Any]:
    return {
        "home": installation.home,
        "database_url": installation.database_url,
        "ministers_dir": installation.ministers,
        "landing_dir": installation.landing,
        "embedder": "hashing",
        "embed_dimensions": 16,
        "preset": "local",
    }


@pytest.mark.parametrize("rounds", short_and_long(100, 1_000))
async def test_no_reader_sees_a_torn_or_half_new_file(
    installation: Installation, tmp_path: Path, rounds: int, note: Callable[[str, float], None]
) -> None:
    """Every file that is read is whole and of one version; at the end the bytes are those of a single writer."""
    write_book(installation.landing, "book", chapters_of(0))
    async with open_services(load_settings(**_fields(installation))) as services:
        await load(services)
        await build_ministers(services)
    reader = await asyncio.create_subprocess_exec(
        sys.executable,
        minister_reader.__file__,
        str(installation.ministers),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        await write_while_it_changes(installation, rounds)
    finally:
        told, _ = await reader.communicate(b"")
    seen = json.loads(told)
    note("ministers: files read while eight writers rebuilt them", seen.pop("reads"))
    assert {name: count for name, count in seen.items() if count} == {}
    alone = Installation(tmp_path / "alone", installation.database_url)
    async with open_services(
        load_settings(**{**_fields(installation), "ministers_dir": alone.ministers})
    ) as services:
        await build_ministers(services, DOMAINS)
    assert files_below(alone.ministers) == files_below(installation.ministers)
    assert not list(installation.ministers.rglob(".era-*"))
