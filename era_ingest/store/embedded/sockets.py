"""Where the server's socket lies: its path may have 107 bytes (103 on macOS), and a home's may have more."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from psycopg import pq

if TYPE_CHECKING:
    from era_ingest.store.embedded.identity import Identity
    from era_ingest.store.embedded.layout import Layout

PORT = 5432
DATABASE = "era"
USER = "era"

_LONGEST_BYTES = 103
_PLAIN = re.compile(r"/[A-Za-z0-9._/-]*")
"""What every client takes in a ``host`` parameter; a comma, for one, separates hosts there."""


def prepare_socket_folder(layout: Layout, identity: Identity) -> Path:
    """Choose, make and record the folder of the socket; only the server's own user may enter it.

    It is the same at every start where that is possible, so that clients find a restarted server again. What
    a killed server left there is removed, for PostgreSQL would believe its lock file as long as any process,
    even a zombie, has that pid; the caller holds the server lock.

    Raises:
        OSError: No folder can be made.
    """
    folder = _choose(layout, identity)
    for left in folder.glob(".s.PGSQL.*"):
        left.unlink()
    text = str(folder)
    if _read(layout.socket_pointer) != text:
        new = layout.socket_pointer.with_suffix(".new")
        new.write_text(text, encoding="ascii")
        new.replace(layout.socket_pointer)
    return folder


def server_url(layout: Layout) -> str | None:
    """Return the URL of the server, running or not; None where there never was one."""
    folder = _read(layout.socket_pointer)
    return f"postgresql://{USER}@/{DATABASE}?host={quote(folder, safe='/')}&port={PORT}" if folder else None


def ping(layout: Layout) -> pq.Ping:
    """Ask the server: ``OK``, ``REJECT`` (it starts, recovers or stops), or ``NO_RESPONSE``."""
    url = server_url(layout)
    return pq.Ping(pq.PGconn.ping(url.encode())) if url else pq.Ping.NO_RESPONSE


def _read(pointer: Path) -> str:
    try:
        return pointer.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _choose(layout: Layout, identity: Identity) -> Path:
    if _usable(layout.local_socket_folder):
        return _make(layout.local_socket_folder, identity)
    # The inode tells a new data folder from a deleted one of the same path whose server still runs.
    key = f"{os.fsencode(layout.root).hex()} {layout.data.stat().st_ino} {identity.uid}".encode()
    name = f"era-{hashlib.blake2b(key, digest_size=8).hexdigest()}"
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - checked: ours, and closed to others
        if _usable(base / name):
            return _make(base / name, identity)
    return _make(Path(tempfile.mkdtemp(prefix="era-", dir="/tmp")), identity)


def _usable(folder: Path) -> bool:
    """Say whether a socket there has a short plain path, is not somebody else's, and can be made at all."""
    path = str(folder / f".s.PGSQL.{PORT}.lock")
    if not _PLAIN.fullmatch(path) or len(path) > _LONGEST_BYTES:
        return False
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        mine = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        return mine and os.access(folder, os.W_OK) and _takes_sockets(folder)
    except OSError:
        return False


def _takes_sockets(folder: Path) -> bool:
    """Try it: folders shared with a virtual machine's host, for one, take files only."""
    probe = folder / f"probe.{os.getpid()}"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(probe))
    finally:
        probe.unlink(missing_ok=True)
    return True


def _make(folder: Path, identity: Identity) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    identity.give(folder)
    return folder
