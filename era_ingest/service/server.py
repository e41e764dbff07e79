"""``era serve``: the service on one port, until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from era_ingest.errors import ConfigurationError, TransientError
from era_ingest.pipelines.book_reading import ReadOptions
from era_ingest.pipelines.search import Searcher
from era_ingest.pipelines.services import open_services
from era_ingest.pipelines.submission import Jobs
from era_ingest.pipelines.watching import Watch
from era_ingest.service.access import check_binding, load_grants
from era_ingest.service.app import build_app
from era_ingest.service.metrics import build_registry
from era_ingest.service.parts import Parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from era_ingest.pipelines.jobs import RunQueue
    from era_ingest.service.access import Grant
    from era_ingest.settings import Settings

    OpenQueue = Callable[[Settings], AbstractContextManager[RunQueue]]

MAX_CONNECTIONS = 1_000
"""Connections at once; further ones are answered with 503."""
_BACKLOG = 2_048
_KEEP_ALIVE_S = 30
SHUTDOWN_S = 10
"""How long answers may take once the service is told to end; then they are cut off."""
_MAX_HEADER_BYTES = 32 * 1024
_QUEUE_THREADS = 8
_RECOVER_EVERY_S = 15.0

_log = logging.getLogger(__name__)


def run_service(
    settings: Settings, host: str, port: int, queue: OpenQueue, announce: Callable[[str], None]
) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code.

    Args:
        settings: The process settings.
        host: Name or address to bind.
        port: Port to bind; 0: any that is free.
        queue: Opens the run queue.
        announce: Told the service's URL once it can be reached.

    Raises:
        ConfigurationError: The address cannot be bound, or other machines could reach it without a token.
        EraError: The database is not fit, or cannot be reached.
    """
    grants = load_grants(settings)
    with listen(host, port, grants) as listener, _signals_end():
        asyncio.run(_serve(settings, listener, grants, queue, announce))
    return 0


async def _serve(
    settings: Settings,
    listener: socket.socket,
    grants: Sequence[Grant],
    queue: OpenQueue,
    announce: Callable[[str], None],
) -> None:
    async with opened_app(settings, grants, queue) as app:
        announce(url_of(listener))
        await build_server(app).serve(sockets=[listener])


@asynccontextmanager
async def opened_app(settings: Settings, grants: Sequence[Grant], queue: OpenQueue) -> AsyncIterator[FastAPI]:
    """Yield the application over parts that are open as long as the context.

    Raises:
        EraError: The database is not fit, or cannot be reached.
    """
    options = ReadOptions.from_settings(settings)
    async with open_services(settings, database_timeout_s=settings.serve_search_timeout_s) as services:
        with queue(settings) as opened, ThreadPoolExecutor(_QUEUE_THREADS, "era-queue") as threads:
            searcher = Searcher(services, timeout_s=settings.serve_search_timeout_s)
            jobs = Jobs(services, opened, threads)
            watch = Watch(services.database, jobs.facts)
            recovering = asyncio.create_task(_recover(jobs))
            try:
                yield build_app(Parts(services, searcher, jobs, options, watch, build_registry()), grants)
            finally:
                recovering.cancel()
                await watch.aclose()
                await jobs.aclose()
                await searcher.aclose()


async def _recover(jobs: Jobs) -> None:
    """Look after what a crash left behind, now and four times a minute."""
    while True:
        try:
            if count := await jobs.recover():
                _log.warning("%d jobs were left behind by a crash; they are in order now", count)
        except TransientError as error:
            _log.warning("jobs cannot be looked after just now: %s", error.message)
        await asyncio.sleep(_RECOVER_EVERY_S)


class _Server(uvicorn.Server):
    """Tells the application that it ends, so that streams end with it."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        app = self.config.app
        assert isinstance(app, FastAPI)
        app.state.parts.ending.set()
        await super().shutdown(sockets)


def build_server(app: FastAPI) -> uvicorn.Server:
    """Return the server of an application, every wait and size bounded."""
    return _Server(
        uvicorn.Config(
            app,
            http="h11",  # bounds the headers; httptools does not
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )


def url_of(listener: socket.socket) -> str:
    """Return where a listening socket can be reached."""
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


@contextmanager
def listen(host: str, port: int, grants: Sequence[Grant]) -> Iterator[socket.socket]:
    """Yield a socket that listens, if the address may be served.

    Raises:
        ConfigurationError: It cannot be bound, or other machines could reach it without a token.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        check_binding(str(address[0]), grants)
        # Named TCP: asyncio switches Nagle's algorithm (40 ms an answer) off on such sockets alone.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise _cannot_bind(host, port, error) from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise _cannot_bind(host, port, error) from error
        yield listener


def _cannot_bind(host: str, port: int, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{host}:{port} cannot be bound: {error}. Choose another --port.")


@contextmanager
def _signals_end() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the server in order: it raises them again once it has ended."""
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the server took the signal already."""
