"""Books are read: bytes to chunks, over all cores where that pays."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from era_ingest.pipelines.book_reading import ReadOptions, open_book, read_chunks, read_or_refuse
from era_ingest.pipelines.reader_pool import ReaderPool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from era_ingest.core.source import BookSource
    from era_ingest.errors import EraError
    from era_ingest.pipelines.chunked import ChunkedBook

__all__ = ["ReadOptions", "open_book", "read_books", "read_chunks", "read_or_refuse", "usable_cores"]

MIN_PARALLEL_BOOKS = 4
MIN_PARALLEL_BYTES = 16 * 1024 * 1024
"""Some two seconds of work for one core; a process takes half a second of CPU time to start."""
MAX_BYTES_IN_FLIGHT = 256 * 1024 * 1024
"""Source bytes of the books between the landing folder and the consumer; one larger book goes alone."""


async def read_books(
    sources: Sequence[BookSource], options: ReadOptions
) -> AsyncGenerator[tuple[BookSource, ChunkedBook | EraError]]:
    """Yield every book in the order given, each with its chunks or with why it is refused.

    Reads ahead by a bounded number of books and bytes while the consumer works. Several books with enough
    bytes are read in processes of their own, one a core; else one thread reads. Close it (``aclosing``) to
    stop early.

    Args:
        sources: What to read.
        options: How.
    """
    workers = _worker_count(sources, options)
    with ExitStack() as stack:
        read: Callable[[BookSource], ChunkedBook | EraError] = partial(read_or_refuse, options=options)
        threads = ThreadPoolExecutor(workers, thread_name_prefix="era-read")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        if workers > 1:
            read = stack.enter_context(ReaderPool(options, fallback=read)).read
        loop = asyncio.get_running_loop()
        ahead: deque[tuple[BookSource, asyncio.Future[ChunkedBook | EraError]]] = deque()
        bytes_ahead = 0
        for source in sources:
            while ahead and (len(ahead) > 2 * workers or bytes_ahead + source.size > MAX_BYTES_IN_FLIGHT):
                first, outcome = ahead.popleft()
                yield first, await outcome
                bytes_ahead -= first.size
            ahead.append((source, loop.run_in_executor(threads, read, source)))
            bytes_ahead += source.size
        while ahead:
            first, outcome = ahead.popleft()
            yield first, await outcome


def _worker_count(sources: Sequence[BookSource], options: ReadOptions) -> int:
    """Return how many processes are worth their start; 1: none, this one reads."""
    cores = options.processes or usable_cores()
    enough = (
        len(sources) >= MIN_PARALLEL_BOOKS and sum(source.size for source in sources) >= MIN_PARALLEL_BYTES
    )
    return min(cores, len(sources)) if enough else 1


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
