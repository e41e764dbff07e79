"""The flow of one ingestion: reading, asking, embedding, committing and loading at the same time.

    reader --books--> resolver --texts--> client --vectors--> writer
                          |                                      |
                          +---------- books that are ready ------+--> loader

Every arrow is bounded. A book stays in the flow from reading until its rows are loaded; the reader pauses
while the books in the flow hold more chunks than ``MAX_CHUNKS_IN_FLOW``, so that memory does not grow with
the corpus. What finished is durable when the flow stops, for whatever reason.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from era_ingest.clients.feed import TextItem
from era_ingest.core.ledger import TextLedger
from era_ingest.errors import EraError
from era_ingest.pipelines.groups import first_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from era_ingest.core.ledger import TextCounts
    from era_ingest.pipelines.chunked import ChunkedBook

MAX_CHUNKS_IN_FLOW = 20_000
"""Chunks of the books between reading and loading; one larger book goes alone."""
LOOKUP_CHUNKS = 8_192
"""Chunks whose hashes one query to the embedding store asks for, about."""
LOADERS = 2
"""Books loaded at the same time: while the database writes one, the next one is put together and sent."""
_TEXT_QUEUE = 2_048
_ASK_AGAIN_S = 0.2
"""How often it is asked whether another run has finished a book."""


class Embeds(Protocol):
    """What the flow needs of the client."""

    async def embed_all(
        self,
        texts: AsyncIterator[TextItem],
        *,
        commit: Callable[[Sequence[bytes], NDArray[np.float32]], Awaitable[None]],
        refuse: Callable[[TextItem, EraError], Awaitable[None]],
    ) -> object:
        """Embed every text; see ``EmbeddingClient.embed_all``."""
        ...


class Steps(Protocol):
    """What the flow does to the outside world, one transaction a call."""

    async def claim(self, slugs: Sequence[str]) -> Collection[str]:
        """Return the books that no other run works on, which are this run's now until they are loaded."""
        ...

    async def known(self, hashes: Sequence[bytes]) -> tuple[Collection[bytes], Collection[bytes]]:
        """Return the hashes that the store has, and those that the server is known to refuse."""
        ...

    async def commit(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Make the vectors of one request durable."""
        ...

    async def refuse(self, item: TextItem, error: EraError) -> None:
        """Put one text into the quarantine."""
        ...

    async def load(self, book: ChunkedBook, counts: TextCounts) -> None:
        """Bring the rows of one book, whose texts are all settled, into the tables; several run at once."""
        ...

    async def lack(self, book: ChunkedBook) -> None:
        """Note that a book cannot be loaded, since texts of it have no vector and none may be embedded."""
        ...


class Gauge:
    """A bounded amount: ``take`` waits while more is out than the bound, unless nothing is.

    Args:
        bound: Amount that may be out, > 0.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._out = 0
        self._changed = asyncio.Condition()

    async def take(self, amount: int) -> None:
        """Take an amount out; more than the bound goes when nothing else is out."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._out == 0 or self._out + amount <= self._bound)
            self._out += amount

    async def give(self, amount: int) -> None:
        """Give an amount back."""
        async with self._changed:
            self._out -= amount
            self._changed.notify_all()


class IngestFlow:
    """Takes chunked books through embedding and loading; see the module's picture.

    Args:
        steps: What is done to the outside world.
        client: The embedding client; None: nothing is embedded, and a book whose texts are not all in the
            store is handed to ``lack`` instead of ``load``.
    """

    def __init__(self, steps: Steps, client: Embeds | None) -> None:
        self._steps = steps
        self._client = client
        self._ledger = TextLedger()
        self._gauge = Gauge(MAX_CHUNKS_IN_FLOW)
        self._books: dict[str, ChunkedBook] = {}
        self._parsed: asyncio.Queue[ChunkedBook | None] = asyncio.Queue(maxsize=64)
        self._texts: asyncio.Queue[TextItem | None] = asyncio.Queue(maxsize=_TEXT_QUEUE)
        self._ready: asyncio.Queue[str | None] = asyncio.Queue()
        self._feeders: list[asyncio.Task[None]] = []
        self._stopped: EraError | None = None
        self.bytes_read = 0
        self.texts_known = 0
        self.texts_settled = 0
        self.reading_done = False

    async def run(self, books: AsyncIterator[ChunkedBook]) -> EraError | None:
        """Take every book through; return the error that stopped the flow early, or None.

        Books whose texts are all settled are loaded even if the embedder stops the flow.

        Args:
            books: Chunked books, each slug once; read lazily.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._feeders = [
                    group.create_task(self._read(books)),
                    group.create_task(self._resolve()),
                ]
                group.create_task(self._embed())
                for _ in range(LOADERS):
                    group.create_task(self._load())
        except* EraError as errors:
            self._stopped = self._stopped or first_error(errors)
        return self._stopped

    async def _read(self, books: AsyncIterator[ChunkedBook]) -> None:
        async with aclosing(books):  # type: ignore[type-var]
            async for book in books:
                await self._gauge.take(book.chunk_count)
                await self._parsed.put(book)
        await self._parsed.put(None)

    async def _resolve(self) -> None:
        """Ask the store which texts it has, many books a query; queue those that it has not.

        Books that another run works on come when it has finished them: then their texts are there.
        """
        last = False
        others: list[ChunkedBook] = []
        while not last or others:
            group: list[ChunkedBook] = []
            if others and self._parsed.empty():
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                group, last = await self._next_books()
            group, others = await self._claim([*others, *group])
            if not group:
                continue
            self._ledger.begin_lookup()
            hashes = list(dict.fromkeys(h for book in group for h in book.hashes))
            known, refused = await self._steps.known(hashes)
            for book in group:
                await self._admit(book, known, refused)
        self.reading_done = True
        await self._texts.put(None)

    async def _claim(self, books: list[ChunkedBook]) -> tuple[list[ChunkedBook], list[ChunkedBook]]:
        """Return the books that are ours, and those that another run works on."""
        ours = await self._steps.claim([book.record.slug for book in books]) if books else ()
        return (
            [book for book in books if book.record.slug in ours],
            [book for book in books if book.record.slug not in ours],
        )

    async def _next_books(self) -> tuple[list[ChunkedBook], bool]:
        """Wait for one book; take along those that are there already, up to about one look-up."""
        group: list[ChunkedBook] = []
        chunks = 0
        while chunks < LOOKUP_CHUNKS and (not group or not self._parsed.empty()):
            book = await self._parsed.get()
            if book is None:
                return group, True
            group.append(book)
            chunks += book.chunk_count
        return group, False

    async def _admit(self, book: ChunkedBook, known: Collection[bytes], refused: Collection[bytes]) -> None:
        slug = book.record.slug
        self.bytes_read += sum(file.size for file in book.record.files)
        self._books[slug] = book
        admission = self._ledger.admit(slug, book.hashes, known=known, refused=refused)
        if admission.ready:
            self._ready.put_nowait(slug)
            return
        if self._client is None:
            del self._books[slug]
            await self._steps.lack(book)
            await self._gauge.give(book.chunk_count)
            return
        self.texts_known += len(admission.to_embed)
        texts = book.texts_of(admission.to_embed)
        for content_hash, text in zip(admission.to_embed, texts, strict=True):
            await self._texts.put(TextItem(content_hash, text))

    async def _embed(self) -> None:
        """Run the client; if it stops early, end the feeders: what is ready is still loaded."""
        try:
            if self._client is None:
                await self._texts.get()
            else:
                await self._client.embed_all(self._queued_texts(), commit=self._commit, refuse=self._refuse)
        except EraError as error:
            self._stopped = error
            for feeder in self._feeders:
                feeder.cancel()
        self._ready.put_nowait(None)

    async def _queued_texts(self) -> AsyncIterator[TextItem]:
        while (item := await self._texts.get()) is not None:
            yield item

    async def _commit(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        await self._steps.commit(hashes, vectors)
        for content_hash in hashes:
            self._settle(content_hash, embedded=True)

    async def _refuse(self, item: TextItem, error: EraError) -> None:
        await self._steps.refuse(item, error)
        self._settle(item.content_hash, embedded=False)

    def _settle(self, content_hash: bytes, *, embedded: bool) -> None:
        self.texts_settled += 1
        for slug in self._ledger.settle(content_hash, embedded=embedded):
            self._ready.put_nowait(slug)

    async def _load(self) -> None:
        while (slug := await self._ready.get()) is not None:
            book = self._books.pop(slug)
            await self._steps.load(book, self._ledger.close(slug))
            await self._gauge.give(book.chunk_count)
        self._ready.put_nowait(None)
