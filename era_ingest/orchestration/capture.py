"""What steps print: written to a file by the system itself, shown on the console by a thread.

The stock way has a ``tail -F`` a stream, and a Python process that ends it if we are killed: four processes a
run, and one that stays for ever where the kill comes between the two starts. A thread ends with its process.
"""

from __future__ import annotations

import io
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOOK_EVERY_S = 0.2
_PART_BYTES = 65_536


@contextmanager
def captured(stream: TextIO, path: Path) -> Iterator[None]:
    """Append to a file what is printed to a stream, by this process and those that it starts.

    It appears where it would have been printed too, up to 0.2 s later. A stream without a descriptor (a test
    runner's) is left alone.

    Args:
        stream: Standard output or standard error.
        path: The file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number = _descriptor(stream)
    if number is None:
        path.touch()
        yield
        return
    stream.flush()
    console = os.dup(number)
    try:
        with path.open("ab", buffering=0) as file:
            follower = _Follower(path, console)
            os.dup2(file.fileno(), number)
            try:
                yield
            finally:
                stream.flush()
                os.dup2(console, number)
                follower.finish()
    finally:
        os.close(console)


class _Follower:
    """Shows what is appended to a file, until told to finish."""

    def __init__(self, path: Path, console: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(0, os.SEEK_END)
        self._console = console
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="era-prints", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Show the rest, and end."""
        self._over.set()
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        with suppress(OSError):  # nobody reads the console any more: the file has it all
            while not self._over.wait(_LOOK_EVERY_S):
                self._show()
            self._show()

    def _show(self) -> None:
        while part := self._file.read(_PART_BYTES):
            while part:
                part = part[os.write(self._console, part) :]


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None
