"""`era serve` beside the benchmark, as a process of its own, and whoever calls it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TIMEOUT_S = 120.0
_STOP_S = 30.0
_FIRST_LINE = re.compile(r"Serving at (http://\S+)")


class Answer(NamedTuple):
    """Status and JSON of an answer."""

    status: int
    json: Any


class Caller:
    """Asks a service over one connection, which is kept."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)

    def post(self, path: str, body: Any) -> Answer:
        """Post JSON; return the answer, whatever its status."""
        return self._ask("POST", path, json.dumps(body))

    def get(self, path: str) -> Answer:
        """Ask; return the answer, whatever its status."""
        return self._ask("GET", path, None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None) -> Answer:
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        with self._connection.getresponse() as response:
            return Answer(response.status, json.loads(response.read()))


@contextmanager
def calling(url: str) -> Iterator[Caller]:
    """Yield a caller of a service, with a connection of its own."""
    with closing(Caller(url)) as caller:
        yield caller


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[str]:
    """Run ``era serve`` on a free port for the length of a context; yield its URL.

    Args:
        environment: All of its environment.

    Raises:
        EraError: It ended before it served.
    """
    command = [sys.executable, "-m", "era_ingest", "serve", "--port", "0"]
    with subprocess.Popen(  # noqa: S603 - this very program
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = _FIRST_LINE.match(line)
            if match is None:
                raise EraError(f"`era serve` did not start: {process.communicate(timeout=_STOP_S)[1][-500:]}")
            yield match[1]
        finally:
            process.terminate()
            try:
                process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
