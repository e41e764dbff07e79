"""The weights of all-MiniLM-L6-v2, from its safetensors file into the shipped graph.

A safetensors file is 8 bytes with the length of a JSON header (little-endian), the header (name -> dtype,
shape, offsets), and the tensors (https://huggingface.co/docs/safetensors). It is mapped, not read: the
table of words stays in the page cache, shared between processes.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import orjson

from era_ingest.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime
    from numpy.typing import NDArray

DIMENSIONS = 384
MAX_TOKENS = 256
"""Longer texts are cut, as sentence-transformers does for this model."""
_LAYERS = 6
_INT8_MOST = 63.0
"""Seven bits: with eight, AVX2 (no VNNI) would saturate its 16-bit sums of two products."""
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_MATRICES = {
    "attended": "attention.output.dense",
    "inner": "intermediate.dense",
    "outer": "output.dense",
}
_NORMS = {"norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded model.

    Attributes:
        run: The onnxruntime session.
        weights: What it refers to; must live as long.
        on_gpu: True if it runs on CUDA.
    """

    run: onnxruntime.InferenceSession
    weights: dict[str, NDArray[np.generic]]
    on_gpu: bool


def load_session(weights_file: Path, *, int8: bool, threads: int) -> Session:
    """Load the model.

    Args:
        weights_file: ``model.safetensors``, verified.
        int8: Quantise the matrices to 7 bits, a scale a column; activations are quantised as they come.
        threads: Threads of one run on the CPU, >= 1.

    Raises:
        ConfigurationError: The file is no such model.
    """
    import onnxruntime

    tensors = read_safetensors(weights_file)
    weights = _Arranger(tensors, int8=int8).all()
    release_pages(tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers(list(weights), values)
    name = "minilm-int8.onnx" if int8 else "minilm.onnx"
    graph = resources.files("era_ingest.clients").joinpath(name).read_bytes()
    offered = [one for one in _PROVIDERS if one in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(graph, options, providers=offered)
    release_pages(tensors)
    return Session(session, weights, "CUDAExecutionProvider" in session.get_providers())


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the float32 tensors of a file, mapped read-only.

    Raises:
        ConfigurationError: The file is none, or is cut short.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header_bytes = int.from_bytes(mapped[:8], "little")
        header = orjson.loads(mapped[8 : 8 + header_bytes])
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] != "F32":
                continue
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(mapped, "<f4", count=(end - begin) // 4, offset=8 + header_bytes + begin)
            tensors[name] = flat.reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is no safetensors file ({type(error).__name__}). Delete it and run `era models fetch`."
        ) from error
    return tensors


def release_pages(tensors: dict[str, NDArray[np.float32]]) -> None:
    """Let the pages of the mapped file go (86 MB); those used again come back from the page cache."""
    base: object = next(iter(tensors.values()), None)
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


class _Arranger:
    """Brings the tensors into the shapes and names of the graph (tools/build_minilm_graph.py)."""

    def __init__(self, tensors: dict[str, NDArray[np.float32]], *, int8: bool) -> None:
        self._tensors = tensors
        self._int8 = int8
        self._weights: dict[str, NDArray[np.generic]] = {}

    def all(self) -> dict[str, NDArray[np.generic]]:
        """Return all weights by the graph's names, each contiguous."""
        tensors = self._tensors
        try:
            types = tensors["embeddings.token_type_embeddings.weight"]
            self._weights["words"] = tensors["embeddings.word_embeddings.weight"]
            self._weights["places"] = tensors["embeddings.position_embeddings.weight"][:MAX_TOKENS] + types[0]
            self._norm("norm", "embeddings.LayerNorm")
            for number in range(_LAYERS):
                self._layer(f"layer{number}", f"encoder.layer.{number}")
        except KeyError as error:
            raise ConfigurationError(f"The local model's file lacks the tensor {error}.") from error
        return self._weights

    def _layer(self, name: str, source: str) -> None:
        parts = [f"{source}.attention.self.{part}" for part in ("query", "key", "value")]
        self._matrix(f"{name}.qkv", np.concatenate([self._tensors[f"{part}.weight"] for part in parts]))
        self._weights[f"{name}.qkv.bias"] = np.concatenate([self._tensors[f"{part}.bias"] for part in parts])
        for mine, theirs in _MATRICES.items():
            self._matrix(f"{name}.{mine}", self._tensors[f"{source}.{theirs}.weight"])
            self._weights[f"{name}.{mine}.bias"] = self._tensors[f"{source}.{theirs}.bias"]
        for mine, theirs in _NORMS.items():
            self._norm(f"{name}.{mine}", f"{source}.{theirs}")

    def _norm(self, name: str, source: str) -> None:
        for part in ("weight", "bias"):
            self._weights[f"{name}.{part}"] = self._tensors[f"{source}.{part}"]

    def _matrix(self, name: str, matrix: NDArray[np.float32]) -> None:
        """Store a matrix of shape (out, in) as (in, out), quantised where asked for."""
        turned = np.ascontiguousarray(matrix.T)
        if not self._int8:
            self._weights[f"{name}.weight"] = turned
            return
        scale = (np.abs(turned).max(axis=0) / _INT8_MOST).astype(np.float32)
        self._weights[f"{name}.scale"] = scale
        self._weights[f"{name}.weight"] = np.rint(turned / scale).astype(np.int8)
