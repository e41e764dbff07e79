"""What the warm process imports before a worker is forked from it; see `warm`.

Nothing that is imported or done here may start a thread or open a connection: the worker would not have the one, and
share the other.
"""

import atexit
import gc
import os
import shutil
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path

from era_ingest.orchestration.run_queue import DEFINITIONS

_LATE = (
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.workspace.autodiscovery",
    "era_ingest.orchestration.instance",
    "era_ingest.pipelines.working",
    "psycopg2.extras",
    "upath.implementations.local",
)
"""What a run imports only once it goes on."""
_PID = os.getpid()


def _clear_up() -> None:
    """Remove the folder of our socket, which a killed code server leaves behind; its workers are none of us."""
    address = vars(forkserver)["_forkserver"]._forkserver_address  # noqa: SLF001 - told nowhere else
    if os.getpid() == _PID and address is not None:
        shutil.rmtree(Path(address).parent, ignore_errors=True)


for _name in _LATE:
    import_module(_name)
import_module(DEFINITIONS).defs.get_repository_def()
gc.freeze()  # a collection in a worker would copy the pages that it shares with us
atexit.register(_clear_up)
