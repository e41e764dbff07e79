"""Dagster's storages in the project's own database: kept connections, a schema of their own, few waits for the disk.

Dagster's tables stand in schema ``dagster``. What an event costs decides how fast many small books load. By
``era_ingest_tests/bench/dagster_events.py``, on 2 busy cores: the stock storage 46 ms (a new connection for every
statement, several waits for the disk an event), this one 3.4 ms.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import create_pg_engine
from psycopg import conninfo, sql

from era_ingest.orchestration.launcher import HOST_TAG
from era_ingest.orchestration.patience import patient, watch_statements
from era_ingest.store.failures import connection_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster import DagsterRun
    from dagster._serdes import ConfigurableClassData

SCHEMA = "dagster"
"""Schema of Dagster's tables, so that they do not stand among the user's own."""

EVENT_BATCH = 100
"""Materializations of one output that are written together; DAGSTER_EVENT_BATCH_SIZE wins."""

_CONNECTIONS_KEPT = 1
_CONNECTIONS_MORE = 20
_RECYCLE_S = 3600
_TABLES_TIMEOUT_S = 60
_FIRST_TABLES = ("runs", "event_logs", "jobs")
"""One table of each storage, by which the stock code tells whether all are made."""


class _Pooled:
    """Mixed into Dagster's storages: kept, checked connections, shared by all instances of a process."""

    postgres_url: str
    statements_bounded = False
    _engine: sqlalchemy.Engine

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Bound statements, in milliseconds; the stock method's pool also hands out dead connections."""
        self.statements_bounded = statement_timeout > 0
        self._engine = _shared_engine(self.url, statement_timeout, pool_recycle, max_overflow)

    @property
    def url(self) -> str:
        """Return the URL of this storage's connections."""
        return self.postgres_url


@patient
class _Runs(_Pooled, PostgresRunStorage):
    """Runs, over the shared connections."""

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        """Add a run; one that no code server executes is executed here, which its tags say."""
        if dagster_run.remote_job_origin is None:
            dagster_run = dagster_run.with_tags({**dagster_run.tags, HOST_TAG: socket.gethostname()})
        return super().add_run(dagster_run)


@patient
class _Events(_Pooled, PostgresEventLogStorage):
    """Events, over shared connections that do not wait for the disk."""

    @property
    def url(self) -> str:
        """Return the URL of this storage's connections."""
        target = sqlalchemy.make_url(self.postgres_url)
        options = f"{target.query['options']} -c synchronous_commit=off"
        return target.update_query_dict({"options": options}).render_as_string(hide_password=False)


@patient
class _Schedules(_Pooled, PostgresScheduleStorage):
    """Schedules and sensors, over the shared connections."""


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in schema ``dagster`` of the project's database.

    A crash of the server may lose the last half second of events (``synchronous_commit = off``, on their
    connections only): Dagster's run monitoring then fails their runs. No run and no row of a book is among them.
    """

    def __init__(self, url: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Open the storage, making its schema and tables where they are missing.

        Args:
            url: Of the database, as psycopg takes it.
            inst_data: How Dagster makes the storage again in another process.

        Raises:
            ConfigurationError: Wrong URL or login, or the user may not make the schema.
            StoreUnavailableError: The server is away.
        """
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(EVENT_BATCH))
        self.postgres_url = sqlalchemy_url(url)
        self.should_autocreate_tables = True
        self._inst_data = inst_data
        with _one_makes_the_tables(url):
            self._run_storage = _Runs(self.postgres_url)
            self._event_log_storage = _Events(self.postgres_url)
            self._schedule_storage = _Schedules(self.postgres_url)
        for part in (self._run_storage, self._event_log_storage, self._schedule_storage):
            part._engine = _shared_engine(part.url)  # noqa: SLF001 - the stock one connects for every statement
        # Past the stock storage's own, which would make the three parts itself.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]


def sqlalchemy_url(url: str) -> str:
    """Return a psycopg URL as SQLAlchemy takes it, for psycopg2, with Dagster's schema as the search path.

    dagster-postgres needs psycopg2 (its NOTIFY fails on psycopg 3, which SQLAlchemy 2.1 takes by default).

    Raises:
        ConfigurationError: It is no PostgreSQL URL.
    """
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.Error as error:
        raise connection_error(error, url) from error
    texts = {name: str(value) for name, value in parts.items() if value is not None}
    options = f"{texts.pop('options', '')} -c search_path={SCHEMA}".strip()
    return sqlalchemy.URL.create(
        "postgresql+psycopg2",
        username=texts.pop("user", None),
        password=texts.pop("password", None),
        database=texts.pop("dbname", None),
        query={"application_name": "era_dagster", **texts, "options": options},
    ).render_as_string(hide_password=False)


@cache
def _shared_engine(
    url: str,
    statement_timeout_ms: int = 0,
    recycle_s: int = _RECYCLE_S,
    more_connections: int = _CONNECTIONS_MORE,
) -> sqlalchemy.Engine:
    """Return this process's one engine for a URL: Dagster opens an instance a tick, connections stay few."""
    target = sqlalchemy.make_url(url)
    if statement_timeout_ms > 0:
        options = f"{target.query['options']} -c statement_timeout={statement_timeout_ms}"
        target = target.update_query_dict({"options": options})
    engine = create_pg_engine(
        target.render_as_string(hide_password=False),
        isolation_level="AUTOCOMMIT",
        pool_size=_CONNECTIONS_KEPT,
        max_overflow=more_connections,
        pool_recycle=recycle_s,
        pool_pre_ping=True,  # the server may have been restarted meanwhile
    )
    watch_statements(engine)
    os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
    return engine


@contextmanager
def _one_makes_the_tables(url: str) -> Iterator[None]:
    """Make Dagster's schema, and hold others off until its tables are made; free where they are there.

    The stock storages only retry on a table that another process made, not on its type or its sequence.
    """
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            if not _tables_exist(connection):
                connection.execute(
                    "SELECT set_config('lock_timeout', %s, false), pg_advisory_lock(hashtext(%s))",
                    [f"{_TABLES_TIMEOUT_S}s", f"era_ingest {SCHEMA}"],
                )
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
            yield
    except psycopg.Error as error:
        raise connection_error(error, url) from error


def _tables_exist(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(
        "SELECT bool_and(to_regclass(format('%%I.%%I', %s::text, name)) IS NOT NULL)"
        " FROM unnest(%s::text[]) AS name",
        [SCHEMA, list(_FIRST_TABLES)],
    ).fetchone()
    return row is not None and bool(row[0])
