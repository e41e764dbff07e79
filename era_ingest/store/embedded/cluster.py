"""The data folder: made whole or not at all, and never one of another major version."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from era_ingest.errors import ConfigurationError, StoreUnavailableError
from era_ingest.store.embedded import configuration
from era_ingest.store.embedded.binaries import MAJOR, binaries
from era_ingest.store.embedded.failures import explain_output
from era_ingest.store.embedded.sockets import DATABASE, USER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.store.embedded.identity import Identity
    from era_ingest.store.embedded.layout import Layout

_UNFINISHED = "data.new-"
_INIT_TIMEOUT_S = 600.0


def server_environment() -> dict[str, str]:
    """Return the environment of the server's programs: none of the caller's PG* variables, one language."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def ensure_cluster(layout: Layout, identity: Identity, lock: int, *, durable: bool) -> None:
    """Make the data folder where there is none; the caller holds the server lock.

    Args:
        layout: The folder of the server.
        identity: Who will own the data.
        lock: Descriptor of the server lock; handed on, so that it lives as long as what is still writing.
        durable: False leaves out the fsync, for tests.

    Raises:
        ConfigurationError: There is a data folder, and it is of another version, or none of PostgreSQL's.
        StoreUnavailableError: The disk is full.
    """
    for leftover in layout.root.glob(f"{_UNFINISHED}*"):  # of somebody who was killed
        shutil.rmtree(leftover, ignore_errors=True)
    if layout.data.exists() and any(layout.data.iterdir()):
        _check_version(layout.data)
        identity.give(layout.data)
        return
    new = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=layout.root))
    identity.give(new)
    _initialise(new, identity, lock, durable=durable)
    new.rename(layout.data)
    _sync_folder(layout.root)


def _check_version(data: Path) -> None:
    try:
        found = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{data} is not empty and no database. Move it away, or choose another ERA_HOME."
        ) from None
    if found != str(MAJOR):
        raise ConfigurationError(
            f"{data} is a database of PostgreSQL {found}; this version works with {MAJOR}. Move the folder "
            "away and run `era ingest` again (everything in it can be rebuilt), or carry it over with "
            f"pg_dumpall of version {found}."
        )


def _initialise(folder: Path, identity: Identity, lock: int, *, durable: bool) -> None:
    """Run initdb and create the database, all in a folder that does not count yet."""
    programs = binaries()
    arguments = [
        str(programs / "initdb"),
        f"--pgdata={folder}",
        f"--username={USER}",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",  # the same order on every machine, whatever its C library
        "--builtin-locale=C.UTF-8",
        "--auth-local=trust",  # the socket's folder is closed to other users
        "--auth-host=reject",
        "--no-instructions",
        *([] if durable else ["--no-sync"]),
    ]
    _run([*identity.prefix, *arguments], folder, lock)
    with (folder / "postgresql.conf").open("a", encoding="ascii") as file:
        file.write(f"\ninclude = '{configuration.NAME}'\n")
    configuration.write_configuration(folder, durable=durable)
    single = [*identity.prefix, str(programs / "postgres"), "--single", "-D", str(folder), "template1"]
    _run(single, folder, lock, f"CREATE DATABASE {DATABASE};\n")


def _run(command: Sequence[str], folder: Path, lock: int, statement: str = "") -> None:
    """Run one of PostgreSQL's programs to its end.

    Raises:
        EraError: It failed, or took longer than ten minutes.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own programs, no shell
            command,
            input=statement,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            env=server_environment(),
            cwd=folder,
            pass_fds=(lock,),
            timeout=_INIT_TIMEOUT_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise StoreUnavailableError(
            f"Creating the database in {folder.parent} took longer than {_INIT_TIMEOUT_S:.0f} s."
        ) from error
    output = done.stdout + done.stderr
    if done.returncode != 0 or "ERROR:" in output or "FATAL:" in output:
        shutil.rmtree(folder, ignore_errors=True)
        raise explain_output(f"Creating the database in {folder.parent}", output)


def _sync_folder(folder: Path) -> None:
    """Make a rename inside the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
