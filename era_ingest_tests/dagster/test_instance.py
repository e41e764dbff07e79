"""Dagster's own storage in the project's database."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import psycopg
import pytest
import sqlalchemy
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage

from era_ingest.errors import ConfigurationError, StoreUnavailableError
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.storage import PostgresStorage, sqlalchemy_url
from era_ingest.settings import load_settings
from era_ingest.store.embedded import hold, status
from era_ingest.store.embedded.waiting import Waiter

if TYPE_CHECKING:
    from dagster import DagsterInstance

ROOT = Path(__file__).parents[2]


@dg.asset
def number() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"n": 7})


def test_runs_and_events_are_kept_in_the_database(
    dagster_instance: DagsterInstance, dagster_database_url: str
) -> None:
    """A run can be read through another instance on the same database, and no table stands in public."""
    result = dg.materialize([number], instance=dagster_instance)
    with open_instance(load_settings()) as other:
        run = other.get_run_by_id(result.run_id)
        event = other.get_latest_materialization_event(dg.AssetKey("number"))
    assert run is not None
    assert run.is_success
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["n"].value == 7
    with psycopg.connect(dagster_database_url) as connection:
        schemas = connection.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname !~ '^pg_|^information'"
        ).fetchall()
    assert schemas == [("dagster",)]


def test_the_packaged_settings_hold(dagster_instance: DagsterInstance, tmp_path: Path) -> None:
    """Retries, monitoring, pools and queue are on, telemetry is off, and files land under ERA_HOME."""
    assert dagster_instance.run_retries_enabled
    assert dagster_instance.run_retries_max_retries == 2
    assert not dagster_instance.run_retries_retry_on_asset_or_op_failure
    assert dagster_instance.run_monitoring_enabled
    assert not dagster_instance.telemetry_enabled
    concurrency = dagster_instance.get_concurrency_config()
    assert concurrency.run_queue_config is not None
    assert concurrency.run_queue_config.max_concurrent_runs == 4
    assert concurrency.pool_config.default_pool_limit == 1
    assert Path(dagster_instance.storage_directory()).is_relative_to(tmp_path / "home" / "dagster")


def test_the_schema_is_up_to_date(dagster_instance: DagsterInstance) -> None:
    """Alembic finds its version in Dagster's own schema, and an upgrade from there is possible."""
    part = dagster_instance.event_log_storage
    current, head = part.alembic_version() or (None, None)
    assert current == head is not None
    dagster_instance.upgrade()


def test_connections_are_shared_by_all_instances_of_a_process(
    dagster_instance: DagsterInstance, dagster_database_url: str
) -> None:
    """Opening many instances, as a sensor's process does, keeps one connection and not one each."""
    for _ in range(5):
        with open_instance(load_settings()) as another:
            another.get_runs(limit=1)
    dagster_instance.get_runs(limit=1)
    with psycopg.connect(dagster_database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'era_dagster'"
        ).fetchone()
    assert row == (1,)


@pytest.mark.parametrize("webserver", [False, True])
def test_a_lost_connection_is_replaced(
    dagster_instance: DagsterInstance, dagster_database_url: str, webserver: bool
) -> None:
    """The instance goes on after the server cut its connections, as a restart does; the webserver's too."""
    if webserver:
        dagster_instance.optimize_for_webserver(statement_timeout=15000, pool_recycle=600, max_overflow=10)
    dagster_instance.get_runs(limit=1)
    with psycopg.connect(dagster_database_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert dg.materialize([number], instance=dagster_instance).success


def test_the_webserver_bounds_its_statements(dagster_instance: DagsterInstance) -> None:
    """A slow query of the UI ends at the webserver's limit, in Dagster's schema all the same."""
    dagster_instance.optimize_for_webserver(statement_timeout=1234, pool_recycle=600, max_overflow=10)
    assert _shown(dagster_instance.run_storage) == ["1234ms", "dagster", "on"]
    assert _shown(dagster_instance.event_log_storage) == ["1234ms", "dagster", "off"]


def test_a_run_is_on_disk_before_anybody_is_told(dagster_instance: DagsterInstance) -> None:
    """Only events may be lost with a server that crashes: they are many, and a run without them is failed."""
    assert _shown(dagster_instance.run_storage)[2] == "on"
    assert _shown(dagster_instance.event_log_storage)[2] == "off"


def _shown(storage: object) -> list[object]:
    assert isinstance(storage, PostgresRunStorage | PostgresEventLogStorage)
    with storage._engine.connect() as connection:
        return [
            connection.execute(sqlalchemy.text(f"SHOW {name}")).scalar()
            for name in ("statement_timeout", "search_path", "synchronous_commit")
        ]


def test_two_processes_may_make_the_tables_at_once(database_url: str) -> None:
    """The webserver and the daemon start together on an empty database."""
    code = "import sys; from era_ingest.orchestration.storage import *; PostgresStorage(sys.argv[1])"
    both = [
        subprocess.Popen([sys.executable, "-c", code, database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said


def test_a_user_who_may_not_make_the_schema_is_told(database_url: str) -> None:
    """A role without CREATE on the database gives an error that says what it lacks."""
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
    with pytest.raises(ConfigurationError, match="permission denied for database"):
        PostgresStorage(database_url.replace("//era@", "//reader@"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40ss@db.example:6000/d?sslmode=require",
        "postgres://u:p%40ss@db.example:6000/d?sslmode=require",
        "host=db.example port=6000 user=u password=p@ss dbname=d sslmode=require",
    ],
)
def test_a_url_means_the_same_to_sqlalchemy(url: str) -> None:
    """Every form that psycopg takes is carried over whole, with Dagster's schema as the search path."""
    translated = sqlalchemy.make_url(sqlalchemy_url(url))
    _, arguments = translated.get_dialect()().create_connect_args(translated)
    assert translated.drivername == "postgresql+psycopg2"
    assert arguments["password"] == "p@ss"
    assert (arguments["user"], arguments["host"], str(arguments["port"])) == ("u", "db.example", "6000")
    assert arguments["dbname"] == "d"
    assert arguments["sslmode"] == "require"
    assert "-c search_path=dagster" in arguments["options"]


def test_the_urls_own_options_stay() -> None:
    """Options of the URL are kept beside ours."""
    translated = sqlalchemy.make_url(sqlalchemy_url("postgresql://h/d?options=-c%20statement_timeout%3D5"))
    assert str(translated.query["options"]).startswith("-c statement_timeout=5 -c search_path=dagster")


def test_no_url_is_refused() -> None:
    """Text that is no PostgreSQL URL gives a clear error."""
    with pytest.raises(ConfigurationError, match="ERA_DATABASE_URL is no PostgreSQL URL"):
        sqlalchemy_url("mysql://host/db")


def test_an_absent_server_is_named_without_the_password() -> None:
    """The error says where nobody answers; the password is not in it."""
    with pytest.raises(StoreUnavailableError) as caught:
        PostgresStorage("postgresql://u:secret@127.0.0.1:1/d")
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_dagster_home_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DAGSTER_HOME is set, its own dagster.yaml counts."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    monkeypatch.setenv("ERA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ERA_DATABASE_URL", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance(load_settings()) as instance:
        assert instance.root_directory == str(tmp_path)
        assert not isinstance(instance.run_storage, PostgresRunStorage)


def test_the_command_line_finds_it_with_nothing_set(embedded_homes: Path, tmp_path: Path) -> None:
    """`dagster asset materialize` reads ./dagster.yaml, starts the embedded server, and stops it."""
    home = embedded_homes / "command line"
    (tmp_path / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    (tmp_path / "graph.py").write_text(
        textwrap.dedent(
            """
            import dagster as dg

            @dg.asset
            def number() -> None: ...

            defs = dg.Definitions([number])
            """
        ),
        encoding="utf-8",
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ERA_", "DAGSTER"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "asset", "materialize", "-f", "graph.py", "--select", "number"],
        cwd=tmp_path,
        env={**environment, "ERA_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Waiter().until(lambda: not status(home).running, 60)
    with hold(home, durable=False) as lease, psycopg.connect(lease.url) as connection:
        rows = connection.execute("SELECT status FROM dagster.runs").fetchall()
    assert rows == [("SUCCESS",)]
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"dagster.yaml", "graph.py", "__pycache__"}
