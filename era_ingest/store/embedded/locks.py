"""Advisory locks (flock) on small files: the kernel drops them when their last holder is gone."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from era_ingest.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def open_lock(path: Path) -> int:
    """Open a lock file, creating it, and return its descriptor (closed on exec); nothing is locked yet.

    Raises:
        OSError: The file cannot be opened or created.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a lock file for the length of a context; processes that inherit it keep the lock."""
    descriptor = open_lock(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_shared(descriptor: int) -> bool:
    """Take the lock beside other shared holders; False where somebody holds it exclusively."""
    return _try(descriptor, fcntl.LOCK_SH)


def try_exclusive(descriptor: int) -> bool:
    """Take the lock alone; False where anybody else holds it. A shared lock held here is given up first."""
    return _try(descriptor, fcntl.LOCK_EX)


def is_held(path: Path) -> bool:
    """Say whether any process holds the lock; False where the file is not there."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_exclusive(descriptor)
    finally:
        os.close(descriptor)


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise ConfigurationError(
                "The file system of ERA_HOME has no file locks (flock). Point ERA_HOME at a local disk, "
                "or set ERA_DATABASE_URL to a PostgreSQL server."
            ) from error
        raise
    return True
