"""The backends over HTTP against a real server: one request each, in every form of reply and refusal."""

from __future__ import annotations

import asyncio
import pickle
import tracemalloc

import numpy as np
import pytest
from pydantic import SecretStr

from era_ingest.clients.failures import MAX_MESSAGE_CHARS
from era_ingest.clients.hashing import HashingEmbedder
from era_ingest.clients.http_backend import Endpoint
from era_ingest.clients.ollama import OllamaEmbedder
from era_ingest.clients.openai import OpenAIEmbedder
from era_ingest.errors import (
    AuthenticationError,
    ConfigurationError,
    EraError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
    RequestTooLargeError,
    ResponseMismatchError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from era_ingest_tests.clients.kit import KEY, embedder
from era_ingest_tests.server_faults import Fault, Rule
from era_ingest_tests.server_limits import Hint, Quota
from era_ingest_tests.servers import EmbeddingServer, ServerOptions

TEXTS = ["To be, or not to be", "that is the question", "Ω and 漢字"]
EXPECTED: dict[Fault, type[EraError]] = {
    Fault.SLOW_DOWN: RateLimitedError,
    Fault.SLOW_DOWN_SECONDS: RateLimitedError,
    Fault.SLOW_DOWN_DATE: RateLimitedError,
    Fault.SLOW_DOWN_MS: RateLimitedError,
    Fault.TOO_LARGE: RequestTooLargeError,
    Fault.FORBIDDEN: AuthenticationError,
    Fault.BAD_KEY: AuthenticationError,
    Fault.ECHO_KEY: AuthenticationError,
    Fault.NO_MODEL: ModelNotFoundError,
    Fault.TIMEOUT: UpstreamUnavailableError,
    Fault.TOO_MANY_TEXTS: RequestTooLargeError,
    Fault.BAD_TEXT: RequestRejectedError,
    Fault.ECHO: RequestRejectedError,
    Fault.BACKEND: RequestRejectedError,
    Fault.INTERNAL: UpstreamUnavailableError,
    Fault.GATEWAY: UpstreamUnavailableError,
    Fault.GATEWAY_TIMEOUT: UpstreamUnavailableError,
    Fault.RESET: UpstreamUnavailableError,
    Fault.HANG: UpstreamTimeoutError,
    Fault.DRIP: UpstreamTimeoutError,
    Fault.TRUNCATED: UpstreamUnavailableError,
    Fault.NOT_JSON: ResponseMismatchError,
    Fault.WRONG_COUNT: ResponseMismatchError,
    Fault.NAN: ResponseMismatchError,
    Fault.ZERO: ResponseMismatchError,
    Fault.HUGE_ERROR: UpstreamUnavailableError,
    Fault.BOMB: ResponseMismatchError,
}


@pytest.mark.parametrize("backend", ["openai", "ollama"])
@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("unit", [False, True])
async def test_vectors_arrive_whole_in_order_and_of_length_one(
    backend: str, *, floats: bool, unit: bool
) -> None:
    """Base64 or numbers, of unit length or not: the same vectors come out."""
    async with EmbeddingServer(ServerOptions(floats=floats, unit=unit)) as server:
        one = embedder(server, backend)
        reply = await one.embed(TEXTS)
        await one.aclose()
    assert reply.vectors.dtype == np.float32
    np.testing.assert_allclose(reply.vectors, HashingEmbedder(64).compute(TEXTS), atol=1e-6)
    assert reply.tokens is not None
    assert reply.tokens > 0


async def test_replies_out_of_order_are_sorted_by_index() -> None:
    """The index decides, not the place."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.OUT_OF_ORDER),))) as server:
        one = embedder(server)
        reply = await one.embed(TEXTS)
        await one.aclose()
    np.testing.assert_allclose(reply.vectors, HashingEmbedder(64).compute(TEXTS), atol=1e-6)


@pytest.mark.parametrize("backend", ["openai", "ollama"])
@pytest.mark.parametrize("fault", EXPECTED)
async def test_each_fault_becomes_its_error_without_secrets(backend: str, fault: Fault) -> None:
    """The right class, a bounded message, no key anywhere in it or in what it was raised from."""
    timeout_s = 0.3 if fault in {Fault.HANG, Fault.DRIP} else 5.0
    async with EmbeddingServer(ServerOptions(rules=(Rule(fault),))) as server:
        one = embedder(server, backend, timeout_s=timeout_s)
        with pytest.raises(EraError) as caught:
            await one.embed(["x" * 5000, "y"])
        await one.aclose()
    error = caught.value
    assert type(error) is EXPECTED[fault]
    assert len(error.message) < MAX_MESSAGE_CHARS + 200
    shown = [
        repr(error),
        str(error),
        repr(error.__cause__),
        repr(error.__context__),
        repr(one),
        repr(one.endpoint),
    ]
    assert not any(KEY in text for text in shown)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message) == (type(error), error.message)


async def test_a_full_queue_is_flow_control_for_ollama_and_an_outage_elsewhere() -> None:
    """Ollama answers 503 "server busy" where others answer 429."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.BUSY),))) as server:
        for backend, expected in (("ollama", RateLimitedError), ("openai", UpstreamUnavailableError)):
            one = embedder(server, backend)
            with pytest.raises(expected):
                await one.embed(TEXTS)
            await one.aclose()


async def test_no_quota_is_never_worth_a_retry() -> None:
    """429 with insufficient_quota is a matter for a person."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.NO_QUOTA),))) as server:
        one = embedder(server)
        with pytest.raises(QuotaExhaustedError):
            await one.embed(TEXTS)
        await one.aclose()


@pytest.mark.parametrize(
    ("fault", "retry_after_s"),
    [
        (Fault.SLOW_DOWN, None),
        (Fault.SLOW_DOWN_SECONDS, pytest.approx(7)),
        (Fault.SLOW_DOWN_MS, pytest.approx(7)),
        (Fault.SLOW_DOWN_DATE, pytest.approx(6.5, abs=0.6)),
    ],
)
async def test_a_refusal_says_when_to_come_again(fault: Fault, retry_after_s: object) -> None:
    """Seconds, milliseconds, a date, or nothing."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(fault, retry_after_s=7),))) as server:
        one = embedder(server)
        with pytest.raises(RateLimitedError) as caught:
            await one.embed(TEXTS)
        await one.aclose()
    assert caught.value.retry_after_s == retry_after_s


async def test_hints_come_with_good_replies_and_with_refusals() -> None:
    """What is left of the quota stands in every reply."""
    quota = Quota(per_minute=60, burst=2, headers=True, hint=Hint.MILLISECONDS)
    async with EmbeddingServer(ServerOptions(quota=quota)) as server:
        one = embedder(server)
        hints = (await one.embed(TEXTS)).hints
        assert (hints.limit_requests, hints.remaining_requests) == (60, 1)
        await one.embed(TEXTS)
        with pytest.raises(RateLimitedError) as caught:
            await one.embed(TEXTS)
        await one.aclose()
    assert 0.5 < (caught.value.retry_after_s or 0) <= 1.01
    assert caught.value.hints is not None


async def test_a_server_that_is_not_there() -> None:
    """Refused connections name the URL and the setting."""
    async with EmbeddingServer() as server:
        one = embedder(server)
    with pytest.raises(UpstreamUnavailableError, match="ERA_EMBED_URL") as caught:
        await one.embed(TEXTS)
    await one.aclose()
    assert caught.value.status is None


async def test_a_wrong_size_is_refused() -> None:
    """Replies are held to the model's size."""
    async with EmbeddingServer() as server:
        one = embedder(server)
        await one.embed(TEXTS)
        server.options = ServerOptions(rules=(Rule(Fault.WRONG_SIZE),))
        with pytest.raises(ResponseMismatchError, match="63 dimensions instead of 64"):
            await one.embed(TEXTS)
        await one.aclose()


async def test_a_gzip_bomb_costs_no_memory() -> None:
    """256 MB packed into some hundred kB are not unpacked."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(Fault.BOMB),))) as server:
        one = embedder(server)
        with pytest.raises(ResponseMismatchError):
            await one.embed(["x"])
        tracemalloc.start()
        with pytest.raises(ResponseMismatchError):
            await one.embed(["x"])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await one.aclose()
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1/embeddings", "https://api.openai.com/v1/embeddings"),
        ("http://gateway/litellm", "http://gateway/litellm/v1/embeddings"),
        ("https://google.example/v1beta/openai/", "https://google.example/v1beta/openai/embeddings"),
        ("localhost:8080", "http://localhost:8080/v1/embeddings"),
        ("https://azure.example/v1?api-version=1", "https://azure.example/v1/embeddings?api-version=1"),
    ],
)
def test_the_root_of_an_openai_server_in_its_forms(root: str, expected: str) -> None:
    """With and without slash, /v1 and scheme."""
    assert OpenAIEmbedder.build_url(root) == expected


@pytest.mark.parametrize("root", ["http://h:11434", "http://h:11434/", "http://h:11434/v1", "h:11434/api"])
def test_the_root_of_an_ollama_server_in_its_forms(root: str) -> None:
    """As OLLAMA_HOST, or as its OpenAI-compatible root."""
    assert OllamaEmbedder.build_url(root) == "http://h:11434/api/embed"


@pytest.mark.parametrize("root", ["", "ftp://host", "http://", "http://[::1", "file:///etc/passwd"])
def test_a_url_that_is_none_is_a_wrong_setting(root: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="ERA_EMBED_URL"):
        OpenAIEmbedder.build_url(root)


async def test_the_names_of_models() -> None:
    """The identity in the database tells backend, model and size that was asked for."""
    plain = OllamaEmbedder(Endpoint("http://h", "nomic-embed-text"))
    short = OpenAIEmbedder(Endpoint("http://h", "text-embedding-3-small", dimensions=512))
    assert (plain.name, short.name) == ("ollama/nomic-embed-text", "openai/text-embedding-3-small@512")
    assert (plain.dimensions, short.dimensions) == (None, 512)


@pytest.mark.parametrize("backend", ["openai", "ollama"])
async def test_the_size_that_was_asked_for_is_sent_and_checked(backend: str) -> None:
    """``dimensions`` goes along, and the reply must have it."""
    async with EmbeddingServer() as server:
        endpoint = Endpoint(server.url, "m", api_key=SecretStr(KEY), dimensions=32)
        one = (OpenAIEmbedder if backend == "openai" else OllamaEmbedder)(endpoint)
        assert (await one.embed(TEXTS)).vectors.shape == (3, 32)
        await one.aclose()


async def test_the_key_is_sent_as_a_bearer_token() -> None:
    """And a wrong one is refused."""
    async with EmbeddingServer(ServerOptions(api_key=KEY)) as server:
        one = embedder(server)
        await one.embed(TEXTS)
        await one.aclose()
        other = OpenAIEmbedder(Endpoint(server.url, "m", api_key=SecretStr("wrong")))
        with pytest.raises(AuthenticationError, match="ERA_EMBED_API_KEY"):
            await other.embed(TEXTS)
        await other.aclose()


async def test_a_backend_works_again_after_it_was_closed_even_in_another_loop() -> None:
    """Searches run one loop each."""
    async with EmbeddingServer() as server:
        one = embedder(server)
        await one.embed(TEXTS)
        await one.aclose()
        await one.aclose()

        async def again() -> None:
            await one.embed(TEXTS)
            await one.aclose()

        await asyncio.to_thread(asyncio.run, again())


async def test_credentials_in_the_url_appear_nowhere() -> None:
    """Some put the password into the URL."""
    one = OpenAIEmbedder(Endpoint("http://user:hunter2@127.0.0.1:9/v1?token=abcdef", "m"))
    with pytest.raises(UpstreamUnavailableError) as caught:
        await one.embed(["x"])
    await one.aclose()
    assert "hunter2" not in str(caught.value)
    assert "abcdef" not in str(caught.value)
    assert "hunter2" not in repr(one)


async def test_redirects_are_not_followed() -> None:
    """The key goes only where it was meant to go."""
    from aiohttp import web

    async def away(_: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "http://elsewhere.invalid/"})

    app = web.Application()
    app.router.add_post("/v1/embeddings", away)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one = OpenAIEmbedder(Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}", "m"))
    with pytest.raises(ConfigurationError, match="ERA_EMBED_URL"):
        await one.embed(["x"])
    await one.aclose()
    await runner.cleanup()


@pytest.mark.parametrize("fault", [Fault.INTERNAL, Fault.BAD_KEY, Fault.RESET, Fault.HANG, Fault.NOT_JSON])
async def test_a_password_in_the_url_is_sent_and_never_shown(fault: Fault) -> None:
    """It stands in no message and no repr; a key beside it is a mistake that is told at once."""
    async with EmbeddingServer(ServerOptions(rules=(Rule(fault),))) as server:
        url = server.url.replace("http://", "http://user:hunter-two@")
        one = OpenAIEmbedder(Endpoint(url, "m", timeout_s=0.1))
        with pytest.raises(EraError) as caught:
            await one.embed(["a"])
        await one.aclose()
        assert server.stats.requests == 1
    assert "hunter-two" not in f"{caught.value!r} {caught.value.__dict__} {one!r}"
    with pytest.raises(ConfigurationError, match="ERA_EMBED_API_KEY"):
        OpenAIEmbedder(Endpoint(url, "m", api_key=SecretStr("key")))
