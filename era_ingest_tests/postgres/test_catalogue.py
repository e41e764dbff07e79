"""The landing catalogue: runs are due for what is new, changed or gone, and has settled."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from era_ingest.core.source import BookSource, SourceFile
from era_ingest.store import catalogue
from era_ingest.store.landing import LandingScan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest_tests.postgres.store_kit import Store

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTLE_S = 5.0


def _source(name: str, mtime_ns: int = 1) -> BookSource:
    file = SourceFile(f"/landing/{name}/02_doctrine.json", "doctrine", 100, mtime_ns, 7)
    return BookSource(name, name, "/landing", "doctrine", (file,))


class Landing:
    """A landing folder whose clock the test moves."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = START
        self.out_of_sight: set[str] = set()

    async def scan(
        self, *sources: BookSource, after_s: float = 0.0, settle_s: float = SETTLE_S
    ) -> catalogue.LandingDelta:
        """Let time pass, then compare."""
        self.now += timedelta(seconds=after_s)
        async with self.store.database.connection() as conn:
            return await catalogue.refresh(
                conn, LandingScan(tuple(sources), ()), self.now, settle_s, gone=self._is_gone
            )

    async def take(self, delta: catalogue.LandingDelta) -> None:
        """Deal with what is due, as a run does."""
        async with self.store.database.connection() as conn:
            await catalogue.mark_done(conn, delta.arrived, delta.removed, self.now)

    def _is_gone(self, path: str, root: str) -> bool:
        assert root == "/landing"
        return path.removeprefix("/landing/") not in self.out_of_sight


def _names(sources: Sequence[BookSource]) -> list[str]:
    return [source.name for source in sources]


async def test_new_book_is_due_once_it_has_settled(store: Store) -> None:
    """A book is waited for, taken up once, and then left alone."""
    landing = Landing(store)
    book = _source("a")
    assert (await landing.scan(book)).waiting == ("a",)
    assert not await landing.scan(book, after_s=4.9)
    delta = await landing.scan(book, after_s=0.2)
    assert _names(delta.new) == ["a"]
    await landing.take(delta)
    assert await landing.scan(book, after_s=60) == catalogue.LandingDelta()


async def test_growing_file_is_waited_for(store: Store) -> None:
    """As long as a file grows its time starts anew."""
    landing = Landing(store)
    for mtime in range(1, 5):
        assert not await landing.scan(_source("a", mtime), after_s=4)
    assert await landing.scan(_source("a", 4), after_s=5)


async def test_untaken_book_stays_due(store: Store) -> None:
    """What no run was asked for is reported again."""
    landing = Landing(store)
    await landing.scan(_source("a"))
    for _ in range(2):
        assert _names((await landing.scan(_source("a"), after_s=5)).new) == ["a"]


async def test_changed_book_is_due_again(store: Store) -> None:
    """A book that changed since its run is due, as changed."""
    landing = Landing(store)
    await landing.take(await landing.scan(_source("a"), settle_s=0))
    assert (await landing.scan(_source("a", 2))).waiting == ("a",)
    assert _names((await landing.scan(_source("a", 2), after_s=5)).changed) == ["a"]


async def test_removed_book_is_due_for_removal(store: Store) -> None:
    """A book that is gone for a while is reported until its removal, then forgotten."""
    landing = Landing(store)
    await landing.take(await landing.scan(_source("a"), _source("b"), settle_s=0))
    assert (await landing.scan(_source("b"))).waiting == ("a",)
    delta = await landing.scan(_source("b"), after_s=5)
    assert delta.removed == ("a",)
    await landing.take(delta)
    assert not await landing.scan(_source("b"), after_s=5)
    async with store.database.connection() as conn:
        assert await catalogue.forget(conn, ["a", "b"]) == 0, "forgotten with its removal; the other is there"


async def test_book_out_of_sight_is_not_removed(store: Store) -> None:
    """A book that the scan could not see, but that is not gone, stays."""
    landing = Landing(store)
    await landing.take(await landing.scan(_source("a"), settle_s=0))
    landing.out_of_sight = {"a"}
    for _ in range(3):
        assert await landing.scan(after_s=60) == catalogue.LandingDelta()
    assert not await landing.scan(_source("a"), after_s=60)


async def test_book_that_comes_back_is_due(store: Store) -> None:
    """A book that was removed and returns, even as it was, is loaded again."""
    landing = Landing(store)
    await landing.take(await landing.scan(_source("a"), settle_s=0))
    await landing.take(await landing.scan(settle_s=0))
    assert _names((await landing.scan(_source("a"), settle_s=0)).arrived) == ["a"]


async def test_book_that_was_never_taken_goes_quietly(store: Store) -> None:
    """A book that came and went before any run asks for nothing."""
    landing = Landing(store)
    await landing.scan(_source("a"))
    await landing.scan()
    assert not await landing.scan(after_s=5)
    assert await store.value("select count(*) from era.landing_files") == 0


async def test_book_that_a_command_loaded_is_not_due(store: Store) -> None:
    """The sensor does not ask for what somebody ingested by hand meanwhile."""
    landing = Landing(store)
    async with store.database.connection() as conn:
        await catalogue.mark_done(conn, [_source("a")], [], START)
    assert await landing.scan(_source("a"), after_s=60) == catalogue.LandingDelta()


async def test_unchanged_folder_is_not_written(store: Store) -> None:
    """A tick in which nothing changed writes no row."""
    landing = Landing(store)
    sources = [_source(f"book-{n}") for n in range(50)]
    await landing.take(await landing.scan(*sources, settle_s=0))
    before = await store.fetch("select xmin::text from era.landing_files")
    await landing.scan(*sources, after_s=60)
    assert await store.fetch("select xmin::text from era.landing_files") == before


async def test_large_folder_is_compared_within_a_tick(store: Store) -> None:
    """A tick over 20,000 known books takes less than the time between two ticks, on a busy machine too."""
    landing = Landing(store)
    sources = [_source(f"book-{n}") for n in range(20_000)]
    await landing.take(await landing.scan(*sources, settle_s=0))
    started = time.monotonic()
    assert not await landing.scan(*sources, after_s=60)
    assert time.monotonic() - started < 20
