"""The writer of vectors: commits finished requests, several at once when they come faster than one commit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from era_ingest.errors import EraError
from era_ingest.pipelines.retrying import retry_transient
from era_ingest.store import embeddings, models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from era_ingest.store.database import Database
    from era_ingest.store.models import Model

_MAX_GROUP_TEXTS = 4096


@dataclass(slots=True)
class _Finished:
    hashes: Sequence[bytes]
    vectors: NDArray[np.float32]
    committed: asyncio.Future[None]


class VectorWriter:
    """Commits vectors to the embedding store in the order they arrive.

    ``commit`` returns once its vectors are durable. While one transaction is on its way the next finished
    requests gather, and go together (group commit), at most 4,096 texts a transaction. The queue holds no
    more than the requests that the client has in flight, since each waits for its own commit.

    Args:
        database: Where the store is.
        name: Identity of the model.
        backend: Its backend.
        model: The model, if the database knows it already.
    """

    def __init__(self, database: Database, *, name: str, backend: str, model: Model | None) -> None:
        self._database = database
        self._name = name
        self._backend = backend
        self._queue: asyncio.Queue[_Finished] = asyncio.Queue()
        self.model = model
        self.busy_s = 0.0

    async def commit(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Store the vectors of one finished request; return when they are durable.

        Args:
            hashes: Content hashes, one a row of ``vectors``.
            vectors: float32 of shape (n, dimensions), unit length.
        """
        finished = _Finished(hashes, vectors, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(finished)
        await finished.committed

    async def run(self) -> None:
        """Commit what arrives, until cancelled; an error ends it and is raised to everyone who waits."""
        group: list[_Finished] = []
        try:
            while True:
                group = await self._next_group()
                started = asyncio.get_running_loop().time()
                await retry_transient(partial(self._store, group))
                self.busy_s += asyncio.get_running_loop().time() - started
                for finished in group:
                    if not finished.committed.done():
                        finished.committed.set_result(None)
        except EraError as error:
            for finished in [*group, *self._drain()]:
                if not finished.committed.done():
                    finished.committed.set_exception(error)
            raise

    async def _next_group(self) -> list[_Finished]:
        """Wait for one finished request; take along what else is there, up to a bound."""
        group = [await self._queue.get()]
        texts = len(group[0].hashes)
        while not self._queue.empty() and texts < _MAX_GROUP_TEXTS:
            group.append(self._queue.get_nowait())
            texts += len(group[-1].hashes)
        return group

    def _drain(self) -> list[_Finished]:
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]

    async def ensure_model(self, dimensions: int) -> Model:
        """Register the model on first use; return it."""
        if self.model is None:
            async with self._database.connection() as conn:
                self.model = await models.ensure_model(
                    conn, name=self._name, backend=self._backend, dimensions=dimensions
                )
        return self.model

    async def _store(self, group: list[_Finished]) -> None:
        hashes = [content_hash for finished in group for content_hash in finished.hashes]
        vectors = (
            group[0].vectors if len(group) == 1 else np.concatenate([finished.vectors for finished in group])
        )
        model = await self.ensure_model(int(vectors.shape[1]))
        async with self._database.connection() as conn:
            await embeddings.store_vectors(conn, model.id, hashes, vectors)
