"""A webhook on a port of its own, which behaves or misbehaves as it is told."""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "T000-S3CR3T-B000"


class Webhook(ThreadingHTTPServer):
    """A webhook.

    Attributes:
        bodies: What it took, as JSON.
        attempts: Requests that came, whatever became of them.
        behaviour: What it does with the next requests: an HTTP status, ``hang``, ``reset`` or ``drip``.
        then: What it does after one request; None: the same.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []
        self.attempts = 0
        self.behaviour: int | str = 200
        self.then: int | str | None = None
        self.released = threading.Event()

    @property
    def url(self) -> str:
        """Its URL, which is a secret."""
        return f"http://127.0.0.1:{self.server_address[1]}/services/{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        hook = self.server
        hook.attempts += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        behaviour = hook.behaviour
        if hook.then is not None:
            hook.behaviour, hook.then = hook.then, None
        if behaviour == "hang":
            hook.released.wait(60)
        elif behaviour == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif behaviour == "drip":
            while not hook.released.wait(0.2):
                self.wfile.write(b"H")
        else:
            status = int(behaviour)
            if status == 200:
                hook.bodies.append(json.loads(body))
            self.send_response(status)
            self.send_header("Location", hook.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Serve; a client that went away is no error."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def finish(self) -> None:
        """Close; a connection that was reset has nothing to flush."""
        try:
            super().finish()
        except (OSError, ValueError):
            self.close_connection = True


@contextmanager
def running_webhook() -> Iterator[Webhook]:
    """Serve for the length of a context."""
    with Webhook() as hook:
        thread = threading.Thread(target=hook.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hook
        finally:
            hook.released.set()
            hook.shutdown()
            thread.join()
