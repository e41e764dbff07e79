"""Files written whole: beside their place, to the disk, then renamed into it."""

from __future__ import annotations

import contextlib
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


def prepare_bytes(path: Path, payload: bytes) -> PendingFile:
    """Write a file beside its place, through to the disk.

    Raises:
        OSError: The folder is full, read-only or away; nothing is left behind.
    """
    handle, temporary = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fchmod(file.fileno(), _wanted_mode(path))
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    return PendingFile(temporary, path)


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
