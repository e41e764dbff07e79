"""The service as its callers meet it: the real application on a port of the loopback interface."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import psycopg

from era_ingest.service.server import build_server, listen, opened_app
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import uvicorn

    from era_ingest.service.access import Grant
    from era_ingest.service.server import OpenQueue
    from era_ingest.settings import Settings


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
        body: Its bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code, once it was seen that it is one."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["title"]
        return str(self.json["type"]).rpartition(":")[2]


@dataclass(frozen=True)
class Served:
    """A service at work; see ``serve``."""

    port: int

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """Send one request on a connection of its own; ``body`` goes as JSON, ``raw`` as it is."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        kind = {} if data is None else {"Content-Type": "application/json"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, {**kind, **(headers or {})})
            reply = connection.getresponse()
            fields = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, fields, reply.read())
        finally:
            connection.close()

    def send_raw(self, data: bytes, *, ends: bool = True) -> bytes:
        """Send bytes as they are (and say that this is all); return what comes back until the service closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65_536), b""))


@dataclass(frozen=True)
class Installation:
    """Where a service of the tests works.

    Attributes:
        landing: The landing folder; the first book makes it.
        url: The database.
        queue: Opens the run queue.
    """

    landing: Path
    url: str
    queue: OpenQueue

    @contextmanager
    def serve(self, grants: Sequence[Grant] = (), **settings: Any) -> Iterator[Served]:
        """Serve for the length of a context, by the settings of the environment."""
        with serve(load_settings(**settings), grants, self.queue) as served:
            yield served

    def count(self, query: str) -> int:
        """Return the one number of a query."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return int(row[0])


@contextmanager
def serve(settings: Settings, grants: Sequence[Grant], queue: OpenQueue) -> Iterator[Served]:
    """Serve from a thread for the length of a context."""
    ready: Future[tuple[uvicorn.Server, asyncio.AbstractEventLoop]] = Future()

    async def main(listener: socket.socket) -> None:
        async with opened_app(settings, grants, queue) as app:
            server = build_server(app)
            ready.set_result((server, asyncio.get_running_loop()))
            await server.serve(sockets=[listener])

    def run(listener: socket.socket) -> None:
        try:
            asyncio.run(main(listener))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    with listen("127.0.0.1", 0, grants) as listener:
        thread = threading.Thread(target=run, args=(listener,), name="service")
        thread.start()
        server, loop = ready.result(60)
        try:
            yield Served(listener.getsockname()[1])
        finally:
            loop.call_soon_threadsafe(setattr, server, "should_exit", True)
            thread.join(60)
