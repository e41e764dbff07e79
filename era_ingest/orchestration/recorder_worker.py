"""What the process of the `recorder` runs."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from era_ingest.errors import EraError, PermanentError
from era_ingest.logs import set_up
from era_ingest.orchestration.followed import FollowedWork
from era_ingest.orchestration.recorder import Message, Recorded, Topic
from era_ingest.pipelines.messages import read_message, write_message

if TYPE_CHECKING:
    from era_ingest.pipelines.report import BookReport, Progress
    from era_ingest.pipelines.work import Loaded

_INTERRUPTED = 130


def main() -> None:
    """Take the settings and then messages; record; answer with one `Recorded`."""
    gc.disable()  # imports make many objects and no garbage
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a hook that prints must not write into the answer
        _record(sys.stdin.buffer, answers)
    sys.stdout.flush()
    logging.shutdown()
    # everything is stored, and somebody waits for our end: he need not wait until Dagster is taken apart
    os._exit(0)


def _record(requests: IO[bytes], answers: IO[bytes]) -> None:
    work = RemoteWork()
    try:
        settings = read_message(requests)
        # what happens is logged by the program itself
        set_up(settings.log_format, settings.log_level or "error", secrets=settings.secrets)
        # not a daemon: one that still reads while the interpreter ends would have it abort
        threading.Thread(target=work.follow, args=(requests,), name="era-follow").start()
        from era_ingest.orchestration.recorded import record_runs

        gc.freeze()
        gc.enable()
        answer = Recorded(record_runs(settings, work.order, work))
    except EraError as error:
        answer = Recorded(error=error)
    except (KeyboardInterrupt, EOFError):
        sys.exit(_INTERRUPTED)
    try:
        write_message(answers, answer)
    except BrokenPipeError:
        sys.exit(_INTERRUPTED)


class RemoteWork(FollowedWork):
    """The work of the program that started this process, as far as its messages tell."""

    def __init__(self) -> None:
        super().__init__()
        self._books: list[BookReport] = []

    def follow(self, requests: IO[bytes]) -> None:
        """Take messages to their end, in a thread; Ctrl-C there is passed on to this process's main thread."""
        try:
            while (message := read_message(requests)).topic is not Topic.INTERRUPTED:
                self._take(message)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        except EOFError:
            self.fail(
                PermanentError("The program that loaded the books was killed. Run the same command again.")
            )
        except Exception as error:  # noqa: BLE001 - the thread's boundary: whoever waits for what comes is told
            self.fail(
                PermanentError(
                    f"What became of the books was not understood ({type(error).__name__}: {error}); was era_ingest "
                    "changed meanwhile? What was loaded is safe; run the same command again."
                )
            )

    def _take(self, message: Message) -> None:
        content = message.content
        match message.topic:
            case Topic.PROGRESS:
                self._advance(content)
            case _ if isinstance(content, EraError):
                getattr(self, message.topic).set_exception(content)
            case Topic.LOADED:
                self._finish(content)
            case _:
                getattr(self, message.topic).set_result(content)

    def _advance(self, progress: Progress) -> None:
        """Take how far it is; the books in it are those that finished since the last time."""
        self._books += progress.books
        self.progress = replace(progress, books=self._books)

    def _finish(self, loaded: Loaded) -> None:
        """Take what became of the books; what was only known at the end is known of the earlier ones, too."""
        for before, book in zip(self._books, loaded.report.books, strict=False):
            before.quarantined = book.quarantined
        self.loaded.set_result(loaded)
