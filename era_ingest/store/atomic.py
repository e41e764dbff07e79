"""Files written whole: beside their place, to the disk, then renamed into it.

A writer holds a lock (``flock``) on its temporary file, which the kernel lets go when the writer ends, however it
ends: a temporary file without one is nobody's, and the next writer in the folder removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import os
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

TEMPORARY_PREFIX = ".era-"
TEMPORARY_SUFFIX = ".tmp"
_STALE_AFTER_S = 3600.0
"""Where the file system has no locks, a temporary file so much older than another is nobody's."""
_MODE = 0o666


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A file that is whole on the disk under a temporary name.

    Attributes:
        temporary: Where it is.
        path: Where it belongs.
        held: Open and locked until one of the methods is called: nobody else removes it.
    """

    temporary: str
    path: Path
    held: BinaryIO = field(repr=False, compare=False)

    def publish(self) -> None:
        """Rename it into its place; readers see the old file or this one."""
        os.replace(self.temporary, self.path)  # noqa: PTH105 - temporary is a str of the same folder
        self.held.close()

    def discard(self) -> None:
        """Remove it, if it is still there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.temporary)  # noqa: PTH108
        self.held.close()


class GrowingFile:
    """A file that is being written beside its place; ``finish`` or ``discard`` it.

    Args:
        path: Where it belongs; its folder must exist.

    Raises:
        OSError: The folder is full, read-only or away.
    """

    def __init__(self, path: Path) -> None:
        handle, self.temporary = _create_locked(path.parent)
        self._file: BinaryIO = os.fdopen(handle, "wb")
        self._path = path

    def append(self, piece: bytes) -> None:
        """Write on.

        Raises:
            OSError: The disk is full or away.
        """
        self._file.write(piece)

    def equals(self, path: Path) -> bool:
        """Say whether another file holds the same bytes; nothing is read into the memory as a whole."""
        self._file.flush()
        try:
            return filecmp.cmp(self.temporary, path, shallow=False)
        except FileNotFoundError:
            return False

    def finish(self) -> PendingFile:
        """Write it through to the disk.

        Raises:
            OSError: The disk is full or away.
        """
        self._file.flush()
        os.fchmod(self._file.fileno(), _wanted_mode(self._path))
        os.fsync(self._file.fileno())
        return PendingFile(self.temporary, self._path, self._file)

    def discard(self) -> None:
        """Close and remove it, if it is still there under its temporary name."""
        with contextlib.suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.temporary)  # noqa: PTH108


def prepare_bytes(path: Path, payload: bytes) -> PendingFile:
    """Write a file beside its place, through to the disk.

    Raises:
        OSError: The folder is full, read-only or away; nothing is left behind.
    """
    growing = GrowingFile(path)
    try:
        growing.append(payload)
        return growing.finish()
    except BaseException:
        growing.discard()
        raise


def write_bytes(path: Path, payload: bytes) -> None:
    """Replace a file by these bytes in one step; its folder must exist.

    Raises:
        OSError: The folder is full, read-only or away; the old file is whole.
    """
    pending = prepare_bytes(path, payload)
    try:
        pending.publish()
    except BaseException:
        pending.discard()
        raise
    sync_folder(path.parent)


def remove_file(path: Path) -> bool:
    """Remove a file; return False if there was none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last over a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep_temporaries(folder: Path, newer: float) -> int:
    """Remove temporary files whose writers are dead; return how many.

    Args:
        folder: Where to look, not below it.
        newer: A time of the folder's own file system (``st_mtime``), seconds since 1970: where there are no locks,
            what is more than an hour older goes.
    """
    removed = 0
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        for item in items:
            if item.name.startswith(TEMPORARY_PREFIX) and item.name.endswith(TEMPORARY_SUFFIX):
                with contextlib.suppress(OSError):
                    removed += _sweep(item.path, newer)
    return removed


def _sweep(path: str, newer: float) -> bool:
    """Remove a temporary file unless its writer lives; say whether it is gone.

    It is removed under its lock: a writer that made it just now, and has not locked it yet, finds that out.
    """
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            if os.fstat(handle).st_mtime >= newer - _STALE_AFTER_S:
                return False
        os.unlink(path)  # noqa: PTH108
        return True
    finally:
        os.close(handle)


def _create_locked(folder: Path) -> tuple[int, str]:
    """Return the descriptor and the path of a new temporary file, locked where the file system has locks."""
    while True:
        handle, path = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, folder)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)  # a sweeper came between, and took it for a dead writer's


def _wanted_mode(path: Path) -> int:
    """The mode of the file that is replaced, or what ``open`` would give a new one."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return _MODE & ~mask
