"""Backend ``ollama``: an Ollama server's ``POST /api/embed``.

Protocol (github.com/ollama/ollama: api/types.go, server/routes.go, docs/faq): all or nothing a request;
errors are ``{"error": "..."}``; a model that is not pulled is 404; a full queue is 503 "server busy", never
429. It serves one request at a time by default. ``truncate`` is left on, as the models' own library does: a
text beyond the model's context is embedded by its beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from era_ingest.clients.http import parse_url
from era_ingest.clients.http_backend import Document, HttpEmbedder, parse_count
from era_ingest.errors import EraError, ModelNotFoundError, RateLimitedError, ResponseMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.clients.failures import ServerMessage
    from era_ingest.core.limiter import ServerHints

DEFAULT_URL = "http://localhost:11434"
DEFAULT_MODEL = "nomic-embed-text"
_NOT_FOUND = 404
_UNAVAILABLE = 503


class OllamaEmbedder(HttpEmbedder):
    """Embeds over ``POST /api/embed``. Implements ``Embedder``."""

    backend: ClassVar[str] = "ollama"
    texts_bound: ClassVar[int] = 2048
    tokens_bound: ClassVar[float] = float("inf")

    @classmethod
    def build_url(cls, root: str) -> str:
        """Return the URL of the call; the root may end in a slash, ``/v1``, ``/api`` or neither."""
        url = parse_url(root)
        path = url.path.rstrip("/").removesuffix("/embed").removesuffix("/api").removesuffix("/v1")
        return str(url.with_path(path + "/api/embed", keep_query=True))

    def build_payload(self, texts: Sequence[str]) -> dict[str, object]:
        """Return the request's body."""
        payload: dict[str, object] = {
            "model": self.endpoint.model,
            "input": list(texts),
            "truncate": True,
        }
        if self.endpoint.dimensions:
            payload["dimensions"] = self.endpoint.dimensions
        return payload

    def parse_document(self, document: object, count: int) -> Document:
        """Return the reply's ``embeddings``, which are in the order of the texts."""
        rows = document.get("embeddings") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(rows, list):
            raise ResponseMismatchError(f"{self.where} answered 200 without a list under `embeddings`.")
        if len(rows) != count:
            raise ResponseMismatchError(f"{self.where} answered with {len(rows)} vectors for {count} texts.")
        return Document(rows, parse_count(document.get("prompt_eval_count")))

    def build_failure(self, status: int, message: ServerMessage, hints: ServerHints) -> EraError:
        """Return the error that a status stands for; a full queue is flow control, not an outage."""
        if status == _UNAVAILABLE and "busy" in message.text.lower():
            return RateLimitedError(
                f"{self.where} is busy: {message.text}", retry_after_s=hints.retry_after_s, hints=hints
            )
        if status == _NOT_FOUND and "model" in message.text.lower():
            return ModelNotFoundError(
                f"{self.where} answered 404: {message.text} Run `ollama pull {self.endpoint.model}`."
            )
        return super().build_failure(status, message, hints)
