"""A local embedding server of given latency, for measuring: the same vectors again and again, at little CPU.

It answers ``POST /v1/embeddings`` as OpenAI's API does, with ``encoding_format: base64`` where that is asked for,
else with numbers. Its own CPU counts against all sides of a comparison alike.

    python -m era_ingest.bench.server --latency-ms 60 --per-text-ms 0.2 --dimensions 768

prints its URL on the first line, and serves until it is ended. ``GET /stats`` tells requests and texts.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import subprocess
import sys
import urllib.request
import zlib
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

POOL_VECTORS = 2048
MAX_BODY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a request takes, and what comes back.

    Attributes:
        request_ms: Milliseconds a request.
        text_ms: Milliseconds that each text of it adds.
        dimensions: Size of the vectors.
    """

    request_ms: float = 60.0
    text_ms: float = 0.2
    dimensions: int = 768


class PoolServer:
    """Answers with one of some fixed random unit vectors, chosen by the text.

    Args:
        latency: How long it takes.
    """

    def __init__(self, latency: Latency) -> None:
        self._latency = latency
        vectors = _make_pool(latency.dimensions)
        self._base64 = [b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes()) for vector in vectors]
        self._numbers = [orjson.dumps(vector.tolist()) for vector in vectors]
        self._requests = 0
        self._texts = 0

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_get("/stats", self._stats)
        return app

    async def _embed(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        texts = asked["input"]
        self._requests += 1
        self._texts += len(texts)
        await asyncio.sleep((self._latency.request_ms + self._latency.text_ms * len(texts)) / 1000)
        return self.answer(asked)

    def answer(self, asked: Mapping[str, Any]) -> web.Response:
        """Return the vectors that a request, as parsed, asks for."""
        texts = asked["input"]
        pool = self._base64 if asked.get("encoding_format") == "base64" else self._numbers
        items = b",".join(
            b'{"object":"embedding","index":%d,"embedding":%b}'
            % (place, pool[zlib.crc32(text.encode()) % POOL_VECTORS])
            for place, text in enumerate(texts)
        )
        tokens = sum(map(len, texts)) // 4
        body = b'{"object":"list","data":[%b],"model":"bench","usage":{"prompt_tokens":%d,"total_tokens":%d}}'
        return web.Response(body=body % (items, tokens, tokens), content_type="application/json")

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": self._requests, "texts": self._texts})


def _make_pool(dimensions: int) -> npt.NDArray[np.float32]:
    table = np.random.default_rng(7).standard_normal((POOL_VECTORS, dimensions), dtype=np.float32)
    table /= np.linalg.norm(table, axis=1)[:, None]
    return table


@dataclass(frozen=True, slots=True)
class Asked:
    """What a server was asked for since its start.

    Attributes:
        requests: Requests.
        texts: Texts in them.
    """

    requests: int
    texts: int

    def __sub__(self, before: Asked) -> Asked:
        return Asked(self.requests - before.requests, self.texts - before.texts)


def fetch_asked(server_url: str) -> Asked:
    """Ask a server what it was asked for."""
    with urllib.request.urlopen(f"{server_url}/stats", timeout=10) as reply:  # noqa: S310 - our own server
        return Asked(**orjson.loads(reply.read()))


def running_server(latency: Latency) -> AbstractContextManager[str]:
    """Give the URL of a server in a process of its own, ended with the context."""
    options = ["--latency-ms", str(latency.request_ms), "--per-text-ms", str(latency.text_ms)]
    return running_module("era_ingest.bench.server", *options, "--dimensions", str(latency.dimensions))


@contextmanager
def running_module(module: str, *arguments: str) -> Iterator[str]:
    """Yield the URL that a module of ours prints when run as a process of its own, ended with the context."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()  # it keeps nothing; a shell's background job would ignore gentler signals


async def serve(app: web.Application, port: int = 0) -> None:
    """Serve on loopback until ended; the URL is printed on the first line."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Serve until ended."""
    usual = Latency()
    parser = argparse.ArgumentParser(prog="python -m era_ingest.bench.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--latency-ms", type=float, default=usual.request_ms, help="a request")
    parser.add_argument("--per-text-ms", type=float, default=usual.text_ms, help="and text")
    parser.add_argument("--dimensions", type=int, default=usual.dimensions)
    found = parser.parse_args()
    latency = Latency(found.latency_ms, found.per_text_ms, found.dimensions)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(PoolServer(latency).build(), found.port))


if __name__ == "__main__":
    main()
