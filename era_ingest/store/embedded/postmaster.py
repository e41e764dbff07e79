"""The server's main process: found by its pid file, believed only when it is what the file says."""

from __future__ import annotations

from pathlib import Path

import psutil

from era_ingest.errors import ConfigurationError


def running_pid(data: Path) -> int | None:
    """Return the pid of the server that runs on this data folder, or None.

    A pid file outlives a killed server, and its pid may be another program's by now: the process must be
    alive, no zombie, named postgres, and at work in this folder.
    """
    try:
        first = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
        pid = int(first)
    except (OSError, ValueError):
        return None
    try:
        process = psutil.Process(abs(pid))  # single-user mode writes it negative
        with process.oneshot():
            alive = process.status() != psutil.STATUS_ZOMBIE and process.name().startswith("postgres")
        return process.pid if alive and _works_in(process, data) else None
    except (psutil.Error, OSError):
        return None


def _works_in(process: psutil.Process, data: Path) -> bool:
    """Compare the process's folder; containers hide it even from root, but not the command line."""
    try:
        return Path(process.cwd()) == data
    except psutil.AccessDenied:
        return str(data) in process.cmdline()


def clear_stale(data: Path) -> None:
    """Remove the pid file of a server that is gone; the caller holds the server lock.

    PostgreSQL itself believes the file as soon as any process has that pid, and would not start.

    Raises:
        ConfigurationError: A server that is not ours runs on the folder.
    """
    pid = running_pid(data)
    if pid is not None:
        raise ConfigurationError(
            f"A PostgreSQL server that era did not start (pid {pid}) runs on {data}. Stop it: kill -INT {pid}"
        )
    (data / "postmaster.pid").unlink(missing_ok=True)
