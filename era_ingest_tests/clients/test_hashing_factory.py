"""The hashing backend, and building backends from settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.clients.factory import build_embedder, build_embedder_for, build_limiter
from era_ingest.clients.hashing import HashingEmbedder
from era_ingest.clients.local import LocalEmbedder
from era_ingest.clients.ollama import OllamaEmbedder
from era_ingest.clients.openai import OpenAIEmbedder
from era_ingest.errors import ConfigurationError, ModelNotFoundError
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from era_ingest.settings import Settings

ANY = HashingEmbedder(64)


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_every_text_has_a_vector_of_length_one_that_depends_on_nothing_else(texts: list[str]) -> None:
    """To the bit, whatever the neighbours and whatever was seen before; empty and odd texts too."""
    together = ANY.compute(texts)
    assert together.shape == (len(texts), 64)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(together[row], HashingEmbedder(64).compute([text])[0])


def test_texts_that_share_words_are_near_and_stop_words_do_not_count() -> None:
    """Case and stop words change nothing; other forms of a word stay near by their letters."""
    vectors = HashingEmbedder().compute(
        [
            "Patience is the companion of wisdom",
            "the companion of WISDOM: patience",
            "wise companions are patient",
            "Boil the water and add salt",
        ]
    )
    assert vectors[0] @ vectors[1] == pytest.approx(1.0)
    assert vectors[0] @ vectors[2] > 0.25
    assert abs(vectors[0] @ vectors[3]) < 0.15


def test_a_vector_never_changes_between_versions() -> None:
    """The identity hashing/768 stands for these numbers."""
    vector = HashingEmbedder().compute(["art of war"])[0]
    places = np.flatnonzero(vector).tolist()
    assert places == [123, 188, 244, 384, 476, 525]
    np.testing.assert_allclose(np.abs(vector[places]), 1 / math.sqrt(6), atol=1e-6)


def _settings(**changes: object) -> Settings:
    return load_settings(**changes)


def test_backends_are_built_as_the_settings_say() -> None:
    """Kind, model, address, key and sizes."""
    ollama = build_embedder(_settings(embedder="ollama"))
    assert isinstance(ollama, OllamaEmbedder)
    assert (ollama.name, ollama.endpoint.url) == ("ollama/nomic-embed-text", "http://localhost:11434")
    openai = build_embedder(
        _settings(
            embedder="openai", embed_model="m", embed_dimensions=7, embed_api_key="k", embed_url="http://h"
        )
    )
    assert isinstance(openai, OpenAIEmbedder)
    assert (openai.name, openai.dimensions, openai.max_batch_texts) == ("openai/m@7", 7, 128)
    hashing = build_embedder(_settings(embedder="hashing", embed_batch_texts=9))
    assert (hashing.name, hashing.backend, hashing.max_batch_texts) == ("hashing/768", "hashing", 9)


def test_settings_that_do_not_fit_the_local_model_are_refused(tmp_path: Path) -> None:
    """Another model, another size, or no model fetched."""
    for changes in ({"embed_model": "bge-m3"}, {"embed_dimensions": 768}):
        with pytest.raises(ConfigurationError, match="ERA_EMBED_"):
            build_embedder(_settings(embedder="local", models_dir=tmp_path, **changes))
    with pytest.raises(ModelNotFoundError):
        build_embedder(_settings(embedder="local", models_dir=tmp_path))


def test_a_backend_is_found_again_by_the_name_of_its_model(models_dir: Path) -> None:
    """For searching a table that another backend built; keys go only to the server they belong to."""
    settings = _settings(embedder="openai", embed_api_key="k", embed_url="http://h", models_dir=models_dir)
    for name in ("hashing/64", "local/all-MiniLM-L6-v2", "local/all-MiniLM-L6-v2-int8", "openai/a/b@512"):
        assert build_embedder_for(settings, name).name == name
    assert isinstance(build_embedder_for(settings, "local/all-MiniLM-L6-v2"), LocalEmbedder)
    ollama = build_embedder_for(settings, "ollama/nomic-embed-text:v1.5")
    assert isinstance(ollama, OllamaEmbedder)
    assert (ollama.endpoint.api_key, ollama.endpoint.url) == (None, "http://localhost:11434")
    for name in ("", "bert/x", "hashing/many", "openai/x@y"):
        with pytest.raises(ConfigurationError, match="no backend"):
            build_embedder_for(settings, name)


def test_the_limiter_is_bounded_by_setting_and_preset() -> None:
    """A fixed one allows what is set, the preset's bound at most; two for models in this process."""
    assert build_limiter(_settings(embedder="openai", embed_controller="fixed")).state(0).limit == 8
    wide = _settings(embedder="openai", embed_controller="fixed", embed_concurrency=500, preset="local")
    assert build_limiter(wide).state(0).limit == 16
    assert build_limiter(_settings(embedder="hashing")).state(0).limit == 2


@pytest.mark.parametrize("controller", ["adaptive", "latency", "aimd", "fixed"])
def test_each_controller_that_the_settings_name_can_be_built(controller: str) -> None:
    """And lets a first request go."""
    limiter = build_limiter(_settings(embedder="openai", embed_controller=controller))
    assert limiter.gate(0.0, 10.0) == 0.0
