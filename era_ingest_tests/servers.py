"""A real HTTP server on loopback that speaks the embedding protocols, and fails on purpose.

Documents it follows:

* OpenAI's API reference, "Create embeddings" (``POST /v1/embeddings``: ``input``, ``encoding_format: float |
  base64``, ``dimensions``; reply ``{"object": "list", "data": [{"index", "embedding"}], "usage"}``; errors
  ``{"error": {"message", "type", "param", "code"}}``), and its guide to rate limits (``x-ratelimit-*``);
* Ollama's docs/api.md, "Generate Embeddings" (``POST /api/embed``: ``model``, ``input``, ``truncate``,
  ``dimensions``; reply ``{"model", "embeddings", "prompt_eval_count"}``; errors ``{"error": "..."}``; 503
  when the queue is full).

Beside them ``GET /stats`` and ``POST /reset`` for tests.

In a test::

    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.INTERNAL, 0.01),))) as server:
        ...  # server.url, server.stats

As a process of its own (prints its URL), for measurements::

    python -m era_ingest_tests.servers --port 0 --latency-ms 60 --per-text-ms 0.2 --vectors pool
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import orjson
from aiohttp import web

from era_ingest_tests.server_faults import (
    SPOILS_REPLY,
    Fault,
    Rule,
    answer_fault,
    parse_rule,
    send_truncated,
    spoil,
)
from era_ingest_tests.server_limits import Hint, Quota, Quotas, Workers
from era_ingest_tests.server_vectors import Vectors, ollama_numbers, openai_base64

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_BODY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server behaves.

    Attributes:
        dimensions: Length of its vectors, unless the request asks for another.
        latency_s: Seconds a request takes in a worker.
        per_text_s: Seconds that each text adds.
        workers: Requests served at once; 0: without bound.
        queue: Requests that wait for a worker, at most; more get 503.
        cap: Requests in flight, at most; more get 429; 0: without bound.
        quota: Requests and tokens a minute.
        max_texts: Texts a request, at most; more get 413; 0: without bound.
        max_tokens: Tokens a request, at most; more get 400; 0: without bound.
        api_key: Bearer token that is asked for; None: none.
        model: The only model there is; None: any.
        rules: Faults; the first that hits happens.
        floats: Send numbers even where base64 is asked for, as some servers do.
        unit: Send vectors of length 1; False: of length 3 (llama.cpp's are not of unit length).
        usage: Report tokens.
        vectors: ``hashing`` (near for texts that share words) or ``pool`` (one of some fixed vectors: fast).
        seed: Of the faults by rate.
    """

    dimensions: int = 64
    latency_s: float = 0.0
    per_text_s: float = 0.0
    workers: int = 0
    queue: int = 512
    cap: int = 0
    quota: Quota = field(default_factory=Quota)
    max_texts: int = 0
    max_tokens: int = 0
    api_key: str | None = None
    model: str | None = None
    rules: tuple[Rule, ...] = ()
    floats: bool = False
    unit: bool = True
    usage: bool = True
    vectors: str = "hashing"
    seed: int = 1


@dataclass(slots=True)
class ServerStats:
    """What a server has seen."""

    requests: int = 0
    answered: int = 0
    refused: int = 0
    faults: int = 0
    texts: int = 0
    texts_answered: int = 0
    most_at_once: int = 0


class EmbeddingServer:
    """Serves until closed; an async context manager.

    Args:
        options: How it behaves; may be replaced while it runs.
        port: TCP port; 0: any free one.
    """

    def __init__(self, options: ServerOptions | None = None, *, port: int = 0) -> None:
        self.options = options or ServerOptions()
        self.stats = ServerStats()
        self.seen: list[list[str]] = []
        self._port = port
        self._rng = random.Random(self.options.seed)
        self._vectors = Vectors(self.options)
        self._quotas = Quotas(self.options.quota, time.monotonic)
        self._workers = Workers(self.options.workers, self.options.queue)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The server's root."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/embeddings", self._openai)
        app.router.add_post("/api/embed", self._ollama)
        app.router.add_get("/stats", self._show_stats)
        app.router.add_post("/reset", self._reset_stats)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def up(self) -> None:
        """Listen; after ``down`` on the same port."""
        assert self._runner is not None
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Refuse connections from now on, and drop the open ones."""
        assert self._runner is not None
        assert self._runner.server is not None
        for site in list(self._runner.sites):
            await site.stop()
        await self._runner.server.shutdown(0.1)

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        refusal = await self._refuse(request, body, texts)
        if refusal is not None:
            return refusal
        return await self._serve(request, body, texts, base64_asked=body.get("encoding_format") == "base64")

    async def _ollama(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        refusal = await self._refuse(request, body, texts)
        if refusal is not None:
            return refusal
        return await self._serve(request, body, [text for text in texts if text], base64_asked=False)

    async def _refuse(
        self, request: web.Request, body: dict[str, Any], texts: Sequence[str]
    ) -> web.StreamResponse | None:
        """Return the reply to a request that is not served, or None."""
        options = self.options
        self.stats.requests += 1
        self.stats.texts += len(texts)
        self.seen.append(list(texts))
        fault = self._check(request, body, texts)
        if fault is not None:
            self.stats.refused += 1
            return await answer_fault(Rule(fault), request, texts)
        wait_s = self._quotas.take(_tokens(texts))
        if wait_s > 0 or (options.cap and self._workers.busy >= options.cap):
            self.stats.refused += 1
            headers = self._quotas.refusal_headers(wait_s)
            return web.json_response(
                {"error": {"message": "Rate limit reached", "type": "requests"}}, status=429, headers=headers
            )
        if self._workers.is_full:
            self.stats.refused += 1
            return await answer_fault(Rule(Fault.BUSY), request, texts)
        return None

    def _check(self, request: web.Request, body: dict[str, Any], texts: Sequence[str]) -> Fault | None:
        """Return what the documents say of a wrong request."""
        options = self.options
        if options.api_key and request.headers.get("Authorization") != f"Bearer {options.api_key}":
            return Fault.BAD_KEY
        if options.model and body["model"] != options.model:
            return Fault.NO_MODEL
        if options.max_texts and len(texts) > options.max_texts:
            return Fault.TOO_MANY_TEXTS
        if options.max_tokens and _tokens(texts) > options.max_tokens:
            return Fault.BAD_TEXT
        if request.path.startswith("/v1") and not all(texts):
            return Fault.BAD_TEXT
        return None

    async def _serve(
        self, request: web.Request, body: dict[str, Any], texts: Sequence[str], *, base64_asked: bool
    ) -> web.StreamResponse:
        """Take a worker's time, then answer, or fail by the first rule that hits."""
        options = self.options
        rule = next(
            (one for one in options.rules if one.hits(texts, self.stats.requests, self._rng.random)), None
        )
        async with self._workers:
            self.stats.most_at_once = self._workers.most_busy
            latency_s = options.latency_s + options.per_text_s * len(texts)
            if latency_s:
                await asyncio.sleep(latency_s)
        if rule is not None:
            self.stats.faults += 1
            if rule.fault not in SPOILS_REPLY:
                return await answer_fault(rule, request, texts)
        raw = self._build(request, body, texts, rule, base64_asked=base64_asked)
        if rule is not None and rule.fault is Fault.TRUNCATED:
            return await send_truncated(request, raw)
        self.stats.answered += 1
        self.stats.texts_answered += len(texts)
        return web.Response(body=raw, content_type="application/json", headers=self._quotas.headers())

    def _build(
        self,
        request: web.Request,
        body: dict[str, Any],
        texts: Sequence[str],
        rule: Rule | None,
        *,
        base64_asked: bool,
    ) -> bytes:
        """Return the body of a reply."""
        dimensions = body.get("dimensions") or self.options.dimensions
        tokens = round(_tokens(texts)) if self.options.usage else 0
        if base64_asked and not self.options.floats and rule is None:
            return openai_base64(self._vectors.encoded(texts, dimensions), body["model"], tokens)
        if request.path == "/api/embed" and rule is None:
            return ollama_numbers(self._vectors.rendered(texts, dimensions), body["model"], tokens)
        rows: list[Any] = self._vectors.rows(texts, dimensions)
        if rule is not None:
            rows = spoil(rule.fault, rows)
        if request.path == "/api/embed":
            return orjson.dumps({"model": body["model"], "embeddings": rows, "prompt_eval_count": tokens})
        if base64_asked and not self.options.floats:
            rows = [base64.b64encode(np.array(row, "<f4").tobytes()).decode() for row in rows]
        data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
        if rule is not None and rule.fault is Fault.OUT_OF_ORDER:
            data.reverse()
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return orjson.dumps({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def _show_stats(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self.stats), content_type="application/json")

    async def _reset_stats(self, _: web.Request) -> web.Response:
        self.stats = ServerStats()
        self.seen = []
        return web.Response()


def _tokens(texts: Sequence[str]) -> float:
    """Return what this server counts as tokens: a fifth more than a client would guess."""
    return sum(len(text) for text in texts) / 4 * 1.2


@contextlib.contextmanager
def running_server(*arguments: str) -> Iterator[str]:
    """Yield the URL of a server in a process of its own; arguments as on its command line."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "era_ingest_tests.servers", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _parse_arguments() -> tuple[int, ServerOptions]:
    parser = argparse.ArgumentParser(prog="python -m era_ingest_tests.servers", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=11435, help="0: any free one")
    add("--dimensions", type=int, default=768)
    add("--latency-ms", type=float, default=0.0, help="a request")
    add("--per-text-ms", type=float, default=0.0, help="and text")
    add("--workers", type=int, default=0, help="0: without bound")
    add("--queue", type=int, default=512, help="requests that wait for a worker; more get 503")
    add("--cap", type=int, default=0, help="requests in flight; more get 429; 0: without bound")
    add("--rpm", type=float, default=0.0, help="requests a minute; 0: no limit")
    add("--tpm", type=float, default=0.0, help="tokens a minute; 0: no limit")
    add("--burst", type=float, default=0.0, help="requests that a full bucket holds; 0: those of a minute")
    add("--window", action="store_true", help="fixed minutes instead of a bucket")
    add("--headers", action="store_true", help="send x-ratelimit-*")
    add("--hint", type=Hint, choices=list(Hint), default=Hint.NONE, help="what a 429 says")
    add("--refusals-count", action="store_true", help="refused requests use up the quota too")
    add("--api-key", default=None)
    add("--vectors", choices=("hashing", "pool"), default="hashing")
    add("--floats", action="store_true", help="ignore encoding_format: base64")
    add("--fault", type=parse_rule, action="append", default=[], help="fault[:rate[:text]], repeatable")
    found = parser.parse_args()
    quota = Quota(
        per_minute=found.rpm,
        tokens_per_minute=found.tpm,
        burst=found.burst,
        window=found.window,
        headers=found.headers,
        hint=found.hint,
        refusals_count=found.refusals_count,
    )
    options = ServerOptions(
        dimensions=found.dimensions,
        latency_s=found.latency_ms / 1000,
        per_text_s=found.per_text_ms / 1000,
        workers=found.workers,
        queue=found.queue,
        cap=found.cap,
        quota=quota,
        api_key=found.api_key,
        rules=tuple(found.fault),
        floats=found.floats,
        vectors=found.vectors,
    )
    return found.port, options


async def _main() -> None:
    port, options = _parse_arguments()
    async with EmbeddingServer(options, port=port) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
