"""What PostgreSQL's programs say when they fail, as errors that name the remedy."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from era_ingest.errors import ConfigurationError, EraError, StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

_TAIL_BYTES = 2000

_OWN_SERVER = "or set ERA_DATABASE_URL to a PostgreSQL server with pgvector"

_KNOWN: tuple[tuple[tuple[str, ...], type[EraError], str], ...] = (
    (
        ("No space left on device", "Disk quota exceeded"),
        StoreUnavailableError,
        (
            "The disk is full. Free some space (a new database takes 50 MB) and try again; nothing that was "
            "committed is lost."
        ),
    ),
    (
        ("cannot become an unprivileged user", "could not look up effective user ID"),
        ConfigurationError,
        (
            "PostgreSQL does not run as root, and this system does not let it become somebody else. "
            f"Run as an ordinary user, {_OWN_SERVER}."
        ),
    ),
    (
        ("Cannot allocate memory",),
        StoreUnavailableError,
        (
            "There is not enough memory (it asks for 300 MB). Close something, or lower shared_buffers in "
            "custom.conf beside the data folder."
        ),
    ),
    (
        ("contains errors", "unrecognized configuration parameter", "invalid value for parameter"),
        ConfigurationError,
        "A setting is wrong: look at custom.conf beside the data folder.",
    ),
    (
        ("Permission denied", "Read-only file system", "wrong ownership", "Operation not permitted"),
        ConfigurationError,
        (
            "ERA_HOME cannot be written by the user who runs the server. Mend its permissions, choose "
            f"another ERA_HOME, {_OWN_SERVER}."
        ),
    ),
    (
        ("could not locate a valid checkpoint record", "invalid checkpoint", "could not read from file"),
        ConfigurationError,
        (
            "The data folder is damaged. Restore it from a backup, or move it away: everything in it can be "
            "built again from the landing folder by `era ingest`."
        ),
    ),
)


def explain_output(action: str, output: str) -> EraError:
    """Return the error for a program's output.

    Args:
        action: What was being done, as the start of a sentence.
        output: What the program said; its last 2,000 bytes are shown where the cause is not known.
    """
    for signs, kind, remedy in _KNOWN:
        line = next((line for line in output.splitlines() if any(sign in line for sign in signs)), None)
        if line is not None:
            return kind(f"{action} failed: {line.strip()[:500]}. {remedy}")
    tail = output[-_TAIL_BYTES:].strip() or "it said nothing"
    return StoreUnavailableError(f"{action} failed. Its last words:\n{tail}")


def explain_os_error(action: str, path: Path, error: OSError) -> EraError:
    """Return the error for a file or folder that cannot be made or used."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreUnavailableError(f"{action} failed: the disk that holds {path} is full. Free some space.")
    if error.errno == errno.ENAMETOOLONG:
        return ConfigurationError(f"{action} failed: the path {path} is too long. Choose a shorter ERA_HOME.")
    return ConfigurationError(
        f"{action} failed: {error.strerror or error} ({path}). Mend its permissions, choose another "
        f"ERA_HOME, {_OWN_SERVER}."
    )


def log_tail(log: Path, start: int) -> str:
    """Return what was added to the log after byte ``start``, its last 20 kB at most."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start if start <= size else 0, size - 20_000))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
