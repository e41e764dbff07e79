"""A real HTTP door before a simulated server that lives in real time.

    python -m era_ingest.bench.live.door "600 RPM, bare 429"

prints its URL and serves until it is ended: ``POST /v1/embeddings`` under the scenario's limits, and the same
below ``/free`` without any, to measure the way there and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from random import Random
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from era_ingest.bench.live.scenarios import find
from era_ingest.bench.server import Latency, PoolServer, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from era_ingest.bench.simulation.servers import Answer, Server
    from era_ingest.core.limiter.contract import ServerHints

DIMENSIONS = 16
FREE = "/free"
"""Root of the same service without limits and latency."""


class RealWorld:
    """Real time, from the first look at the clock on. Implements ``Agenda``."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` at the instant ``when``."""
        asyncio.get_running_loop().call_later(max(0.0, when - self.now), action)


class Door(PoolServer):
    """Lets a simulated server decide, and says over HTTP what it decided.

    Args:
        server: Decides.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(Latency(0.0, 0.0, DIMENSIONS))
        self._server = server
        self._world = RealWorld()

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_post("/v1/embeddings", self._ask)
        app.router.add_post(f"{FREE}/v1/embeddings", self._embed)
        return app

    async def _ask(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        came: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answer(given: Answer) -> None:
            if not came.done():
                came.set_result(given)

        self._server.receive(self._world, sum(map(len, asked["input"])) / 4, answer)
        given = await came
        if given.failure is None:
            response = self.answer(asked)
        else:
            response = web.json_response({"error": {"message": "Rate limit reached"}}, status=429)
        response.headers.update(render_hints(given.hints))
        return response


def render_hints(hints: ServerHints) -> Mapping[str, str]:
    """Return the headers that say these hints, as OpenAI and Azure send them."""
    found = {
        f"x-ratelimit-{what}-{unit}": f"{value:.0f}"
        for unit in ("requests", "tokens")
        for what in ("limit", "remaining")
        if (value := getattr(hints, f"{what}_{unit}")) is not None
    }
    for unit in ("requests", "tokens"):
        if (reset_s := getattr(hints, f"reset_{unit}_s")) is not None:
            found[f"x-ratelimit-reset-{unit}"] = f"{1000 * reset_s:.0f}ms"
    if hints.retry_after_s is not None:
        whole = hints.retry_after_s == int(hints.retry_after_s)
        name, scale = ("retry-after", 1) if whole else ("retry-after-ms", 1000)
        found[name] = f"{scale * hints.retry_after_s:.0f}"
    return found


def main() -> None:
    """Serve the scenario that the command line names until ended."""
    scenario = find(sys.argv[1])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Door(scenario.build(Random())).build()))


if __name__ == "__main__":
    main()
