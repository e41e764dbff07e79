"""Boards in the database: nobody's report is lost, nobody's death leaves a lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.limiter.board import Board, Report
from era_ingest.core.limiter.flight import Spend
from era_ingest.errors import StoreUnavailableError
from era_ingest.store import boards, schema

if TYPE_CHECKING:
    from era_ingest.store.database import Database


@pytest.fixture
async def boarded(database: Database) -> Database:
    """A database with the project's tables."""
    await schema.migrate(database)
    return database


async def read(database: Database, key: str) -> Board:
    """Return a board as it lies there."""
    return await boards.visit(database, key, lambda _, board: board)


async def test_reports_that_come_at_once_are_all_kept(boarded: Database) -> None:
    """Four connections write one row; who was slower reads again."""

    def report(name: str) -> Report:
        return Report(Spend(1.0, float(name)))

    async def come(name: str) -> None:
        for _ in range(5):
            await boards.visit(boarded, "k", lambda now, board: board.exchange(now, name, report(name)))

    await asyncio.gather(*(come(str(number)) for number in range(8)))
    board = await read(boarded, "k")
    assert board.accepted == Spend(40.0, 5.0 * sum(range(8)))
    assert len(board.members) == 8


async def test_keys_know_nothing_of_each_other(boarded: Database) -> None:
    """Each endpoint and account has a board of its own."""
    await boards.visit(boarded, "one", lambda now, board: board.exchange(now, "a", Report(own_rate=3.0)))
    assert await boards.look(boarded, "one")
    assert not await boards.look(boarded, "two")


async def test_who_dies_between_reading_and_writing_changes_nothing(boarded: Database) -> None:
    """And the next one does not wait for it."""
    await boards.visit(boarded, "k", lambda now, board: board.exchange(now, "a", Report()))
    before = await read(boarded, "k")

    def die(_: float, board: Board) -> None:
        board.members.clear()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await boards.visit(boarded, "k", die)
    assert await read(boarded, "k") == before


async def test_old_boards_are_swept_away(boarded: Database) -> None:
    """By the next run that begins one."""
    await boards.visit(boarded, "old", lambda now, board: board.exchange(now, "a", Report()))
    async with boarded.connection() as conn:
        await conn.execute("update era.pace_boards set touched_at = now() - interval '2 days'")
    await boards.visit(boarded, "new", lambda now, board: board.exchange(now, "a", Report()))
    async with boarded.connection() as conn:
        found = await (await conn.execute("select key from era.pace_boards")).fetchall()
    assert found == [("new",)]


async def test_a_database_that_is_away_is_one_error(boarded: Database) -> None:
    """Which a run takes for "on my own"."""
    await boarded.close()
    with pytest.raises(StoreUnavailableError):
        await boards.visit(boarded, "k", lambda now, board: board.exchange(now, "a", Report()))
