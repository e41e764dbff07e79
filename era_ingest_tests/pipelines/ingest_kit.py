"""Ingestion without Dagster, and a look at what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import era_ingest
import era_ingest.errors
from era_ingest.pipelines.indexes import refresh_domain_indexes
from era_ingest.pipelines.ingest import ingest_books
from era_ingest.pipelines.landing import resolve_paths
from era_ingest.pipelines.ministers import build_ministers
from era_ingest.pipelines.report import IngestReport, IngestRequest
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from era_ingest.pipelines.services import Services

SAMPLES = Path(era_ingest.__file__).parent / "samples"


def hashing_settings(tmp_path: Path, url: str, **overrides: object) -> Any:
    return load_settings(
        **{
            "home": tmp_path / "home",
            "database_url": url,
            "ministers_dir": tmp_path / "ministers",
            "embedder": "hashing",
            "embed_dimensions": 64,
            **overrides,
        }
    )


async def ingest(services: Services, landing: Path, **options: object) -> IngestReport:
    """Do what ``era ingest`` does, without Dagster."""
    arrivals = await resolve_paths(services, [landing])
    request = IngestRequest(arrivals.sources, arrivals.removed, **options)  # type: ignore[arg-type]
    report = await ingest_books(services, request)
    if report.error is not None:
        raise report.error
    await build_ministers(services)
    await refresh_domain_indexes(services)
    return report


async def fetch_rows(services: Services, query: str, *values: object) -> list[tuple[Any, ...]]:
    async with services.database.connection() as conn:
        cursor = await conn.execute(query.encode(), values)
        return await cursor.fetchall()


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def doctrine_file(landing: Path) -> Path:
    return next(landing.glob("*/02_doctrine.json"))
