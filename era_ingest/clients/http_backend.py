"""What the backends over HTTP share: one request, its checks, and what its failure means."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import orjson

from era_ingest.clients.backend import Reply
from era_ingest.clients.failures import ServerMessage, build_failure, parse_message
from era_ingest.clients.headers import parse_hints
from era_ingest.clients.http import HttpClient
from era_ingest.clients.vectors import check_vectors, parse_vectors
from era_ingest.errors import EraError, ResponseMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic import SecretStr

    from era_ingest.core.limiter import ServerHints

REPLY_BYTES_PER_TEXT = 16_000 * 26
"""The largest vector that PostgreSQL could hold, as decimal numbers."""
REPLY_BYTES = 1 << 20
"""Room for the rest of a reply."""
MAX_REQUEST_BYTES = 4 << 20
"""Texts of one request, UTF-8 bytes; servers' own bounds begin at about 2 MB of JSON a few texts later."""
_OK = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to ask.

    Attributes:
        url: The server's root, as its own clients take it.
        model: The model's name on the server.
        api_key: Bearer token, or None.
        dimensions: Vector size to ask for; None: the model's own.
        timeout_s: Time limit of one request, seconds.
        batch_texts: Texts a request, at most.
    """

    url: str
    model: str
    api_key: SecretStr | None = None
    dimensions: int | None = None
    timeout_s: float = 60.0
    batch_texts: int = 128

    @property
    def limit_key(self) -> str:
        """A name for what a server limits: endpoint, model and account together, as a SHA-256 in hex."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        return hashlib.sha256(orjson.dumps([self.url, self.model, key])).hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """The parts of a good reply.

    Attributes:
        rows: One item a text, in the order of the texts: base64 or numbers.
        tokens: Tokens that the server counted, or None.
    """

    rows: Sequence[object]
    tokens: int | None


class HttpEmbedder(ABC):
    """One model on one server. Implements ``Embedder``.

    Args:
        endpoint: Where and as whom to ask.
        wall_clock: Seconds since 1970, for dates in headers.
    """

    backend: ClassVar[str]
    texts_bound: ClassVar[int]
    """Texts that the protocol allows in one request."""
    tokens_bound: ClassVar[float]
    """Tokens that the protocol allows in one request, less a margin for the estimate."""

    def __init__(self, endpoint: Endpoint, *, wall_clock: Callable[[], float] = time.time) -> None:
        self.endpoint = endpoint
        suffix = f"@{endpoint.dimensions}" if endpoint.dimensions else ""
        self.name = f"{self.backend}/{endpoint.model}{suffix}"
        self.dimensions: int | None = endpoint.dimensions
        self.max_batch_texts = min(endpoint.batch_texts, self.texts_bound)
        self.max_batch_tokens = self.tokens_bound
        self.max_batch_bytes: float = MAX_REQUEST_BYTES
        self._wall_clock = wall_clock
        self._http = HttpClient(
            self.build_url(endpoint.url), api_key=endpoint.api_key, timeout_s=endpoint.timeout_s
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._http.shown_url!r})"

    async def embed(self, texts: Sequence[str]) -> Reply:
        """Return the vectors of the texts; see ``Embedder.embed``."""
        bound = REPLY_BYTES + REPLY_BYTES_PER_TEXT * len(texts)
        with self._naming_itself():
            reply = await self._http.post(orjson.dumps(self.build_payload(texts)), max_reply_bytes=bound)
        hints = parse_hints(reply.headers, now_epoch_s=self._wall_clock())
        if reply.status != _OK:
            message = parse_message(self._http.redact(reply.body.decode("utf-8", "replace")).encode())
            raise self.build_failure(reply.status, message, hints)
        try:
            document = self.parse_document(orjson.loads(reply.body), len(texts))
        except orjson.JSONDecodeError:
            raise ResponseMismatchError(f"{self.where} answered 200 with what is no JSON.") from None
        with self._naming_itself():
            vectors = check_vectors(
                parse_vectors(document.rows), count=len(texts), dimensions=self.dimensions
            )
        return Reply(vectors, document.tokens, hints)

    async def aclose(self) -> None:
        """Close the connections; a later request opens new ones."""
        await self._http.aclose()

    @contextmanager
    def _naming_itself(self) -> Iterator[None]:
        """Say of a reply that is not what was asked for whose it is."""
        try:
            yield
        except ResponseMismatchError as error:
            raise ResponseMismatchError(f"{self.where}: {error.message}") from None

    @property
    def where(self) -> str:
        """The server's kind and URL, for messages."""
        return f"The {self.backend} server at {self._http.shown_url}"

    def build_failure(self, status: int, message: ServerMessage, hints: ServerHints) -> EraError:
        """Return the error that a status stands for; backends with a dialect of their own override this."""
        return build_failure(status, message, hints, where=self.where)

    @classmethod
    @abstractmethod
    def build_url(cls, root: str) -> str:
        """Return the URL of the embedding call.

        Raises:
            ConfigurationError: ``root`` is no http(s) URL.
        """

    @abstractmethod
    def build_payload(self, texts: Sequence[str]) -> dict[str, object]:
        """Return the request's body."""

    @abstractmethod
    def parse_document(self, document: object, count: int) -> Document:
        """Return the parts of a good reply to ``count`` texts.

        Raises:
            ResponseMismatchError: It is not what the protocol says.
        """


def parse_count(value: object) -> int | None:
    """Return a count that a server reports, or None if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
