"""What a backend is: something that turns a few texts into vectors in one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from era_ingest.core.limiter import NO_HINTS, ServerHints

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request.

    Attributes:
        vectors: float32 of shape (texts, dimensions), rows of length 1, in the order of the texts.
        tokens: Tokens as the server counted them; None where it did not say.
        hints: What the reply's headers say about the server's limits.
    """

    vectors: NDArray[np.float32]
    tokens: int | None = None
    hints: ServerHints = NO_HINTS


class Embedder(Protocol):
    """A backend.

    Attributes:
        name: The model's identity in the database, such as ``openai/text-embedding-3-small@512``.
        dimensions: Length of a vector that replies are held to; None: any. Whoever finds it out sets it.
        max_batch_texts: Texts that one request may carry, >= 1.
        max_batch_tokens: Estimated tokens that one request may carry.
        max_batch_bytes: UTF-8 bytes of text that one request may carry.
    """

    name: str
    dimensions: int | None
    max_batch_texts: int
    max_batch_tokens: float
    max_batch_bytes: float

    @property
    def backend(self) -> str:
        """``local``, ``ollama``, ``openai`` or ``hashing``."""
        ...

    async def embed(self, texts: Sequence[str]) -> Reply:
        """Return the vectors of at least one text, each not empty.

        Raises:
            TransientError: Trying again later can help.
            RequestRejectedError: These texts are refused; fewer, or others, may pass.
            ResponseMismatchError: A reply with a wrong count, size or value.
            ConfigurationError: A person must mend something; nothing else will be answered either.
        """
        ...

    async def aclose(self) -> None:
        """Release connections and threads; a second call does nothing."""
        ...
