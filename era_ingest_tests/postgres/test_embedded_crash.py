"""The embedded server under kill -9: of its users, of itself, of its warden, of whoever was making it."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
from psycopg import pq

from era_ingest.errors import ConfigurationError, StoreUnavailableError
from era_ingest.store.database import Database
from era_ingest.store.embedded import hold, starting, status, stop, warden
from era_ingest.store.embedded.binaries import binaries
from era_ingest.store.embedded.cluster import server_environment
from era_ingest.store.embedded.identity import server_identity
from era_ingest.store.embedded.layout import Layout
from era_ingest.store.embedded.postmaster import running_pid
from era_ingest.store.embedded.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from era_ingest_tests.postgres.conftest import Client

    Clients = Callable[..., Client]

WAIT_S = 60.0


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait for something that another process does."""
    return Waiter().until(condition, WAIT_S)


def warden_of(home: Path) -> psutil.Process:
    """Return the warden of a home's server."""
    lock = str(Layout.of(home).users_lock)
    return next(one for one in psutil.process_iter(["cmdline"]) if lock in (one.info["cmdline"] or []))


def gone(pid: int) -> bool:
    """Say whether a process has ended, even where nobody reaps it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill_hard(pid: int | None) -> None:
    """Kill with -9 and wait until the process is gone."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: gone(pid))


def rows(url: str) -> int:
    """Count the rows of table t."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM t").fetchone()
    assert row is not None
    return int(row[0])


def make_rows(url: str) -> None:
    """Commit ten rows."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS n")


def test_a_killed_last_user_does_not_keep_it_alive(home: Path, client: Clients) -> None:
    """Kill -9 of the only user: the warden stops the server in good order."""
    one = client(home)
    make_rows(one.url())
    one.kill()
    assert eventually(lambda: not status(home).running)
    assert "database system is shut down" in Layout.of(home).log.read_text(encoding="utf-8")
    with hold(home, durable=False) as lease:
        assert rows(lease.url) == 10


def test_a_user_killed_while_it_starts_the_server(home: Path, client: Clients) -> None:
    """A server that is still starting does not hear that it should stop; it is asked until it does."""
    one = client(home)
    lock = str(Layout.of(home).users_lock)
    assert eventually(
        lambda: any(lock in (other.info["cmdline"] or []) for other in psutil.process_iter(["cmdline"]))
    )
    one.kill()
    assert eventually(lambda: not status(home).running)


def test_a_killed_user_does_not_stop_it_under_others(home: Path, client: Clients) -> None:
    """Kill -9 of one user leaves the server to the other."""
    one, two = client(home), client(home)
    url = two.url()
    one.url()
    pid = status(home).pid
    one.kill()
    make_rows(url)
    assert status(home).pid == pid
    two.leave()
    assert not status(home).running


def test_ctrl_c_in_a_users_terminal_is_not_for_the_server(home: Path, client: Clients) -> None:
    """SIGINT to the process group of the user that started it does not reach it."""
    one = client(home, start_new_session=True, stderr=subprocess.DEVNULL)
    one.url()
    with hold(home, durable=False) as lease:
        os.killpg(one.process.pid, signal.SIGINT)
        assert one.process.wait(10) != 0
        make_rows(lease.url)


def test_a_killed_server_comes_back_for_its_users(home: Path) -> None:
    """Kill -9 of the postmaster: the warden starts it again; what was committed is there, at the same URL."""
    with hold(home, durable=False) as lease:
        make_rows(lease.url)
        before = status(home).pid
        kill_hard(before)
        with hold(home, durable=False) as another:
            assert another.url == lease.url
            assert rows(another.url) == 10
        assert status(home).pid not in {None, before}
        log = Layout.of(home).log
        starts = log.read_text(encoding="utf-8").count("starting PostgreSQL")
    assert not status(home).running
    # An orderly stop soon after a crash is no crash: the warden once started it ten times more.
    assert log.read_text(encoding="utf-8").count("starting PostgreSQL") == starts


async def test_a_pool_survives_a_restart(home: Path) -> None:
    """An open Database goes on by itself after the server was killed and came back."""
    with hold(home, durable=False) as lease:
        async with Database.opened(lease.url, max_connections=2) as database:
            async with database.connection() as connection:
                await connection.execute("CREATE TABLE t AS SELECT 1 AS n")
            kill_hard(status(home).pid)
            async with database.connection() as connection:
                row = await (await connection.execute("SELECT n FROM t")).fetchone()
            assert row == (1,)


def test_a_server_and_a_warden_killed_together(home: Path) -> None:
    """Nobody is left to start it again: the next user does, with crash recovery."""
    with hold(home, durable=False) as lease:
        make_rows(lease.url)
        pid = status(home).pid
        warden_of(home).kill()
        kill_hard(pid)
        with hold(home, durable=False) as another:
            assert rows(another.url) == 10


def test_a_killed_warden_is_not_missed(home: Path) -> None:
    """Without its warden the server serves on, and the last user who leaves stops it."""
    with hold(home, durable=False) as lease:
        kill_hard(warden_of(home).pid)
        make_rows(lease.url)
    assert not status(home).running


def test_a_warden_asked_to_end_stops_the_server(home: Path) -> None:
    """SIGTERM, as at a shutdown of the machine, ends in an orderly stop."""
    lease = hold(home, durable=False)
    warden_of(home).terminate()
    assert eventually(lambda: not status(home).running)
    lease.close()


def test_a_stale_pid_file_of_another_program(home: Path) -> None:
    """A pid file that names a living process which is no server does not stand in the way."""
    pid_file = Layout.of(home).data / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n1\n5432\n/tmp\n\n0 0\nready\n", encoding="utf-8")
    with hold(home, durable=False) as lease:
        make_rows(lease.url)


@pytest.mark.parametrize("text", ["", "no number\n", "2147483646\n"])
def test_a_broken_pid_file(home: Path, text: str) -> None:
    """A pid file that is empty, torn, or of a dead process does not stand in the way."""
    (Layout.of(home).data / "postmaster.pid").write_text(text, encoding="utf-8")
    with hold(home, durable=False) as lease:
        make_rows(lease.url)


def test_a_server_that_somebody_else_started(home: Path) -> None:
    """A foreign server on the data folder is named, and left alone."""
    layout = Layout.of(home)
    hold(home, durable=False).close()  # the files now have their owner
    identity = server_identity(layout.data, home)
    command = [*identity.prefix, str(binaries() / "postgres"), "-D", str(layout.data)]
    folder = layout.local_socket_folder if layout.local_socket_folder.exists() else layout.data
    with subprocess.Popen(
        [*command, f"--unix_socket_directories={folder}", "-p", "6543"],
        cwd=layout.data,
        env=server_environment(),
        stderr=subprocess.DEVNULL,
    ) as foreign:
        assert eventually(lambda: running_pid(layout.data) == foreign.pid)
        with pytest.raises(ConfigurationError, match=f"pid {foreign.pid}"):
            hold(home, durable=False)
        assert foreign.poll() is None
        foreign.send_signal(signal.SIGINT)


def test_a_program_killed_while_it_makes_the_database(new_home: Path, client: Clients) -> None:
    """A database is there whole or not at all; what was unfinished is swept away."""
    one = client(new_home)
    root = Layout.of(new_home).root
    assert eventually(lambda: any(root.glob("data.new-*/base")))
    one.kill()
    assert not (root / "data").exists()
    with hold(new_home, durable=False) as lease:
        make_rows(lease.url)
    assert not list(root.glob("data.new-*"))


def test_a_deleted_home_takes_its_server_along(home: Path) -> None:
    """`rm -r .era` while a server runs ends that server, and the next user gets a new one."""
    lease = hold(home, durable=False)
    pid = status(home).pid
    assert pid is not None
    subprocess.run(["rm", "-rf", home], check=True)  # like a person; files vanish meanwhile
    assert eventually(lambda: gone(pid))
    lease.close()
    with hold(home, durable=False) as another, psycopg.connect(another.url) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_long_recovery_is_waited_for_and_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who waits is told so every five seconds, and gives up at the limit with the log's place."""
    said: list[str] = []
    now = [0.0]
    waiter = Waiter(clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    with hold(home, durable=False):
        monkeypatch.setattr(starting, "ping", lambda _layout: pq.Ping.REJECT)
        with pytest.raises(StoreUnavailableError, match=r"not ready after 300 s.*server\.log"):
            starting.ensure_running(
                Layout.of(home), durable=False, timeout_s=300.0, tell=said.append, waiter=waiter
            )
        assert 50 <= len(said) <= 60
        assert "recovering" in said[0]
        monkeypatch.setattr(starting, "ping", lambda _layout: pq.Ping.NO_RESPONSE)
        with pytest.raises(StoreUnavailableError, match="do not answer"):
            starting.ensure_running(
                Layout.of(home), durable=False, timeout_s=300.0, tell=said.append, waiter=waiter
            )


def test_the_log_is_bounded(home: Path) -> None:
    """A log that grows past its limit is cut, and the server goes on writing to it."""
    log = Layout.of(home).log
    with hold(home, durable=False) as lease:
        with log.open("ab") as file:
            file.write(b"x" * warden._LOG_BYTES)
        assert eventually(lambda: log.stat().st_size < warden._LOG_BYTES)
        with psycopg.connect(lease.url) as connection:
            connection.execute("DO $$ BEGIN RAISE WARNING 'still here'; END $$")
        assert eventually(lambda: b"still here" in log.read_bytes())
        assert log.with_name("server.log.1").stat().st_size <= warden._LOG_BYTES


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    """A wrong setting of the user's own is named, at once."""
    custom = Layout.of(home).user_configuration
    custom.write_text("shared_buffers = 'much'\n", encoding="utf-8")
    custom.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"shared_buffers.*custom\.conf"):
        hold(home, durable=False)
    assert not status(home).in_use
    assert not stop(home)
