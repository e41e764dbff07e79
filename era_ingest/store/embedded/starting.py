"""Starting the server: whoever gets the server lock starts it, everybody else waits until it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import pq

from era_ingest.errors import ConfigurationError, StoreUnavailableError
from era_ingest.store.embedded import configuration, locks, postmaster
from era_ingest.store.embedded.binaries import binaries
from era_ingest.store.embedded.cluster import ensure_cluster, server_environment
from era_ingest.store.embedded.failures import explain_os_error, explain_output, log_tail
from era_ingest.store.embedded.identity import match_owner, server_identity
from era_ingest.store.embedded.layout import Layout
from era_ingest.store.embedded.sockets import PORT, ping, prepare_socket_folder, server_url
from era_ingest.store.embedded.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

SILENT_TIMEOUT_S = 60.0
"""How long a server may hold its lock without a socket that answers."""
_TELL_EVERY_S = 5.0
_LONGEST_PATH_BYTES = 900
"""PostgreSQL keeps paths in 1,024 bytes, and appends to this one."""

_WARDEN = Path(__file__).with_name("warden.py")
_WAITER = Waiter()


def prepare_home(home: Path) -> Layout:
    """Make the folders; only they and what is in them are ever written."""
    binaries()
    layout = Layout.of(home)
    if len(os.fsencode(layout.data)) > _LONGEST_PATH_BYTES:
        raise ConfigurationError(
            f"ERA_HOME is too long ({layout.data}): at most {_LONGEST_PATH_BYTES} bytes."
        )
    try:
        layout.root.parent.mkdir(parents=True, exist_ok=True)
        # Passable, not readable: as root the server runs as somebody else, who must reach his data.
        layout.root.mkdir(mode=0o711, exist_ok=True)
        layout.log.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(locks.open_lock(layout.users_lock))
        os.close(locks.open_lock(layout.server_lock))
        match_owner(layout)
    except OSError as error:
        raise explain_os_error("Preparing the embedded database", layout.root, error) from error
    return layout


def ensure_running(
    layout: Layout,
    *,
    durable: bool,
    timeout_s: float,
    tell: Callable[[str], None],
    waiter: Waiter = _WAITER,
) -> str:
    """Return the URL of the server once it answers.

    Args:
        layout: The folder of the server, prepared; the caller is registered as a user of it.
        durable: False trades safety for speed, for tests.
        timeout_s: How long to wait, in seconds.
        tell: Told about every five seconds of waiting.
        waiter: The clock.

    Raises:
        ConfigurationError: It cannot start until a person acts.
        StoreUnavailableError: It cannot start now, or does not answer in time.
    """
    log_begin: int | None = None
    told_s = silent_since_s = 0.0
    for waited_s in waiter.attempts(timeout_s):
        answer = ping(layout)
        if answer is pq.Ping.OK and (url := server_url(layout)):
            return url
        with locks.opened(layout.server_lock) as lock:
            if locks.try_exclusive(lock):  # no process of a server lives
                if log_begin is not None:
                    output = log_tail(layout.log, log_begin)
                    raise explain_output(f"Starting the database in {layout.root}", output)
                log_begin = _start(layout, lock, durable=durable)
                silent_since_s = waited_s
        if answer is pq.Ping.REJECT:  # it starts, recovers or stops
            silent_since_s = waited_s
        if waited_s - silent_since_s > SILENT_TIMEOUT_S:
            raise StoreUnavailableError(
                f"The database in {layout.root} is held by processes that do not answer. They may be of "
                "another container or machine that shares this folder, or left from a crash: `era db stop`."
            )
        if waited_s - told_s > _TELL_EVERY_S:
            told_s = waited_s
            tell(f"Waiting for the database in {layout.root} ({waited_s:.0f} s so far; recovering?).")
    raise StoreUnavailableError(
        f"The database in {layout.root} is not ready after {timeout_s:.0f} s; it goes on recovering. "
        f"See {layout.log} and try again later."
    )


def _start(layout: Layout, lock: int, *, durable: bool) -> int:
    """Start the server under its warden; the lock goes to them. Return where the log begins to be its own."""
    try:
        identity = server_identity(layout.data, layout.root.parent)
        postmaster.clear_stale(layout.data)
        ensure_cluster(layout, identity, lock, durable=durable)
        configuration.write_configuration(layout.data, durable=durable)
        configuration.offer_custom_configuration(layout.user_configuration)
        identity.give(layout.data / configuration.NAME)
        folder = prepare_socket_folder(layout, identity)
        postgres = [str(binaries() / "postgres"), "-D", str(layout.data)]
        # Where clients look for it: on the command line, over whatever custom.conf says.
        address = [f"--unix_socket_directories={folder}", f"--port={PORT}"]
        server = [*identity.prefix, *postgres, *address]
        begin = _run_warden(layout, server, lock, folder)
        match_owner(layout)
    except OSError as error:
        raise explain_os_error("Starting the embedded database", layout.root, error) from error
    return begin


def _run_warden(layout: Layout, server: list[str], lock: int, socket_folder: Path) -> int:
    """Start the warden, who detaches itself at once; return the log's length before."""
    removed_at_end = "" if socket_folder.is_relative_to(layout.root) else str(socket_folder)
    warden = [
        sys.executable,
        "-I",
        "-S",
        str(_WARDEN),
        str(layout.users_lock),
        str(layout.log),
        removed_at_end,
    ]
    with layout.log.open("ab") as log:
        begin = log.tell()
        done = subprocess.run(  # noqa: S603 - our own programs, no shell
            [*warden, *server],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.data,
            env=server_environment(),
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C in the user's terminal is not for the server
        )
    if done.returncode != 0:
        raise explain_output("Starting the database's warden", log_tail(layout.log, begin))
    return begin
