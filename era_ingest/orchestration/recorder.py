"""The process that records an ingestion as Dagster runs, and what is told to it.

It is started first of all, and imports Dagster (a second of CPU time) on another core, while the program imports what
it needs itself; so this module imports little. It is sent what is loaded, how far that is, and what came of it; it
answers with the ids of its runs once they are stored. Where nothing turns out to have changed, it is killed. It ends
with its input: a program that was killed leaves a failed run behind, not one that is at work for ever.

It is out of the terminal's reach, so that Ctrl-C comes to it from here, once, as a message.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import wait
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from era_ingest.errors import EraError, PermanentError
from era_ingest.pipelines.messages import read_message, write_message

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from types import TracebackType

    from era_ingest.orchestration.followed import FollowedWork
    from era_ingest.orchestration.local_work import LocalWork
    from era_ingest.settings import Settings

TELL_S = 1.0
"""How often the recorded run is told how far the books are, seconds."""
END_S = 10.0
"""How long an interrupted recorder may take to note that its run was interrupted, seconds."""
_RECORDED = "era_ingest.orchestration.recorded"
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from era_ingest.orchestration.recorder_worker import main; main()"
)


class Topic(StrEnum):
    """What a message is about."""

    ORDER = "order"
    PROGRESS = "progress"
    LOADED = "loaded"
    MINISTERS = "ministers"
    INDEXES = "indexes"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that the recorder is told.

    Attributes:
        topic: What it is about.
        content: The result of the future of that name, an EraError in its place, or how far it is.
    """

    topic: Topic
    content: Any = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the recorder answers.

    Attributes:
        run_ids: The runs that are stored.
        error: Why they are not, or what the work failed with; None: they are.
    """

    run_ids: tuple[str, ...] = ()
    error: EraError | None = None


def start_recorder(settings: Settings) -> AbstractContextManager[Recorder | None]:
    """Start the process for the length of a context; None where Dagster is imported in this one already."""
    return nullcontext() if _RECORDED in sys.modules else Recorder(settings)


def record(settings: Settings, work: LocalWork, recorder: Recorder | None) -> tuple[str, ...]:
    """Record work that is under way, to its end; return the runs' ids, none if nothing was changed.

    Args:
        settings: Where Dagster's instance is.
        work: What is under way.
        recorder: Who records it; None: this process.

    Raises:
        EraError: It could not be recorded, or the work failed.
    """
    if not work.is_worth_recording():
        return ()
    return _record_here(settings, work) if recorder is None else recorder.record(work)


def _record_here(settings: Settings, work: LocalWork) -> tuple[str, ...]:
    """Record work in this process; what keeps it from being recorded does not stop it."""
    from era_ingest.orchestration.recorded import record_runs

    try:
        return record_runs(settings, work.order, work)
    except Exception:
        for future in (work.loaded, work.ministers, work.indexes):
            future.exception()
        raise


class Recorder:
    """The process, for the length of a context; leaving it by an exception interrupts its run.

    Args:
        settings: Where Dagster's instance is.
    """

    def __init__(self, settings: Settings) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._answered = False
        self._ordered = False
        self._send(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ordered and not self._answered:
            self._send(Message(Topic.INTERRUPTED))
        elif not self._ordered:
            self._process.kill()
        try:
            with suppress(BrokenPipeError):  # it is gone already
                self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def record(self, work: FollowedWork) -> tuple[str, ...]:
        """Let it record a run, tell it of the work to its end, and return the runs' ids.

        Raises:
            EraError: It could not be recorded, or the work failed.
        """
        self._send(Message(Topic.ORDER, work.order.result()))
        self._ordered = True
        sent = 0
        while not work.loaded.done():
            if work.progress is not None:
                books = work.progress.books[sent:]
                sent += len(books)
                self._send(Message(Topic.PROGRESS, replace(work.progress, books=books)))
            wait([work.loaded], timeout=TELL_S)
        for topic, future in (
            (Topic.LOADED, work.loaded),
            (Topic.MINISTERS, work.ministers),
            (Topic.INDEXES, work.indexes),
        ):
            self._send(Message(topic, _outcome(future)))
        answer = self._receive()
        if answer.error is not None:
            raise answer.error
        return answer.run_ids

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died; so says the missing answer
            write_message(self._process.stdin, message)

    def _hang_up(self) -> None:
        """End what is sent, which is what the process waits for before it ends."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.stdin = None

    def _receive(self) -> Recorded:
        assert self._process.stdout is not None
        try:
            answer = read_message(self._process.stdout)
        except EOFError:
            self._hang_up()
            answer = Recorded(
                error=PermanentError(
                    f"The process that records the run in Dagster ended early (status {self._process.wait()}). "
                    "What was loaded is safe; run `era doctor`."
                )
            )
        self._answered = True
        assert isinstance(answer, Recorded)
        return answer


def _outcome(future: Future[Any]) -> object:
    """Wait for a result; return it, or the error that took its place, as one that can be sent."""
    error = future.exception()
    if error is None or isinstance(error, EraError):
        return error or future.result()
    return PermanentError(f"{type(error).__name__}: {error}")
