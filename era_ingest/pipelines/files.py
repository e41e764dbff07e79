"""Reading one file of the landing folder: bounded, whole, and not while somebody writes it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from era_ingest.core.names import show_name
from era_ingest.core.record import FileDigest
from era_ingest.errors import MalformedDocumentError, StoreUnavailableError

if TYPE_CHECKING:
    from io import FileIO

    from era_ingest.core.source import SourceFile
    from era_ingest.errors import EraError

_CHUNK_BYTES = 1 << 20
_DISK_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO})
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Not blocking: a pipe in a file's place must not hold a reader for ever."""


class FileBytes(NamedTuple):
    """A file's bytes, and what they were digested to."""

    data: bytes
    digest: FileDigest


def read_file(file: SourceFile, *, max_bytes: int) -> FileBytes:
    """Return a file's bytes and digest.

    Args:
        file: The file, as a scan saw it; what it is now counts.
        max_bytes: A larger file is refused unread.

    Raises:
        MalformedDocumentError: ``reason`` is ``too_large``, ``growing`` (it changed while it was read),
            ``vanished``, ``unreadable`` or ``not_a_file``.
        StoreUnavailableError: The disk does not answer.
    """
    try:
        with _open(file.path) as stream:
            before = _check(file, os.fstat(stream.fileno()), max_bytes)
            data = stream.read(before.st_size + 1)
            _check_still(file, before, os.fstat(stream.fileno()), len(data))
    except OSError as error:
        raise explain(file.path, error) from error
    return FileBytes(data, _digest_of(file, before, hashlib.sha256(data).hexdigest()))


def digest_file(file: SourceFile, *, max_bytes: int) -> FileDigest:
    """Return a file's digest without keeping its bytes; raises like `read_file`."""
    sha256 = hashlib.sha256()
    size = 0
    try:
        with _open(file.path) as stream:
            before = _check(file, os.fstat(stream.fileno()), max_bytes)
            while size <= before.st_size and (piece := stream.read(_CHUNK_BYTES)):
                sha256.update(piece)
                size += len(piece)
            _check_still(file, before, os.fstat(stream.fileno()), size)
    except OSError as error:
        raise explain(file.path, error) from error
    return _digest_of(file, before, sha256.hexdigest())


def explain(path: str, error: OSError) -> EraError:
    """Return the error of this project that says what the system's error means for a book's file."""
    shown = show_name(path)
    if error.errno in _DISK_ERRORS:
        return StoreUnavailableError(f"{shown} cannot be read: {error.strerror}. Is the disk there?")
    if isinstance(error, FileNotFoundError):
        message = (
            f"{shown} was there when the folder was listed, and is not any more; nothing is removed yet."
        )
        return MalformedDocumentError(message, file=shown, reason="vanished")
    message = (
        f"{shown} cannot be read: {error.strerror or error}. Mend its permissions; what was loaded stays."
    )
    return MalformedDocumentError(message, file=shown, reason="unreadable")


def _open(path: str) -> FileIO:
    return os.fdopen(os.open(path, _OPEN_FLAGS), "rb", buffering=0)


def _check(file: SourceFile, found: os.stat_result, max_bytes: int) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        _refuse(file, "not_a_file", "is no plain file.")
    if found.st_size > max_bytes:
        limit = f"{max_bytes:,} bytes (ERA_MAX_FILE_BYTES)"
        _refuse(
            file, "too_large", f"has {found.st_size:,} bytes, over {limit}: split it, or raise the limit."
        )
    return found


def _check_still(file: SourceFile, before: os.stat_result, after: os.stat_result, size: int) -> None:
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not unchanged or size != after.st_size:
        _refuse(file, "growing", "changed while it was read; it is taken up again once it is still.")


def _digest_of(file: SourceFile, found: os.stat_result, sha256: str) -> FileDigest:
    return FileDigest(file.path, file.role, found.st_size, found.st_mtime_ns, found.st_ino, sha256)


def _refuse(file: SourceFile, reason: str, what: str) -> NoReturn:
    shown = show_name(file.path)
    raise MalformedDocumentError(f"{shown} {what}", file=shown, reason=reason)
