"""Processes that read books, each one book at a time.

Not `multiprocessing`: its children import the program's main module again, which for Dagster's commands costs
two seconds of CPU each, and its pools cannot say which task killed a worker. Here a worker is a plain Python
process that takes pickles on standard input and gives pickles on standard output, each after its length. It
ends when its input does, so that it outlives no parent, however that one dies.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from era_ingest.core.names import show_name
from era_ingest.errors import MalformedDocumentError
from era_ingest.pipelines.messages import read_message, write_message

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from era_ingest.core.source import BookSource
    from era_ingest.errors import EraError
    from era_ingest.pipelines.book_reading import ReadOptions
    from era_ingest.pipelines.chunked import ChunkedBook

_BYTES_A_SECOND = 100_000
"""A book may take ten seconds a megabyte: ten times what the slowest built-in reader takes."""
_START_LIMIT_S = 60.0
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from era_ingest.pipelines.reader_worker import main; main()"
)


class ReaderPool:
    """Reads books in other processes; call `read` from as many threads as processes are wanted.

    A process is started when a thread finds none idle. One that dies, or takes too long, costs its own book
    only and is replaced. Where none can be started, ``fallback`` reads. Use it as a context manager: leaving
    kills the processes, which own nothing.

    Args:
        options: Sent to each process once; its ``timeout_s`` bounds a book.
        fallback: Reads a book in this process.
    """

    def __init__(
        self, options: ReadOptions, *, fallback: Callable[[BookSource], ChunkedBook | EraError]
    ) -> None:
        self._options = options
        self._fallback = fallback
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            workers = set(self._workers)
        for worker in workers:
            worker.kill()

    def read(self, source: BookSource) -> ChunkedBook | EraError:
        """Return a book as chunks, or why not; blocks the calling thread."""
        worker = self._take()
        if worker is None:
            return self._fallback(source)
        limit_s = self._options.timeout_s + source.size / _BYTES_A_SECOND
        try:
            outcome: ChunkedBook | EraError = worker.ask(source, limit_s)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._drop(worker)
            return _died(source, worker, limit_s)
        self._idle.put(worker)
        return outcome

    def _take(self) -> Worker | None:
        """Return an idle process, or a new one; None where none can be started."""
        try:
            return self._idle.get_nowait()
        except Empty:
            pass
        with self._lock:
            if self._closed:
                return None
            try:
                worker = Worker()
            except OSError:
                return None
            self._workers.add(worker)
        try:
            worker.ask(self._options, _START_LIMIT_S)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._drop(worker)
            return None
        return worker

    def _drop(self, worker: Worker) -> None:
        worker.kill()
        with self._lock:
            self._workers.discard(worker)


class Worker:
    """One process; it answers every message with one message.

    Attributes:
        timed_out: Whether it was killed since its time was over.
    """

    def __init__(self) -> None:
        self.timed_out = False
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, message: object, limit_s: float) -> Any:
        """Send a message and return the answer.

        Raises:
            EOFError, OSError: The process died, or was killed since its time was over.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(limit_s, self._run_out)
        timer.daemon = True
        timer.start()
        try:
            write_message(self._process.stdin, message)
            return read_message(self._process.stdout)
        finally:
            timer.cancel()

    def kill(self) -> int:
        """End the process; return its exit status (negative: the signal that ended it)."""
        self._process.kill()
        status = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # what was not sent is of no use any more
                    stream.close()
        return status

    def _run_out(self) -> None:
        self.timed_out = True
        self._process.kill()


def _died(source: BookSource, worker: Worker, limit_s: float) -> EraError:
    shown = show_name(source.files[0].path)
    status = worker.kill()
    if worker.timed_out:
        message, reason = f"{shown} was not read within {limit_s:.0f} s; split it.", "reader_timeout"
    else:
        message = f"{shown} ended the process that read it (status {status}); it may need too much memory."
        reason = "reader_died"
    return MalformedDocumentError(message, file=shown, reason=reason)
