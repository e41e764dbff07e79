"""Settings of the embedded server: a laptop's, with bulk loads in mind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


NAME = "era.conf"
"""The file inside the data folder that holds our settings; ``postgresql.conf`` includes it last."""

_SMALL_SHARED_MEMORY_BYTES = 1 << 30
"""Below this much of /dev/shm (containers have 64 MB) parallel index builds would fail on it."""

_SETTINGS = {
    # reached only through the socket, whose folder is the user's own
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    # memory: a laptop's share
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "work_mem": "16MB",
    "effective_cache_size": "1GB",
    # bulk loads: fewer, smoother checkpoints; no replica will ever read this WAL
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "synchronous_commit": "on",
    # vector queries are short; compiling them costs more than it saves
    "jit": "off",
    "random_page_cost": "1.1",
    # one zone and one language, whatever the machine's: logs are read by programs
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "log_startup_progress_interval": "10s",
    "cluster_name": "era",
}

_OTHER_SHARED_MEMORY = {"dynamic_shared_memory_type": "sysv"}

_FAST = {"fsync": "off", "full_page_writes": "off"}


def server_settings(*, durable: bool) -> Mapping[str, str]:
    """Return the server's settings by name.

    Args:
        durable: False trades safety against a crash of the machine (not of the server) for speed; for tests.
    """
    shared_memory = {} if _shared_memory_bytes() >= _SMALL_SHARED_MEMORY_BYTES else _OTHER_SHARED_MEMORY
    return {**_SETTINGS, **shared_memory, **({} if durable else _FAST)}


def _shared_memory_bytes() -> int:
    """Size of /dev/shm in bytes; a large number where there is no such thing."""
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size only
    except OSError:
        return 1 << 62
    return status.f_frsize * status.f_blocks


def write_configuration(folder: Path, *, durable: bool) -> None:
    """Write ``era.conf`` into a data folder: our settings, and the user's ``custom.conf`` over them."""
    lines = [f"{name} = {_quoted(value)}" for name, value in server_settings(durable=durable).items()]
    lines.append("include_if_exists = '../custom.conf'")
    text = "# Written at every start. Put settings of your own into custom.conf beside the data folder.\n"
    (folder / NAME).write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def offer_custom_configuration(path: Path) -> None:
    """Make the file for the user's own settings, where there is none; the server must be able to read it."""
    if not path.exists():
        path.write_text(
            "# Settings of your own (postgresql.conf syntax); they win over era's.\n", encoding="utf-8"
        )
        path.chmod(0o644)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
