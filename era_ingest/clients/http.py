"""POST of JSON with bounds: on time, on the reply's size, and on what a compressed reply may unpack to.

aiohttp is imported with the first request: a run that has nothing to embed does without it (0.1 s).
"""

from __future__ import annotations

import urllib.request
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarl import URL

from era_ingest.core.redaction import Redactor
from era_ingest.errors import (
    ConfigurationError,
    EraError,
    ResponseMismatchError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp
    from pydantic import SecretStr

KEEP_ALIVE_S = 4.0
"""Idle connections are dropped before servers drop them (many do after 5 s)."""
CONNECT_TIMEOUT_S = 10.0
MAX_ERROR_BYTES = 8192
"""No more of an error's body is read, packed or unpacked."""
_OK = 200


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply.

    Attributes:
        status: HTTP status.
        headers: Its headers, case-insensitive.
        body: Its unpacked body; of an error only the first ``MAX_ERROR_BYTES``.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """A pool of connections to one server, used from one event loop at a time.

    How many requests run at once is the caller's business; the pool has no bound of its own.

    Args:
        url: Where requests go.
        api_key: Bearer token; appears in no message, log or ``repr``.
        timeout_s: Time limit of one request, from its start to the reply's last byte, seconds.

    Raises:
        ConfigurationError: The URL is none, or holds a user while there is a key: a request can be sent as one only.
    """

    def __init__(self, url: str, *, api_key: SecretStr | None, timeout_s: float) -> None:
        self._url = parse_url(url)
        if self._url.user is not None and api_key is not None:
            raise ConfigurationError(
                "ERA_EMBED_URL holds a user, and ERA_EMBED_API_KEY is set: a request carries one of them. Remove one."
            )
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._redactor = Redactor([api_key.get_secret_value() if api_key else None, self._url.password])
        self._proxy = _proxy_for(self._url)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpClient({self.shown_url!r})"

    @property
    def shown_url(self) -> str:
        """The URL without user, password and query: fit for messages."""
        return str(self._url.with_user(None).with_query(None).with_fragment(None))

    def redact(self, text: str) -> str:
        """Return the text without the secrets that this client knows (servers echo them)."""
        return self._redactor.redact(text)

    async def post(self, payload: bytes, *, max_reply_bytes: int) -> HttpReply:
        """Send JSON and return the reply, whatever its status.

        Args:
            payload: The request's body.
            max_reply_bytes: Bound of a good reply's body, unpacked.

        Raises:
            UpstreamTimeoutError: No whole reply in time.
            UpstreamUnavailableError: Refused, reset, or closed before the reply was whole.
            ResponseMismatchError: The reply is larger than ``max_reply_bytes``.
            ConfigurationError: The URL or the server's certificate cannot be used.
        """
        import aiohttp

        failure: EraError
        try:
            async with self._open_session().post(
                self._url, data=payload, allow_redirects=False, proxy=self._proxy
            ) as response:
                good = response.status == _OK
                bound = max_reply_bytes if good else MAX_ERROR_BYTES
                body = await _read(response, bound, cut=not good)
                return HttpReply(response.status, response.headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError, zlib.error) as error:
            failure = self._explain(error)
        # Raised out here, without context: aiohttp's errors hold the request's headers, and so the key.
        raise failure

    async def aclose(self) -> None:
        """Close all connections; a later ``post`` opens new ones, in whatever loop it runs in."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self._api_key is not None:
                headers["Authorization"] = f"Bearer {self._api_key.get_secret_value()}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=60),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_TIMEOUT_S),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    def _explain(self, error: Exception) -> EraError:
        """Return what a failure to get a reply means."""
        import aiohttp

        where = f"The embedding server at {self.shown_url}"
        if isinstance(error, TimeoutError):
            return UpstreamTimeoutError(
                f"{where} gave no whole answer within {self._timeout_s:g} s (ERA_EMBED_TIMEOUT_S)."
            )
        said = self.redact(f"{type(error).__name__}: {error}")[:200]
        if isinstance(error, (aiohttp.InvalidURL, aiohttp.ClientSSLError)):
            return ConfigurationError(f"{where} cannot be used ({said}). Check ERA_EMBED_URL.")
        if isinstance(error, aiohttp.ClientConnectorError):
            return UpstreamUnavailableError(
                f"{where} cannot be reached ({said}). Is it running? Check ERA_EMBED_URL."
            )
        return UpstreamUnavailableError(f"{where} broke off ({said}).")


def parse_url(text: str) -> URL:
    """Return an absolute http(s) URL; ``host:port`` alone is taken as http.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        url = URL(text.strip() if "://" in text else f"http://{text.strip()}")
    except (ValueError, TypeError):
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(
            "ERA_EMBED_URL is no http(s) URL of a server's root, such as http://localhost:11434."
        )
    return url


async def _read(response: aiohttp.ClientResponse, bound: int, *, cut: bool) -> bytes:
    """Return the body, unpacked; what exceeds ``bound`` bytes is cut off, or refused."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    unpack = _Unpacker(encoding) if encoding not in {"", "identity"} else None
    parts: list[bytes] = []
    size = 0
    async for raw in response.content.iter_any():
        part = unpack(raw, bound + 1 - size) if unpack else raw
        parts.append(part)
        size += len(part)
        if size > bound:
            response.close()
            if not cut:
                raise ResponseMismatchError(f"The reply is larger than {bound:,} bytes.")
            break
    return b"".join(parts)[:bound]


class _Unpacker:
    """Unpacks gzip or deflate, never more than was asked for (a few kB can unpack to gigabytes)."""

    def __init__(self, encoding: str) -> None:
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise ResponseMismatchError("The reply is packed in a way nobody asked for.")
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def __call__(self, raw: bytes, most: int) -> bytes:
        return self._zlib.decompress(raw, max(1, most))


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment asks for (``HTTPS_PROXY``, ``NO_PROXY``), as other clients do."""
    host = url.host or ""
    if urllib.request.proxy_bypass(host) or host in {"localhost", "127.0.0.1", "::1"}:
        return None
    return urllib.request.getproxies().get(url.scheme)
