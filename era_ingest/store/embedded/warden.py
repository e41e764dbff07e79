"""The warden: starts the server, starts it again after a crash, and stops it once nobody uses it any more.

A script of its own, run as ``python -I -S warden.py``; standard library only, one small process a server. A
client that is killed with -9 cannot stop the server it was the last to use; but the kernel drops the client's
lock, and the warden, who asks for that lock four times a second, gets it and stops the server. The warden
holds the server lock too (inherited, as the server's processes do): it is free once all of them are gone.

The server does not need the warden: where that is killed itself, the last client to leave stops the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_POLL_S = 0.25
_RESTARTS = 10
"""Restarts after crashes, at most, unless the server ran well for a minute between them."""
_RAN_WELL_S = 60.0
_LOG_BYTES = 8_000_000
"""The log is cut at this size: on disk it takes twice as much, and what is written between two looks."""
_STOP_TIMEOUT_S = 600.0
_ASK_AGAIN_S = 1.0

_stop_requested = False


def _request_stop(_signal: int, _frame: FrameType | None) -> None:
    global _stop_requested  # noqa: PLW0603 - a signal handler has no other way to speak
    _stop_requested = True


def start(command: list[str]) -> int:
    """Start the server and return its pid; our standard output (the log) and the lock go with it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            os.execv(command[0], command)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    return pid


def nobody_left(users: int, path: str) -> bool:
    """Take the users' lock alone, for good: False as long as one user holds it.

    True too where the lock's file is gone: somebody deleted the home, and nobody can use this server again.
    """
    try:
        if os.stat(path).st_ino != os.fstat(users).st_ino:  # noqa: PTH116 - keep this process small
            return True
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def exited(pid: int) -> int | None:
    """Return the wait status of a child that has ended, else None."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return status if done == pid else None


def bound_log(path: str) -> None:
    """Cut the log once it is too long, keeping one older part; its writers append, so nothing is torn."""
    if os.fstat(1).st_size < _LOG_BYTES:
        return
    with open(path, "rb") as log, open(f"{path}.1", "wb") as older:  # noqa: PTH123 - keep this process small
        older.write(log.read(_LOG_BYTES))
    os.ftruncate(1, 0)


def stop(pid: int) -> None:
    """Stop the server: at once and orderly; after ten minutes hard.

    It is asked again every second: a server that has only just been started does not hear signals yet.
    """
    begun = asked = time.monotonic()
    os.kill(pid, signal.SIGINT)
    while exited(pid) is None:
        time.sleep(0.01)
        now = time.monotonic()
        if now - asked > _ASK_AGAIN_S:
            asked = now
            os.kill(pid, signal.SIGQUIT if now - begun > _STOP_TIMEOUT_S else signal.SIGINT)


def watch(pid: int, users: int, users_path: str, log: str) -> int | None:
    """Return the server's wait status once it ends by itself; None once it should be stopped."""
    while True:
        status = exited(pid)
        if status is not None:
            return status
        if _stop_requested or nobody_left(users, users_path):
            return None
        with contextlib.suppress(OSError):  # a full disk must not end the warden
            bound_log(log)
        time.sleep(_POLL_S)


def serve(command: list[str], users: int, users_path: str, log: str) -> None:
    """Keep the server running until nobody uses it, or somebody stopped it, or it crashes again and again."""
    restarts = 0
    crashed_at = 0.0
    while True:
        pid = start(command)
        begun = time.monotonic()
        status = watch(pid, users, users_path, log)
        if status is None:
            stop(pid)
            return
        now = time.monotonic()
        if now - begun > _RAN_WELL_S:
            restarts = 0
        if os.WIFSIGNALED(status):
            crashed_at = now
        elif status == 0 or crashed_at == 0.0 or now - crashed_at > _RAN_WELL_S:
            return  # stopped by somebody, or not able to start
        # The crashed server's other processes may need a moment to notice and let go of its shared memory.
        restarts += 1
        if restarts > _RESTARTS or _stop_requested:
            return
        time.sleep(_POLL_S)


def main(arguments: list[str]) -> None:
    """Detach from whoever started us, and serve.

    Args:
        arguments: Users' lock file, log file, socket folder to remove at the end (or ``""``), command...
    """
    users_path, log, socket_folder, *command = arguments
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _request_stop)
    users = os.open(users_path, os.O_RDWR | os.O_CLOEXEC)
    try:
        serve(command, users, users_path, log)
    finally:
        if socket_folder:
            with contextlib.suppress(OSError):
                os.rmdir(socket_folder)  # noqa: PTH106 - keep this process small


if __name__ == "__main__":
    main(sys.argv[1:])
