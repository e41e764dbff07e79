"""Names of books and domains that are SQL, paths, options or nothing at all: they stay names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.names import show_name
from era_ingest.pipelines.indexes import refresh_domain_indexes
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.ministers import build_ministers
from era_ingest.pipelines.report import IngestRequest
from era_ingest.pipelines.search import Searcher, SearchRequest
from era_ingest.pipelines.services import open_services
from era_ingest.pipelines.verify import audit_all, is_wrong
from era_ingest.settings import load_settings
from era_ingest.store import quarantine
from era_ingest_tests.faults.scale import seeded, short_and_long

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from era_ingest.pipelines.services import Services

PARTS = (
    *(
        "'; drop table era.models; --",
        '" or "1"="1',
        "$$; select pg_sleep(9); $$",
        "%s",
        "%(book)s",
        "{table}",
    ),
    *("..", "../../../etc/passwd", "..\\..\\x", "C:con", "~root", "$HOME", "`id`", "--json", "-rf", "*", "?"),
    *(
        "\u202egnp.exe",
        "\u200b",
        "e\u0301",
        "Ⅷ",
        "ß",
        "İ",
        "\ufdfa",
        "倫理",
        "🜁",
        "\x01",
        "\x1b[2J",
        "\t",
        "\n",
    ),
    *("all", "base", "public", "era", "pg_catalog", "doctrine_embeddings_all", "a" * 60, "_", "-", ".", " "),
    *("<script>alert(1)</script>", "[x](javascript:0)", "|", "\\", "\udc80", "\udcff"),
)


def _name(rng: random.Random) -> str:
    return "".join(rng.choice(PARTS) for _ in range(rng.randint(1, 3)))


def _file_name(rng: random.Random) -> str:
    """Return a name that a file system takes, with undecodable bytes in it now and then."""
    name = _name(rng).replace("/", "∕").replace("\0", "")
    while len(name.encode("utf-8", "surrogateescape")) > 200:
        name = name[:-10]
    return f"x{name}"


def _write(landing: Path, rng: random.Random, count: int) -> list[str]:
    """Write books with such names and domains; return their names."""
    names = []
    for number in range(count):
        path = landing / f"{_file_name(rng)}{number}"
        path.mkdir()
        domains = [_name(rng).encode("utf-8", "replace").decode() for _ in range(3)]
        document = [{"chapter_index": 1, "domains": domains, "rules": [f"Rule {number}."]}]
        (path / "02_doctrine.json").write_text(json.dumps(document), encoding="utf-8")
        names.append(show_name(path.name))
    return names


async def _ingest(services: Services, landing: Path) -> None:
    arrivals = await resolve_paths(services, [landing])
    report = await ingest_books(services, IngestRequest(arrivals.sources, arrivals.removed))
    assert report.error is None
    await build_ministers(services)
    await refresh_domain_indexes(services)


async def _tables(services: Services) -> set[str]:
    async with services.database.connection() as conn:
        rows = await conn.execute(
            "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.relkind in ('r', 'p') and c.relpersistence <> 't' "
            "and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')"
        )
        return {row[0] for row in await rows.fetchall()}


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("count", short_and_long(25, 500))
async def test_hostile_names_stay_names(count: int, tmp_path: Path, database_url: str) -> None:
    """Each book loads under its name, each domain has its view and folder, and nothing else is touched."""
    places = {name: tmp_path / name for name in ("home", "landing", "ministers")}
    for place in places.values():
        place.mkdir()
    settings = load_settings(
        home=places["home"],
        database_url=database_url,
        landing_dir=places["landing"],
        ministers_dir=places["ministers"],
        embedder="hashing",
        embed_dimensions=32,
    )
    with seeded() as rng:
        async with open_services(settings) as services:
            tables = await _tables(services)
            names = _write(places["landing"], rng, count)
            await _ingest(services, places["landing"])
            new = await _tables(services) - tables
            assert len(new) == 1  # the model's
            assert new.pop().startswith("era.")
            assert tables <= await _tables(services)
            async with services.database.connection() as conn:
                rows = await conn.execute("select book, domains from era.doctrine_embeddings_all")
                found = dict(await rows.fetchall())
                for name in names:
                    await quarantine.listing(conn, book=name)
            assert found.keys() == set(names)
            domains = {domain for listed in found.values() for domain in listed}
            assert all(domain.isascii() and domain.replace("_", "").isalnum() for domain in domains)
            assert {path.name for path in places["ministers"].iterdir() if path.is_dir()} == domains
            assert not [finding for finding in await audit_all(services) if is_wrong(finding)]
            searcher = Searcher(services)
            for name in rng.sample(names, min(10, count)):
                hits = await searcher.search(SearchRequest("rule", book=name, k=3))
                assert [hit.book for hit in hits] == [name]
            assert {path.name for path in tmp_path.iterdir()} == set(places)
            assert all(
                part.isascii() and ".." not in part
                for part in _files(places["ministers"]) | _files(places["home"])
            )
