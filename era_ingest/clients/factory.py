"""Backends and limiters from the settings."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from era_ingest.clients import ollama, openai
from era_ingest.clients.hashing import DEFAULT_DIMENSIONS, HashingEmbedder
from era_ingest.clients.http_backend import Endpoint
from era_ingest.clients.local import MODEL, LocalEmbedder
from era_ingest.clients.minilm import DIMENSIONS
from era_ingest.errors import ConfigurationError
from era_ingest.settings import EmbedderKind

if TYPE_CHECKING:
    from era_ingest.clients.backend import Embedder
    from era_ingest.core.limiter import Limiter
    from era_ingest.settings import Settings

IN_PROCESS = frozenset({EmbedderKind.LOCAL, EmbedderKind.HASHING})
IN_PROCESS_REQUESTS = 2
"""One request computes on all cores; a second is ready when it ends."""
IN_PROCESS_BATCH_TEXTS = 128
_NETWORK = {
    EmbedderKind.OPENAI: (openai.OpenAIEmbedder, openai.DEFAULT_URL, openai.DEFAULT_MODEL),
    EmbedderKind.OLLAMA: (ollama.OllamaEmbedder, ollama.DEFAULT_URL, ollama.DEFAULT_MODEL),
}


def build_embedder(settings: Settings) -> Embedder:
    """Return the backend that the settings name; nothing is connected or loaded yet.

    Raises:
        ModelNotFoundError: The local model is not fetched yet.
        ConfigurationError: The settings do not fit together.
    """
    if settings.embedder is EmbedderKind.HASHING:
        dimensions = settings.embed_dimensions or DEFAULT_DIMENSIONS
        return HashingEmbedder(dimensions, batch_texts=_batch_texts(settings))
    if settings.embedder is EmbedderKind.LOCAL:
        _check_local(settings)
        return LocalEmbedder(
            settings.models_location, int8=settings.embed_int8, batch_texts=_batch_texts(settings)
        )
    build, default_url, default_model = _NETWORK[settings.embedder]
    return build(
        Endpoint(
            url=settings.embed_url or default_url,
            model=settings.embed_model or default_model,
            api_key=settings.embed_api_key,
            dimensions=settings.embed_dimensions,
            timeout_s=settings.embed_timeout_s,
            batch_texts=settings.batch_texts,
        )
    )


def build_embedder_for(settings: Settings, name: str) -> Embedder:
    """Return the backend of a model by its identity, such as ``hashing/768``, to search what it built.

    The endpoint and the key come from the settings, if these name the same kind of server.

    Raises:
        ModelNotFoundError: It is the local model, and not fetched yet.
        ConfigurationError: The identity is none, or the settings name a server of another kind.
    """
    backend, _, model = name.partition("/")
    plain, _, dimensions = model.partition("@")
    try:
        kind = EmbedderKind(backend)
        if kind is EmbedderKind.HASHING:
            return HashingEmbedder(int(plain))
        size = int(dimensions) if dimensions else None
    except ValueError:
        raise ConfigurationError(f"There is no backend for the model {name[:80]!r}.") from None
    if kind is EmbedderKind.LOCAL:
        return LocalEmbedder(settings.models_location, int8=plain == f"{MODEL}-int8")
    url = settings.embed_url if settings.embedder is kind else None
    key = settings.embed_api_key if settings.embedder is kind else None
    changes = {"embedder": kind, "embed_url": url, "embed_api_key": key}
    return build_embedder(
        settings.model_copy(update={**changes, "embed_model": plain, "embed_dimensions": size})
    )


def build_limiter(settings: Settings, *, rng: random.Random | None = None) -> Limiter:
    """Return the controller that the settings name; in-process backends always get a fixed one.

    Args:
        settings: ``embed_controller``, ``embed_concurrency``, and the preset's bound of requests in flight.
        rng: Randomness of the adaptive controller's probes.
    """
    # what a command that sends nothing need not wait for
    from era_ingest.core.limiter.adaptive import AdaptiveLimiter
    from era_ingest.core.limiter.aimd import Aimd
    from era_ingest.core.limiter.fixed import FixedLimiter
    from era_ingest.core.limiter.latency_rule import LatencyRule
    from era_ingest.core.limiter.level import Bounds

    if settings.embedder in IN_PROCESS:
        return FixedLimiter(IN_PROCESS_REQUESTS)
    most = settings.bounds.max_in_flight
    match settings.embed_controller:
        case "adaptive":
            uniform = (rng or random.Random()).random  # noqa: S311 - jitter, no secret
            return AdaptiveLimiter(uniform=uniform, bounds=Bounds(most=most))
        case "latency":
            return LatencyRule()
        case "aimd":
            return Aimd()
        case "fixed":
            return FixedLimiter(min(settings.embed_concurrency, most))


def _batch_texts(settings: Settings) -> int:
    """Return the texts a request of an in-process backend: many, since the model sorts them by length."""
    return settings.embed_batch_texts or IN_PROCESS_BATCH_TEXTS


def _check_local(settings: Settings) -> None:
    if settings.embed_model not in {None, MODEL}:
        raise ConfigurationError(
            f"ERA_EMBEDDER=local runs {MODEL} only: unset ERA_EMBED_MODEL, or set ERA_EMBEDDER."
        )
    if settings.embed_dimensions not in {None, DIMENSIONS}:
        raise ConfigurationError(
            f"{MODEL} has {DIMENSIONS} dimensions: unset ERA_EMBED_DIMENSIONS, or set ERA_EMBEDDER."
        )
