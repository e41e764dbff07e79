"""The embedded server: held by its users, started by the first, stopped after the last.

Two locks say all there is to know, and the kernel keeps them true whoever is killed:

``users.lock``   held shared by every user: the reference count. A killed user lets go of it.
``server.lock``  held alone by the server's own processes, who inherit it: free exactly when none of them
                 lives. Whoever gets it starts the next server.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from psycopg import pq

from era_ingest.errors import StoreUnavailableError
from era_ingest.store.embedded import locks, postmaster
from era_ingest.store.embedded.layout import Layout
from era_ingest.store.embedded.sockets import ping, server_url
from era_ingest.store.embedded.starting import ensure_running, prepare_home
from era_ingest.store.embedded.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

START_TIMEOUT_S = 600.0
"""How long crash recovery may take before a user gives up; the recovery itself goes on."""
STOP_TIMEOUT_S = 60.0
_ASK_AGAIN_S = 1.0

_WAITER = Waiter()
_logger = logging.getLogger(__name__)


class Lease:
    """A user's hold on the server: while one lease is open anywhere, the server runs.

    A context manager. A process that ends in any way gives its leases up.

    Attributes:
        url: Of the database, for psycopg, psql and SQLAlchemy; the same after a restart of the server.
    """

    def __init__(self, layout: Layout, url: str, users: int) -> None:
        self.url = url
        self._layout = layout
        self._users: int | None = users
        self._owner = os.getpid()

    def close(self) -> None:
        """Give the server up; the last user stops it and waits for that, 60 s at most. Safe to call again."""
        users, self._users = self._users, None
        if users is None:
            return
        try:
            if os.getpid() == self._owner:  # a forked child only drops its copy
                _leave(self._layout, users)
        finally:
            os.close(users)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lease({self.url!r}, {'closed' if self._users is None else 'open'})"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of an embedded server without touching it.

    Attributes:
        data: Its data folder.
        exists: The data folder has been made.
        running: A process of it lives.
        ready: It answers.
        in_use: Somebody holds a lease.
        pid: Of its main process, where it runs.
        url: Where it answers or would answer; None before the first start.
    """

    data: Path
    exists: bool
    running: bool
    ready: bool
    in_use: bool
    pid: int | None
    url: str | None


def hold(
    home: Path,
    *,
    durable: bool = True,
    timeout_s: float = START_TIMEOUT_S,
    on_wait: Callable[[str], None] | None = None,
) -> Lease:
    """Return a lease on the server below a home, started (and its database created) where it does not run.

    Args:
        home: ERA_HOME; made where it is missing.
        durable: False trades safety against a crash of the machine for speed; for tests.
        timeout_s: How long to wait for it, in seconds; crash recovery of a large database takes minutes.
        on_wait: Told about every five seconds of waiting; the log by default.

    Raises:
        ConfigurationError: A person must act: permissions, another version's data, a platform without it.
        StoreUnavailableError: Full disk, no memory, or not ready in time.
    """
    layout = prepare_home(home)
    users = locks.open_lock(layout.users_lock)
    try:
        _join(layout, users, timeout_s)
        url = ensure_running(layout, durable=durable, timeout_s=timeout_s, tell=on_wait or _logger.info)
    except BaseException:
        os.close(users)
        raise
    return Lease(layout, url, users)


def stop(home: Path, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stop the server below a home whoever uses it; False where none ran.

    Args:
        home: ERA_HOME.
        timeout_s: How long an orderly stop may take, in seconds, before it is made a hard one.

    Raises:
        StoreUnavailableError: It does not stop, or is not within reach (another machine or container).
    """
    layout = Layout.of(home)
    if not locks.is_held(layout.server_lock):
        return False
    for number, patience_s in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 10.0)):
        if _stop(layout, number, patience_s):
            return True
    raise StoreUnavailableError(
        f"The database in {layout.root} does not stop. Its processes may belong to another user or container."
    )


def status(home: Path) -> ServerStatus:
    """Return what is known of the server below a home; starts and changes nothing."""
    layout = Layout.of(home)
    running = locks.is_held(layout.server_lock)
    return ServerStatus(
        data=layout.data,
        exists=(layout.data / "PG_VERSION").exists(),
        running=running,
        ready=running and ping(layout) is pq.Ping.OK,
        in_use=locks.is_held(layout.users_lock),
        pid=postmaster.running_pid(layout.data) if running else None,
        url=server_url(layout),
    )


def _join(layout: Layout, users: int, timeout_s: float) -> None:
    """Become a user; refused only while the last one, or the warden, stops the server."""
    if not _WAITER.until(lambda: locks.try_shared(users), timeout_s):
        raise StoreUnavailableError(f"The database in {layout.root} has been stopping for {timeout_s:.0f} s.")


def _leave(layout: Layout, users: int) -> None:
    """Stop the server where no other user is left; wait where the warden does it already."""
    if locks.try_exclusive(users):
        _stop(layout, signal.SIGINT, STOP_TIMEOUT_S)
    elif not locks.try_shared(users):
        _WAITER.until(lambda: not locks.is_held(layout.server_lock), STOP_TIMEOUT_S)


def _stop(layout: Layout, number: signal.Signals, timeout_s: float) -> bool:
    """Signal the server, and return whether all of it ended in time.

    It is asked again every second: one that has only just been started does not hear signals yet.
    """
    asked_s = -_ASK_AGAIN_S
    for waited_s in _WAITER.attempts(timeout_s):
        if not locks.is_held(layout.server_lock):
            return True
        if waited_s - asked_s >= _ASK_AGAIN_S and (pid := postmaster.running_pid(layout.data)):
            asked_s = waited_s
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    return False
