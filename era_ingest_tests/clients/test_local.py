"""The local model: equal to its own library's results, whatever the neighbours in a batch."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from era_ingest.clients.local import LocalEmbedder, load_tokenizer
from era_ingest.clients.minilm import DIMENSIONS, MAX_TOKENS, read_safetensors
from era_ingest.clients.model_files import TOKENIZER_FILE, WEIGHTS_FILE, model_path
from era_ingest.errors import ConfigurationError, ModelNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TEXTS = [
    "A man is eating food.",
    "A man eats something.",
    "The girl carries a baby.",
    "Stock markets fell sharply on Monday after the central bank raised interest rates.",
    "x",
    "Ω 漢字 — naïve café, 3.14",
    "word " * 400,
]

Tensors = dict[str, "NDArray[np.float32]"]


@pytest.fixture(scope="module")
def local(models_dir: Path) -> LocalEmbedder:
    """The model in float32."""
    return LocalEmbedder(models_dir)


def _linear(x: NDArray[np.float64], tensors: Tensors, name: str) -> NDArray[np.float64]:
    return np.asarray(x @ tensors[f"{name}.weight"].T.astype(np.float64) + tensors[f"{name}.bias"])


def _norm(x: NDArray[np.float64], tensors: Tensors, name: str) -> NDArray[np.float64]:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return np.asarray(scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"])


def _bert(ids: list[int], tensors: Tensors) -> NDArray[np.float64]:
    """Return the sentence's vector by the textbook, one text, float64."""
    length, heads = len(ids), 12
    x = tensors["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    x += tensors["embeddings.position_embeddings.weight"][:length]
    x += tensors["embeddings.token_type_embeddings.weight"][0]
    x = _norm(x, tensors, "embeddings.LayerNorm")
    erf = np.vectorize(math.erf)
    for number in range(6):
        name = f"encoder.layer.{number}"
        q, k, v = (
            _linear(x, tensors, f"{name}.attention.self.{part}").reshape(length, heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        context = (shares @ v).swapaxes(0, 1).reshape(length, -1)
        attended = _linear(context, tensors, f"{name}.attention.output.dense")
        x = _norm(x + attended, tensors, f"{name}.attention.output.LayerNorm")
        inner = _linear(x, tensors, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = _norm(x + _linear(inner, tensors, f"{name}.output.dense"), tensors, f"{name}.output.LayerNorm")
    pooled = x.mean(0)
    return np.asarray(pooled / np.linalg.norm(pooled))


def test_the_graph_computes_what_the_textbook_says(local: LocalEmbedder, models_dir: Path) -> None:
    """BERT, mean over the tokens, length 1: computed anew in float64 from the same weights."""
    folder = model_path(models_dir)
    tensors = read_safetensors(folder / WEIGHTS_FILE)
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    vectors = local.compute(TEXTS).vectors
    for text, vector in zip(TEXTS[:6], vectors, strict=False):
        np.testing.assert_allclose(vector, _bert(tokenizer.encode(text).ids, tensors), atol=2e-6)


def test_the_vectors_of_the_model_card(local: LocalEmbedder) -> None:
    """The first numbers that sentence-transformers gives for the model card's example."""
    vectors = local.compute(["This is an example sentence", "Each sentence is converted"]).vectors
    np.testing.assert_allclose(vectors[0, :3], [0.0676569, 0.0634959, 0.0487131], atol=2e-6)
    np.testing.assert_allclose(vectors[1, :3], [0.0864386, 0.1027626, 0.0053945], atol=2e-6)


def test_vectors_have_length_one_and_do_not_depend_on_their_neighbours(local: LocalEmbedder) -> None:
    """Alone or in a batch, at any place."""
    together = local.compute(TEXTS).vectors
    assert together.shape == (len(TEXTS), DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    backwards = local.compute(TEXTS[::-1]).vectors[::-1]
    alone = np.concatenate([local.compute([text]).vectors for text in TEXTS])
    np.testing.assert_allclose(together, backwards, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_sentences_that_mean_the_same_are_nearer(local: LocalEmbedder) -> None:
    """Eating is nearer to eating than to carrying."""
    vectors = local.compute(TEXTS).vectors
    assert vectors[0] @ vectors[1] > 0.7
    assert vectors[0] @ vectors[2] < 0.3


def test_long_texts_are_cut_at_256_tokens(local: LocalEmbedder) -> None:
    """As sentence-transformers does: what comes after does not matter."""
    reply = local.compute(["word " * 400, "word " * 400 + "and something else entirely"])
    assert reply.tokens == 2 * MAX_TOKENS
    np.testing.assert_allclose(reply.vectors[0], reply.vectors[1], atol=1e-6)


def test_int8_is_near_to_float32_and_has_a_name_of_its_own(local: LocalEmbedder, models_dir: Path) -> None:
    """Cosine above 0.97 each, 0.985 on average; never mixed up with float32 in the database."""
    quantised = LocalEmbedder(models_dir, int8=True)
    cosines = (local.compute(TEXTS).vectors * quantised.compute(TEXTS).vectors).sum(1)
    assert cosines.min() > 0.97
    assert cosines.mean() > 0.985
    assert (local.name, quantised.name) == ("local/all-MiniLM-L6-v2", "local/all-MiniLM-L6-v2-int8")


async def test_the_event_loop_stays_free(local: LocalEmbedder) -> None:
    """While a batch is computed, other tasks run."""
    await local.embed(["warm"])
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()

    watching = asyncio.create_task(watch())
    started = time.monotonic()
    await local.embed(["a sentence of some length, " * 20] * 64)
    took = time.monotonic() - started
    watching.cancel()
    assert longest < max(0.25, took / 3)


async def test_it_works_again_after_it_was_closed(models_dir: Path) -> None:
    """Closing frees the model; a later request loads it anew."""
    local = LocalEmbedder(models_dir, cores=1)
    first = await local.embed(["again"])
    await local.aclose()
    await local.aclose()
    second = await local.embed(["again"])
    await local.aclose()
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_no_texts_no_vectors(local: LocalEmbedder) -> None:
    """An empty request is answered without loading anything."""
    assert local.compute([]).vectors.shape == (0, DIMENSIONS)


def test_a_missing_model_names_the_command_that_brings_it(tmp_path: Path) -> None:
    """At once, not at the first text."""
    with pytest.raises(ModelNotFoundError, match="`era models fetch`"):
        LocalEmbedder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 64, (7).to_bytes(8, "little") + b'{"a":1}'])
def test_a_damaged_file_is_a_matter_for_a_person(content: bytes, tmp_path: Path) -> None:
    """Cut short, not JSON, or with nonsense in its header."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="era models fetch"):
        read_safetensors(path)
