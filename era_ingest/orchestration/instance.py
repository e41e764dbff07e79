"""Dagster's instance with nothing to set up: what ``dagster.yaml`` names, by the settings of the process.

``EraPostgresStorage`` takes ERA_DATABASE_URL or else the embedded server, which it holds for the life of the
process; files lie under ERA_HOME. ``open_instance`` opens the same instance in a program that Dagster did not start.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dagster import DagsterInstance
from dagster._core.instance import InstanceRef
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage

from era_ingest.orchestration.capture import captured
from era_ingest.orchestration.storage import PostgresStorage
from era_ingest.settings import Settings, load_settings
from era_ingest.store.location import database

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from dagster._serdes import ConfigurableClassData

_NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}

_lock = threading.Lock()
_leases = ExitStack()
_held_urls: dict[Path, str] = {}


class _BySettings:
    """Mixed into what ``dagster.yaml`` names: no configuration there, places come from the process settings."""

    if TYPE_CHECKING:

        def __init__(self, place: str, *, inst_data: ConfigurableClassData | None) -> None: ...

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Take no configuration."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make one from the settings of this process."""
        del config_value
        return cls(cls._place(load_settings()), inst_data=inst_data)

    @classmethod
    def _place(cls, settings: Settings) -> str:
        raise NotImplementedError


class EraPostgresStorage(_BySettings, PostgresStorage):
    """Runs, events and schedules in the database of ERA_DATABASE_URL, or in the embedded one."""

    @classmethod
    def _place(cls, settings: Settings) -> str:
        return held_url(settings)


class EraArtifactStorage(_BySettings, LocalArtifactStorage):
    """Dagster's files under ERA_HOME/dagster, wherever the process was started."""

    @classmethod
    def _place(cls, settings: Settings) -> str:
        return str(dagster_folder(settings))


class EraComputeLogManager(_BySettings, LocalComputeLogManager):
    """What steps print, under ERA_HOME/dagster/logs."""

    @classmethod
    def _place(cls, settings: Settings) -> str:
        return str(dagster_folder(settings) / "logs")

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext]:
        """Capture what is printed, without processes that could outlive this one."""
        files = [
            Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]))
            for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        ]
        with captured(sys.stdout, files[0]), captured(sys.stderr, files[1]):
            yield CapturedLogContext(log_key)
        Path(self.get_captured_local_path(log_key, "complete")).touch()


def open_instance(settings: Settings, *, capture_prints: bool = True) -> DagsterInstance:
    """Return the Dagster instance that the UI and the daemon of these settings use; a context manager.

    DAGSTER_HOME wins where it is set. Otherwise it is the packaged ``dagster.yaml`` on ERA_HOME/dagster. The
    settings' ERA_HOME and ERA_DATABASE_URL are put into the environment: processes that Dagster starts for
    this instance find the same database by them.

    Args:
        settings: The process settings.
        capture_prints: Whether steps executed in this process have what they print captured. That takes over
            standard output and error, where a program may show a progress bar, and four processes a run.

    Raises:
        ConfigurationError: A person must act; the message says how.
        StoreUnavailableError: The database is away.
    """
    os.environ["ERA_HOME"] = str(settings.home.absolute())
    if settings.database_url is not None:
        os.environ["ERA_DATABASE_URL"] = settings.database_url.get_secret_value()
    else:
        os.environ.pop("ERA_DATABASE_URL", None)
    overrides = {} if capture_prints else {"compute_logs": _NO_CAPTURE}
    if home := os.environ.get("DAGSTER_HOME"):
        if capture_prints:
            return DagsterInstance.get()
        return DagsterInstance.from_ref(InstanceRef.from_dir(home, overrides=overrides))
    folder = dagster_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    packaged = str(Path(__file__).parent)
    return DagsterInstance.from_ref(
        InstanceRef.from_dir(str(folder), config_dir=packaged, overrides=overrides)
    )


def dagster_folder(settings: Settings) -> Path:
    """Return where Dagster keeps files, absolute."""
    return settings.home.absolute() / "dagster"


def held_url(settings: Settings) -> str:
    """Return the database's URL; an embedded server is held until this process ends."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    home = settings.home.resolve()
    with _lock:
        if home not in _held_urls:
            if not _held_urls:
                atexit.register(_leases.close)
            _held_urls[home] = _leases.enter_context(database(settings))
        return _held_urls[home]
