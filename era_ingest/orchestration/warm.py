"""Workers of runs are forked from a warm process, which has imported Dagster and our definitions beforehand.

A code server starts a new Python for each run, which imports for 1.5 s what the code server itself has long imported.
With ``use_warm_workers`` the second run and those that follow are forked instead, in a fraction of that. All else is
the code server's business as before: it starts, watches and cancels them, by Dagster's own code.

The warm process is the standard library's fork server. It has one thread, no connection and no file of ours, so that
forking it is safe; it imports what `warm_parent` imports. It belongs to one code server, so that "Reload" in the UI
replaces both, and ends with it, or with the last worker if that ends later.

A run gets a Python of its own, as before, while there is no warm process yet, where our code has changed on disk since
it imported it, and on systems where a fork is not safe.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
from contextlib import suppress
from multiprocessing import popen_forkserver, popen_spawn_posix
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from dagster._grpc.impl import start_run_in_subprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess

_PACKAGE = Path(__file__).parents[1]
_NO_MEMORY_THREAD = ("JE_ARROW_MALLOC_CONF", "background_thread:false")
"""Keeps pyarrow from starting a thread of its allocator, which is not in use."""
_LOST = 255
"""What the standard library takes for the exit code of a worker whose warm process is gone."""


class WarmProcess(SpawnProcess):
    """A process like a spawned one, but forked from the warm process where that answers.

    Attributes:
        was_forked: Whether it was, once started.
    """

    was_forked = False
    _seen: psutil.Process | None = None

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802 - the standard library's hook
        try:
            return popen_forkserver.Popen(process_obj)
        except (OSError, EOFError):  # it has just been killed
            return popen_spawn_posix.Popen(process_obj)

    def start(self) -> None:
        """Start it."""
        super().start()
        self.was_forked = isinstance(vars(self)["_popen"], popen_forkserver.Popen)
        with suppress(psutil.NoSuchProcess):
            self._seen = psutil.Process(self.pid)

    def is_alive(self) -> bool:
        """Say whether it lives; also where the warm process does not, and can tell nobody."""
        if super().is_alive():
            return True
        if self.exitcode != _LOST or self._seen is None:
            return False
        with suppress(psutil.NoSuchProcess):
            return self._seen.is_running() and self._seen.status() != psutil.STATUS_ZOMBIE
        return False

    def run(self) -> None:
        """Do its work, and then what is to be done at exit: a forked process would leave that out."""
        try:
            super().run()
        finally:
            atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to call them


class WarmParent:
    """Makes the workers of this process: spawned ones until there is a warm process, then forked ones.

    Args:
        pause_s: Between the first worker and the warm process, seconds: both import the same, and a run waits for one.
    """

    def __init__(self, pause_s: float = 5.0) -> None:
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._code: dict[Path, int] = {}
        self._warming: threading.Timer | None = None
        self._ready = threading.Event()

    def make_process(
        self,
        target: Callable[..., object] | None = None,
        args: Sequence[object] = (),
        **others: Any,
    ) -> SpawnProcess:
        """Return a process that is to be started; as ``multiprocessing.Process``."""
        if target is not start_run_in_subprocess:
            return SpawnProcess(target=target, args=args, **others)
        self._warm_up()
        kind = WarmProcess if self._ready.is_set() and self._code == _code_on_disk() else SpawnProcess
        return kind(target=target, args=args, **others)

    def _warm_up(self) -> None:
        """Have the warm process made, once, in a while."""
        with self._lock:
            if self._warming is None:
                self._code = _code_on_disk()
                self._warming = threading.Timer(self._pause_s, self._prove)
                self._warming.daemon = True
                self._warming.start()

    def _prove(self) -> None:
        """Have a process forked that does nothing; after it, forking is known to work."""
        os.environ.setdefault(*_NO_MEMORY_THREAD)
        multiprocessing.set_forkserver_preload(["era_ingest.orchestration.warm_parent"])
        process = WarmProcess(target=_nothing)
        process.start()
        process.join()
        if process.exitcode == 0 and process.was_forked:
            self._ready.set()


def use_warm_workers() -> None:
    """Have this process, if it is a code server, fork its workers.

    Dagster has no setting for how its code server starts them: it asks the standard library for a spawned process.
    """
    if sys.platform == "linux":
        vars(multiprocessing.get_context("spawn")).update(Process=_WARM_PARENT.make_process)


def _nothing() -> None:
    pass


def _code_on_disk() -> dict[Path, int]:
    """Return when each module of ours was last changed."""
    found = {}
    for file in _PACKAGE.rglob("*.py"):
        with suppress(FileNotFoundError):
            found[file] = file.stat().st_mtime_ns
    return found


_WARM_PARENT = WarmParent()
