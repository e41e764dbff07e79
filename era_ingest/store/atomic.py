"""Files written whole: beside their place, to the disk, then renamed into it."""

from __future__ import annotations

import contextlib
import filecmp
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TEMPORARY_PREFIX = ".era-"
TEMPORARY_SUFFIX = ".tmp"
_STALE_AFTER_S = 3600.0
_MODE = 0o666


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A file that is whole on the disk under a temporary name.

    Attributes:
        temporary: Where it is.
        path: Where it belongs.
    """

    temporary: str
    path: Path

    def publish(self) -> None:
        """Rename it into its place; readers see the old file or this one."""
        os.replace(self.temporary, self.path)  # noqa: PTH105 - temporary is a str of the same folder

    def discard(self) -> None:
        """Remove it, if it is still there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.temporary)  # noqa: PTH108


class GrowingFile:
    """A file that is being written beside its place; ``finish`` or ``discard`` it.

    Args:
        path: Where it belongs; its folder must exist.

    Raises:
        OSError: The folder is full, read-only or away.
    """

    def __init__(self, path: Path) -> None:
        handle, self.temporary = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, path.parent)
        self._file = os.fdopen(handle, "wb")
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
        with self._file as file:
            file.flush()
            os.fchmod(file.fileno(), _wanted_mode(self._path))
            os.fsync(file.fileno())
        return PendingFile(self.temporary, self._path)

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
    """Remove temporary files that a killed writer left more than an hour before ``newer``; return how many.

    Args:
        folder: Where to look, not below it.
        newer: A time of the folder's own file system (``st_mtime``), seconds since 1970.
    """
    removed = 0
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        for item in items:
            if not (item.name.startswith(TEMPORARY_PREFIX) and item.name.endswith(TEMPORARY_SUFFIX)):
                continue
            with contextlib.suppress(OSError):
                if item.stat(follow_symlinks=False).st_mtime < newer - _STALE_AFTER_S:
                    os.unlink(item.path)  # noqa: PTH108
                    removed += 1
    return removed


def _wanted_mode(path: Path) -> int:
    """The mode of the file that is replaced, or what ``open`` would give a new one."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return _MODE & ~mask
