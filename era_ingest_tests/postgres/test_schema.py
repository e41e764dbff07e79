"""The schema: made once, safely, or refused with a remedy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from era_ingest.errors import ConfigurationError
from era_ingest.store import schema
from era_ingest.store.database import Database

if TYPE_CHECKING:
    from era_ingest_tests.postgres.store_kit import Store


async def test_migrating_twice_changes_nothing(database: Database) -> None:
    """A second start finds the schema as it is."""
    first = await schema.migrate(database)
    assert await schema.migrate(database) == first == schema.load_migrations()[-1].version


async def test_programs_that_start_together_migrate_once(database: Database) -> None:
    """Of several programs one migrates, the others wait for it."""
    versions = await asyncio.gather(*(schema.migrate(database) for _ in range(4)))
    assert len(set(versions)) == 1
    async with database.connection() as conn:
        cursor = await conn.execute("select count(*) from era.schema_version")
        assert await cursor.fetchone() == (len(schema.load_migrations()),)


async def test_pgvector_is_installed_where_it_is_missing(bare_database_url: str) -> None:
    """A database without the extension gets it, in the schema public."""
    async with Database.opened(bare_database_url, max_connections=1) as database:
        await schema.migrate(database)
        async with database.connection() as conn:
            assert (await schema.pgvector_version(conn) or ()) >= schema.LEAST_PGVECTOR


async def test_old_pgvector_is_refused(bare_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose pgvector cannot be updated far enough is refused, with what to do."""
    monkeypatch.setattr(schema, "LEAST_PGVECTOR", (99, 0, 0))
    async with Database.opened(bare_database_url, max_connections=1) as database:
        with pytest.raises(ConfigurationError, match=r"99\.0\.0 is the least.*ALTER EXTENSION"):
            await schema.migrate(database)


async def test_user_without_rights_is_told_what_is_missing(database: Database) -> None:
    """A user who may not create a schema learns which right to ask for."""
    async with database.connection() as conn:
        await conn.execute("create role era_poor")
    try:
        async with database.connection() as conn:
            await conn.execute("set local role era_poor")
            with pytest.raises(ConfigurationError, match="Grant it CREATE"):
                await schema.migrate_in(conn)
            await conn.rollback()
    finally:
        async with database.connection() as conn:
            await conn.execute("drop role era_poor")


async def test_later_schema_is_refused(store: Store) -> None:
    """A database that a later version wrote is left alone."""
    await store.fetch("insert into era.schema_version (version, name) values (9999, 'later')")
    with pytest.raises(ConfigurationError, match="schema version 9999"):
        await schema.migrate(store.database)


async def test_another_schema_is_refused(store: Store) -> None:
    """So is one in which a number stands for another migration: two branches took the same."""
    await store.fetch("update era.schema_version set name = 'rival' where version = 10")
    with pytest.raises(ConfigurationError, match=r"version 10 \('rival'\), this program knows 'jobs'"):
        await schema.migrate(store.database)


async def test_a_migration_that_arrives_late_is_applied(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is lower than one that the database has; all are applied once, each after those before it."""
    released = schema.load_migrations()
    late = [
        schema.Migration(15, "late", "create table era.late (id integer)"),
        schema.Migration(16, "later", "alter table era.late add column name text"),
    ]
    await schema.migrate(database)
    monkeypatch.setattr(schema, "load_migrations", lambda: sorted([*released, *late]))
    latest = [await schema.migrate(database) for _ in range(2)]
    assert latest == [released[-1].version] * 2
    async with database.connection() as conn:
        cursor = await conn.execute("select version from era.schema_version order by applied_at, version")
        versions = [row[0] for row in await cursor.fetchall()]
        assert versions == [*(one.version for one in released), 15, 16]
        await conn.execute("select id, name from era.late")


def test_no_two_migrations_have_one_number() -> None:
    """Two branches that took the same are found before they are released."""
    versions = [migration.version for migration in schema.load_migrations()]
    assert len(set(versions)) == len(versions)


async def test_empty_installation_has_its_views(database: Database) -> None:
    """Readers find the views, empty, before anything was loaded."""
    await schema.migrate(database)
    async with database.connection() as conn:
        for view in ("doctrine_embeddings_all", "minister_entries"):
            cursor = await conn.execute(f"select * from {view}")
            assert await cursor.fetchall() == []
