"""Backend ``local``: all-MiniLM-L6-v2 in this process, by onnxruntime; no server, no torch.

Texts are cut at 256 tokens, sorted by length and run eight at a time, so that little is padded; each core
runs batches of its own. The event loop stays free. In int8 the activations of a run of eight are quantised
together, so that a vector depends a little on its neighbours (cosine to float32: 0.992).
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from era_ingest.clients.backend import Reply
from era_ingest.clients.minilm import DIMENSIONS, MAX_TOKENS, Session, load_session
from era_ingest.clients.model_files import TOKENIZER_FILE, WEIGHTS_FILE, model_path
from era_ingest.clients.vectors import check_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer

MODEL = "all-MiniLM-L6-v2"
RUN_TEXTS = 8
"""Texts a run on the CPU: more only pad more."""
GPU_RUN_TEXTS = 128


class LocalEmbedder:
    """Runs the model in threads. Implements ``Embedder``. The model is loaded at the first request.

    Args:
        models_dir: Where ``era models fetch`` put it.
        int8: Quantised: about 1.5 times as fast on AVX2, twice with VNNI.
        batch_texts: Texts a request, at most; more are sorted better.
        cores: Threads; None: as many as this process may use.

    Raises:
        ModelNotFoundError: The model is not there; the message names the command that brings it.
    """

    backend: ClassVar[str] = "local"

    def __init__(
        self, models_dir: Path, *, int8: bool = False, batch_texts: int = 256, cores: int | None = None
    ) -> None:
        self._folder = model_path(models_dir)
        self._int8 = int8
        self._cores = cores or available_cores()
        self._loading = threading.Lock()
        self._loaded: tuple[Session, Tokenizer] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.name = f"local/{MODEL}" + ("-int8" if int8 else "")
        self.dimensions: int | None = DIMENSIONS
        self.max_batch_texts = batch_texts
        self.max_batch_tokens = float("inf")
        self.max_batch_bytes: float = 4 << 20

    async def embed(self, texts: Sequence[str]) -> Reply:
        """Return the vectors of the texts; see ``Embedder.embed``."""
        return await asyncio.to_thread(self.compute, texts)

    async def aclose(self) -> None:
        """Forget the model and end the threads; a later request loads it anew."""
        pool, self._pool, self._loaded = self._pool, None, None
        if pool is not None:
            pool.shutdown(
                wait=False
            )  # idle threads end by themselves; a process at its end allows no waiting thread

    def compute(self, texts: Sequence[str]) -> Reply:
        """Return the vectors of the texts and the number of tokens that the model saw.

        Raises:
            ConfigurationError: The model's files are damaged.
        """
        if not texts:
            return Reply(np.empty((0, DIMENSIONS), np.float32), 0)
        session, tokenizer, pool = self._open()
        encodings = tokenizer.encode_batch_fast(list(texts))
        lengths = [len(encoding) for encoding in encodings]
        order = sorted(range(len(texts)), key=lengths.__getitem__, reverse=True)
        size = GPU_RUN_TEXTS if session.on_gpu else RUN_TEXTS
        runs = [order[start : start + size] for start in range(0, len(order), size)]
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        done = pool.map(lambda places: _run(session, [encodings[place] for place in places]), runs)
        for places, part in zip(runs, done, strict=True):
            vectors[places] = part
        return Reply(check_vectors(vectors, count=len(texts), dimensions=DIMENSIONS), sum(lengths))

    def _open(self) -> tuple[Session, Tokenizer, ThreadPoolExecutor]:
        with self._loading:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._cores, thread_name_prefix="minilm")
            if self._loaded is None:
                session = load_session(self._folder / WEIGHTS_FILE, int8=self._int8, threads=1)
                self._loaded = session, load_tokenizer(self._folder / TOKENIZER_FILE)
            return *self._loaded, self._pool


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer, cutting at ``MAX_TOKENS`` and without padding (its file says 128 for both)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def available_cores() -> int:
    """Return the cores that this process may use, >= 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run(session: Session, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
    """Run the model once; float32 of shape (texts, 384)."""
    longest = max(map(len, encodings))
    ids = np.zeros((len(encodings), longest), np.int64)
    mask = np.zeros((len(encodings), longest), np.int32)
    for row, encoding in enumerate(encodings):
        length = len(encoding)
        ids[row, :length] = encoding.ids
        mask[row, :length] = 1
    vectors: NDArray[np.float32] = session.run.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return vectors
