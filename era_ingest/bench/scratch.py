"""Databases for measuring: created beside the configured one, dropped at the end."""

from __future__ import annotations

import re
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from era_ingest.errors import ConfigurationError, StoreUnavailableError
from era_ingest.store import location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.settings import Settings

_URL = re.compile(r"(?P<server>\w+://[^/?#]*)(?:/[^?#]*)?(?P<rest>[?#].*)?")


@contextmanager
def scratch_home(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Yield a fresh folder, and the URL of a server to create scratch databases on.

    The server is the one of ERA_DATABASE_URL; where that is unset, an embedded one of its own in the folder,
    which runs until the end.
    """
    with tempfile.TemporaryDirectory(prefix="era-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder).resolve()
        with location.database(settings.model_copy(update={"home": home / "home"})) as url:
            yield home, url


@contextmanager
def scratch_database(server_url: str, *, template: str | None = None) -> Iterator[str]:
    """Yield the URL of a new database on a server, dropped at the end, whoever is connected.

    Args:
        server_url: URL of any database there; its user may create databases.
        template: URL of a database to copy, which nobody is connected to; None: an empty one.

    Raises:
        ConfigurationError: The user may not create databases, or the URL is none.
        StoreUnavailableError: Nobody answers there.
    """
    name = f"era_bench_{uuid.uuid4().hex[:12]}"
    source = sql.Identifier(_name_of(template)) if template else sql.SQL("template0")
    _execute(server_url, sql.SQL("create database {} template {}").format(sql.Identifier(name), source))
    try:
        yield _with_name(server_url, name)
    finally:
        _execute(server_url, sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _execute(url: str, statement: sql.Composed) -> None:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "era bench measures on a scratch database, and this user may not create one: ALTER ROLE ... "
            "CREATEDB, or unset ERA_DATABASE_URL to measure on an embedded server."
        ) from error
    except psycopg.OperationalError as error:
        raise StoreUnavailableError(
            f"The scratch database of the benchmark failed: {str(error).strip().splitlines()[0]}. "
            "Run `era doctor`."
        ) from error


def _with_name(url: str, name: str) -> str:
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ConfigurationError("ERA_DATABASE_URL is no postgresql:// URL.")
    return f"{parts['server']}/{name}{parts['rest'] or ''}"


def _name_of(url: str) -> str:
    return psycopg.conninfo.conninfo_to_dict(url)["dbname"] or ""  # type: ignore[return-value]
