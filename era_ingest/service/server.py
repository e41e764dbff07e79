"""``era serve``: the service on one port, until it is told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from era_ingest.errors import ConfigurationError
from era_ingest.pipelines.search import Searcher
from era_ingest.pipelines.services import open_services
from era_ingest.service.access import check_binding, load_grants
from era_ingest.service.app import build_app
from era_ingest.service.parts import Parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from fastapi import FastAPI

    from era_ingest.service.access import Grant
    from era_ingest.settings import Settings

MAX_CONNECTIONS = 1_000
"""Connections at once; further ones are answered with 503."""
_BACKLOG = 2_048
_KEEP_ALIVE_S = 30
_SHUTDOWN_S = 10
_MAX_HEADER_BYTES = 32 * 1024


def run_service(settings: Settings, host: str, port: int, announce: Callable[[str], None]) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code.

    Args:
        settings: The process settings.
        host: Name or address to bind.
        port: Port to bind; 0: any that is free.
        announce: Told the service's URL once it can be reached.

    Raises:
        ConfigurationError: The address cannot be bound, or other machines could reach it without a token.
        EraError: The database is not fit, or cannot be reached.
    """
    grants = load_grants(settings)
    with _listen(host, port, grants) as listener, _signals_end():
        asyncio.run(_serve(settings, listener, grants, announce))
    return 0


async def _serve(
    settings: Settings, listener: socket.socket, grants: Sequence[Grant], announce: Callable[[str], None]
) -> None:
    async with opened_app(settings, grants) as app:
        announce(url_of(listener))
        await build_server(app).serve(sockets=[listener])


@asynccontextmanager
async def opened_app(settings: Settings, grants: Sequence[Grant]) -> AsyncIterator[FastAPI]:
    """Yield the application over parts that are open as long as the context.

    Raises:
        EraError: The database is not fit, or cannot be reached.
    """
    async with open_services(settings) as services:
        searcher = Searcher(services, timeout_s=settings.serve_search_timeout_s)
        try:
            yield build_app(Parts(services, searcher), grants)
        finally:
            await searcher.aclose()


def build_server(app: FastAPI) -> uvicorn.Server:
    """Return the server of an application, every wait and size bounded."""
    return uvicorn.Server(
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
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
    )


def url_of(listener: socket.socket) -> str:
    """Return where a listening socket can be reached."""
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


@contextmanager
def _listen(host: str, port: int, grants: Sequence[Grant]) -> Iterator[socket.socket]:
    """Bind the address, if it may be served."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        check_binding(str(address[0]), grants)
        listener = socket.create_server((str(address[0]), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"{host}:{port} cannot be bound: {error}. Choose another --port.") from error
    with listener:
        yield listener


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
