"""The flow between reading and loading, with steps that only take notes (the real ones: postgres/)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from era_ingest.core.model import Category, Chunk
from era_ingest.core.record import BookRecord, FileDigest
from era_ingest.errors import AuthenticationError, EraError, RequestRejectedError, StoreUnavailableError
from era_ingest.pipelines import flow as flow_module
from era_ingest.pipelines.chunked import ChunkedBook
from era_ingest.pipelines.flow import Gauge, IngestFlow
from era_ingest.store.chunk_table import build_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    import pytest
    from numpy.typing import NDArray

    from era_ingest.clients.feed import TextItem
    from era_ingest.core.ledger import TextCounts


def _book(slug: str, *texts: str) -> ChunkedBook:
    chunks = [
        Chunk(
            id=uuid4(),
            book=slug,
            chapter=1,
            category=Category.RULE,
            domains=("base",),
            text=text,
            weight=1.0,
            content_hash=hashlib.sha256(text.encode()).digest(),
        )
        for text in texts
    ]
    file = FileDigest("/x", "book", 1, 1, 1, "0" * 64)
    record = BookRecord(slug, slug, None, "/", "json", (file,), "p", 1, len(texts), 0)
    return ChunkedBook(record, build_table(chunks))


async def _stream(*books: ChunkedBook) -> AsyncIterator[ChunkedBook]:
    for book in books:
        yield book


class _Notes:
    """Steps that note what they are asked."""

    def __init__(self, *, load_error: EraError | None = None) -> None:
        self.stored: set[bytes] = set()
        self.refused: list[str] = []
        self.loaded: dict[str, TextCounts] = {}
        self.busy: dict[str, int] = {}
        self.lacking: list[str] = []
        self._load_error = load_error

    async def claim(self, slugs: Sequence[str]) -> Collection[str]:
        free = [slug for slug in slugs if not self.busy.get(slug)]
        self.busy = {slug: times - 1 for slug, times in self.busy.items() if times}
        return free

    async def known(self, hashes: Sequence[bytes]) -> tuple[Collection[bytes], Collection[bytes]]:
        return self.stored & set(hashes), ()

    async def commit(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        assert len(hashes) == len(vectors)
        await asyncio.sleep(0)
        self.stored |= set(hashes)

    async def refuse(self, item: TextItem, _error: EraError) -> None:
        self.refused.append(item.text)

    async def load(self, book: ChunkedBook, counts: TextCounts) -> None:
        if self._load_error is not None:
            raise self._load_error
        self.loaded[book.record.slug] = counts

    async def lack(self, book: ChunkedBook) -> None:
        self.lacking.append(book.record.slug)


class _Client:
    """A client that embeds one text a request, refuses ``poison`` and stops at ``stop``."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def embed_all(
        self,
        texts: AsyncIterator[TextItem],
        *,
        commit: Callable[[Sequence[bytes], NDArray[np.float32]], Awaitable[None]],
        refuse: Callable[[TextItem, EraError], Awaitable[None]],
    ) -> None:
        async for item in texts:
            self.sent.append(item.text)
            if item.text == "stop":
                raise AuthenticationError("wrong key")
            if item.text == "poison":
                await refuse(item, RequestRejectedError("no"))
            else:
                await commit([item.content_hash], np.ones((1, 2), np.float32))


async def test_texts_shared_by_books_are_sent_once_and_every_book_is_loaded() -> None:
    """Two books share a text: one request for it, and both are loaded."""
    steps, client = _Notes(), _Client()
    assert await IngestFlow(steps, client).run(_stream(_book("a", "x", "y"), _book("b", "y", "z"))) is None
    assert sorted(client.sent) == ["x", "y", "z"]
    assert {slug: (c.embedded, c.reused) for slug, c in steps.loaded.items()} == {"a": (2, 0), "b": (1, 1)}


async def test_a_refused_text_does_not_keep_its_book_from_loading() -> None:
    """The poison text is refused; its neighbours and its book are loaded."""
    steps = _Notes()
    assert await IngestFlow(steps, _Client()).run(_stream(_book("a", "x", "poison"))) is None
    assert steps.refused == ["poison"]
    assert steps.loaded["a"].refused == 1


async def test_when_the_embedder_stops_the_flow_books_that_are_ready_are_still_loaded() -> None:
    """A wrong key ends the run with its reason; the book before it is loaded, the one behind it is not."""
    steps = _Notes()
    stopped = await IngestFlow(steps, _Client()).run(
        _stream(_book("a", "x"), _book("b", "stop"), _book("c", "y"))
    )
    assert isinstance(stopped, AuthenticationError)
    assert "a" in steps.loaded
    assert "b" not in steps.loaded


async def test_a_database_that_takes_no_rows_stops_the_flow_with_its_reason() -> None:
    """An error of the loader ends reading and embedding too."""
    steps = _Notes(load_error=StoreUnavailableError("disk full"))
    stopped = await IngestFlow(steps, _Client()).run(_stream(*(_book(str(n), str(n)) for n in range(500))))
    assert isinstance(stopped, StoreUnavailableError)


async def test_without_a_client_books_whose_texts_lack_vectors_are_reported() -> None:
    """Loading alone embeds nothing: what lacks vectors is named, what has them is loaded."""
    steps = _Notes()
    known = _book("known", "x")
    steps.stored |= set(known.hashes)
    assert await IngestFlow(steps, None).run(_stream(known, _book("new", "y"))) is None
    assert list(steps.loaded) == ["known"]
    assert steps.lacking == ["new"]


async def test_an_error_of_reading_reaches_the_caller() -> None:
    """A reader that raises ends the flow with that error."""

    async def broken() -> AsyncIterator[ChunkedBook]:
        yield _book("a", "x")
        raise StoreUnavailableError("the landing folder is gone")

    stopped = await IngestFlow(_Notes(), _Client()).run(broken())
    assert isinstance(stopped, StoreUnavailableError)


async def test_a_book_larger_than_the_bound_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-pressure never becomes a deadlock."""
    monkeypatch.setattr(flow_module, "MAX_CHUNKS_IN_FLOW", 2)
    steps = _Notes()
    books = [_book(str(n), *(f"{n}-{i}" for i in range(5))) for n in range(4)]
    assert await asyncio.wait_for(IngestFlow(steps, _Client()).run(_stream(*books)), 10) is None
    assert len(steps.loaded) == 4


async def test_the_gauge_lets_no_more_out_than_its_bound() -> None:
    """A second amount waits until the first is back."""
    gauge = Gauge(10)
    await gauge.take(8)
    second = asyncio.create_task(gauge.take(8))
    await asyncio.sleep(0)
    assert not second.done()
    await gauge.give(8)
    await asyncio.wait_for(second, 1)


async def test_a_book_that_another_run_works_on_comes_when_that_has_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked for again and again while others go on, and its texts are looked up only then."""
    monkeypatch.setattr(flow_module, "_ASK_AGAIN_S", 0.0)
    steps = _Notes()
    steps.busy = {"first": 3}
    client = _Client()
    assert await IngestFlow(steps, client).run(_stream(_book("first", "a"), _book("second", "b"))) is None
    assert list(steps.loaded) == ["second", "first"]
