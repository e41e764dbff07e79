"""Boards in the database: one row a key, read and written back by whoever comes by.

No lock is held while a run thinks, so that one that dies leaves nothing behind: a write counts only if nobody
else wrote since the row was read, else it is read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg.types.json import Jsonb

from era_ingest.core.limiter.board import Board
from era_ingest.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import AsyncConnection

    from era_ingest.store.database import Database

    T = TypeVar("T")

ATTEMPTS: Final = 20
"""Runs that write at the same instant, at most; one of them succeeds each time."""
KEPT: Final = "1 day"
"""Boards that nobody touched for so long are swept away by the next run that begins one."""


async def visit(database: Database, key: str, change: Callable[[float, Board], T]) -> T:
    """Change the board of a key; return what ``change`` returns.

    Args:
        database: Where the board lies.
        key: Names the endpoint and the account; no secret.
        change: Changes the board at the database's time, seconds; is called again, on a later state, if another
            run was faster.

    Raises:
        StoreUnavailableError: The database is away, or too many runs come by at once.
    """
    async with database.connection() as conn:
        await conn.set_autocommit(True)
        try:
            for _ in range(ATTEMPTS):
                version, now, board = await _read(conn, key)
                result = change(now, board)
                if await _write(conn, key, version, board):
                    return result
        finally:
            await conn.set_autocommit(False)
    raise StoreUnavailableError(f"More than {ATTEMPTS} runs at once write on one board.")


async def look(database: Database, key: str) -> bool:
    """Return whether runs share a pace on this key at present.

    Raises:
        StoreUnavailableError: The database is away.
    """
    async with database.connection() as conn:
        _, now, board = await _read(conn, key)
    return board.is_shared_at(now)


async def _read(conn: AsyncConnection[Any], key: str) -> tuple[int, float, Board]:
    """Return the row's version (0: there is none), the time, and the board."""
    cursor = await conn.execute(
        "select b.version, extract(epoch from clock_timestamp())::float8, b.state "
        "from (select %s::text as key) k left join era.pace_boards b using (key)",
        (key,),
    )
    row = await cursor.fetchone()
    assert row is not None
    version, now, state = row
    return (0, now, Board()) if version is None else (version, now, Board.from_dict(state))


async def _write(conn: AsyncConnection[Any], key: str, version: int, board: Board) -> bool:
    """Write the board, unless another run wrote since ``version``."""
    state = Jsonb(board.as_dict())
    if version:
        cursor = await conn.execute(
            "update era.pace_boards set state = %s, version = version + 1, touched_at = now() "
            "where key = %s and version = %s",
            (state, key, version),
        )
        return cursor.rowcount == 1
    await conn.execute("delete from era.pace_boards where touched_at < now() - %s::interval", (KEPT,))
    cursor = await conn.execute(
        "insert into era.pace_boards (key, version, state) values (%s, 1, %s) on conflict do nothing",
        (key, state),
    )
    return cursor.rowcount == 1
