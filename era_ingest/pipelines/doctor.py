"""What is reachable, what is missing, what to do about it."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_ingest.clients.factory import build_embedder
from era_ingest.errors import ConfigurationError, EraError
from era_ingest.settings import EmbedderKind
from era_ingest.store import location, schema
from era_ingest.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from era_ingest.settings import Settings

_LOW_DISK_BYTES = 1 << 30
_NO_DISK_BYTES = 64 << 20


class Health(StrEnum):
    """How a part is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found about one part.

    Attributes:
        part: What was looked at.
        health: How it is.
        detail: What was seen.
        remedy: What to do; empty where nothing is to be done.
    """

    part: str
    health: Health
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


async def diagnose(settings: Settings) -> list[Diagnosis]:
    """Look at every part that the settings name; one part's failure hides no other."""
    found = [
        check_folder("state (ERA_HOME)", settings.home),
        check_disk(settings.home),
        check_landing(settings.landing_dir),
        check_folder("minister files (ERA_MINISTERS_DIR)", settings.ministers_dir),
    ]
    if "://" not in settings.chunks_location:
        found.append(check_folder("chunks (ERA_CHUNKS_URL)", Path(settings.chunks_location)))
    found.append(await _guarded("database", lambda: _check_database(settings)))
    found.append(await _guarded(f"embedder ({settings.embedder.value})", lambda: _check_embedder(settings)))
    return found


def check_folder(part: str, folder: Path) -> Diagnosis:
    """Try to write a file where the folder is, or is to be."""
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is not a folder")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        remedy = (
            f"Give this user the right to write to {nearest}, free space there, or choose another folder."
        )
        return Diagnosis(part, Health.FAILED, f"{folder.absolute()} cannot be written: {error}", remedy)
    made = "" if folder.exists() else " (will be made)"
    return Diagnosis(part, Health.OK, f"{folder.absolute()}{made}")


def check_disk(folder: Path, *, free_bytes: int | None = None) -> Diagnosis:
    """See whether the disk under a folder has room left.

    Args:
        folder: It or its nearest existing parent is looked at.
        free_bytes: Takes the place of the measurement, for tests.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    free = shutil.disk_usage(nearest).free if free_bytes is None else free_bytes
    detail = f"{free / 2**30:.1f} GiB free at {nearest}"
    if free < _NO_DISK_BYTES:
        return Diagnosis("disk", Health.FAILED, detail, "Free some space, or move ERA_HOME to another disk.")
    if free < _LOW_DISK_BYTES:
        return Diagnosis("disk", Health.WARNING, detail, "Free some space soon, or move ERA_HOME.")
    return Diagnosis("disk", Health.OK, detail)


def check_landing(folder: Path) -> Diagnosis:
    """See whether the landing folder can be listed."""
    part = "landing folder (ERA_LANDING_DIR)"
    try:
        count = sum(1 for entry in os.scandir(folder) if not entry.name.startswith("."))
    except FileNotFoundError:
        remedy = f"mkdir -p {folder.absolute()}, or set ERA_LANDING_DIR; `era ingest PATH` needs neither."
        return Diagnosis(part, Health.WARNING, f"{folder.absolute()} does not exist", remedy)
    except OSError as error:
        return Diagnosis(
            part, Health.FAILED, str(error), f"Give this user the right to read {folder.absolute()}."
        )
    return Diagnosis(part, Health.OK, f"{folder.absolute()}: {count} items")


async def _check_database(settings: Settings) -> Diagnosis:
    where = "ERA_DATABASE_URL" if settings.database_url else "embedded"
    with location.database(settings) as url:
        async with Database.opened(url, max_connections=1) as database:
            version = await schema.migrate(database)
            async with database.connection() as conn:
                cursor = await conn.execute(
                    "select current_setting('server_version'), extversion from pg_extension "
                    "where extname = 'vector'"
                )
                row = await cursor.fetchone()
    assert row is not None
    return Diagnosis(
        "database", Health.OK, f"{where}: PostgreSQL {row[0]}, pgvector {row[1]}, schema version {version}"
    )


async def _check_embedder(settings: Settings) -> Diagnosis:
    part = f"embedder ({settings.embedder.value})"
    embedder = build_embedder(settings)
    try:
        reply = await embedder.embed(["Is anybody there?"])
    finally:
        await embedder.aclose()
    note = ""
    health = Health.OK
    if settings.embedder is EmbedderKind.HASHING:
        note, health = "; no model: good for tests and dry runs, poor for search", Health.WARNING
    return Diagnosis(part, health, f"{embedder.name}: {reply.vectors.shape[1]} dimensions{note}")


async def _guarded(part: str, check: Callable[[], Awaitable[Diagnosis]]) -> Diagnosis:
    """Turn an error of a check into what it found."""
    try:
        return await check()
    except ConfigurationError as error:
        return Diagnosis(part, Health.FAILED, error.message, "")
    except EraError as error:
        return Diagnosis(
            part, Health.FAILED, error.message, "See above; `era doctor` again once it is mended."
        )
