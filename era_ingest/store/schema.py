"""The schema ``era`` and its versions: ``migrations/NNNN_name.sql``, each applied once, in order."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import errors, sql

from era_ingest.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from era_ingest.store.database import Database

LEAST_PGVECTOR = (0, 8, 4)
"""Older ones lose rows of filtered index scans or crash while building."""

_MIGRATION_LOCK = 0x65726100
"""Key of the advisory lock under which one program at a time migrates."""


class Migration(NamedTuple):
    """One step of the schema."""

    version: int
    name: str
    script: str


def load_migrations() -> list[Migration]:
    """Return the migrations that ship with this version, in order of their number."""
    folder = resources.files("era_ingest.store").joinpath("migrations")
    return sorted(
        Migration(int(match[1]), match[2], item.read_text(encoding="utf-8"))
        for item in folder.iterdir()
        if (match := re.fullmatch(r"(\d{4})_(\w+)\.sql", item.name))
    )


async def migrate(db: Database) -> int:
    """Bring the database to this version's schema; return the schema's version.

    Safe to call at every start and from several programs at once. Either all missing migrations are applied
    or none.

    Raises:
        ConfigurationError: pgvector is missing, too old or may not be installed by this user; or the database
            was written by a later or another version of this project.
        StoreUnavailableError: The database is away.
    """
    async with db.connection() as conn:
        return await migrate_in(conn)


async def migrate_in(conn: AsyncConnection[Any]) -> int:
    """Do as ``migrate`` on one connection; the caller ends the transaction."""
    migrations = load_migrations()
    latest = migrations[-1].version
    if not _missing(migrations, await _applied(conn)):
        return latest
    await conn.execute("select pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
    await _ensure_pgvector(conn)
    missing = _missing(migrations, await _applied(conn))
    try:
        await _prepare(conn)
        for migration in missing:
            await _apply(conn, migration)
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"The database user may not create the schema era: {error}. Grant it CREATE on the database."
        ) from error
    return latest


def _missing(migrations: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """Return the migrations that a database lacks, in order; one may come before others that it has.

    That is so where two were written side by side, and the one with the higher number was released first.

    Raises:
        ConfigurationError: The database has a migration that this program does not know, or knows as another.
    """
    known = {migration.version: migration.name for migration in migrations}
    if strange := {version: name for version, name in applied.items() if known.get(version) != name}:
        version, name = max(strange.items())
        there = f"{known[version]!r} of that number" if version in known else f"versions up to {max(known)}"
        raise ConfigurationError(
            f"The database has schema version {version} ({name!r}), this program knows {there}: "
            "install the version of era_ingest that wrote it, or a later one."
        )
    return [migration for migration in migrations if migration.version not in applied]


async def _applied(conn: AsyncConnection[Any]) -> dict[int, str]:
    """Return the names of the migrations that the database has, by version."""
    cursor = await conn.execute("select to_regclass('era.schema_version')")
    if (row := await cursor.fetchone()) is None or row[0] is None:
        return {}
    cursor = await conn.execute("select version, name from era.schema_version")
    return dict(await cursor.fetchall())


async def _prepare(conn: AsyncConnection[Any]) -> None:
    await conn.execute("create schema if not exists era")
    await conn.execute(
        "create table if not exists era.schema_version "
        "(version integer primary key, name text not null, applied_at timestamptz not null default now())"
    )


async def _apply(conn: AsyncConnection[Any], migration: Migration) -> None:
    # The script is a file of this package, not text from outside.
    await conn.execute(sql.SQL(migration.script))
    await conn.execute(
        "insert into era.schema_version (version, name) values (%s, %s)", (migration.version, migration.name)
    )


async def _ensure_pgvector(conn: AsyncConnection[Any]) -> None:
    """Install or update the extension ``vector``, and check its version."""
    try:
        installed = await pgvector_version(conn)
        if installed is None:
            await conn.execute("create extension vector with schema public")
        elif installed < LEAST_PGVECTOR:
            await conn.execute("alter extension vector update")
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "The database user may not install pgvector: let a superuser run CREATE EXTENSION vector in this "
            "database (or ALTER EXTENSION vector UPDATE, where it is there already)."
        ) from error
    except (errors.UndefinedFile, errors.FeatureNotSupported) as error:
        raise ConfigurationError(
            "The PostgreSQL server has no pgvector: install it there (>= "
            f"{_dotted(LEAST_PGVECTOR)}), or leave ERA_DATABASE_URL unset to use the embedded server."
        ) from error
    installed = await pgvector_version(conn)
    if installed is None or installed < LEAST_PGVECTOR:
        raise ConfigurationError(
            f"The PostgreSQL server has pgvector {_dotted(installed or ())}, {_dotted(LEAST_PGVECTOR)} is "
            "the least that works: update it there, then run ALTER EXTENSION vector UPDATE."
        )


async def pgvector_version(conn: AsyncConnection[Any]) -> tuple[int, ...] | None:
    """Return the version of pgvector in this database, such as ``(0, 8, 5)``; None where there is none."""
    cursor = await conn.execute("select extversion from pg_extension where extname = 'vector'")
    row = await cursor.fetchone()
    return None if row is None else tuple(int(part) for part in re.findall(r"\d+", row[0])[:3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
