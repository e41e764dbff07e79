"""What a process of the `reader_pool` runs."""

from __future__ import annotations

import os
import signal
import sys

from era_ingest.pipelines.book_reading import read_or_refuse
from era_ingest.pipelines.messages import read_message, write_message


def main() -> None:
    """Take the options, then books; answer each; end when the input does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair; it closes our input
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a reader that prints must not write into the answers
    try:
        options = read_message(requests)
        write_message(answers, "ready")
        while True:
            write_message(answers, read_or_refuse(read_message(requests), options))
    except (EOFError, BrokenPipeError):
        return
