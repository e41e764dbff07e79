"""The door to PostgreSQL: a small pool of connections that know our schema and pgvector's types."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import psycopg
from pgvector import Vector
from pgvector.psycopg.vector import VectorBinaryDumper, VectorBinaryLoader, VectorDumper, VectorLoader
from psycopg import conninfo
from psycopg.types import TypeInfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from era_ingest.errors import EraError, StoreUnavailableError
from era_ingest.store.failures import connection_error, is_connection_failure, place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

APPLICATION_NAME = "era_ingest"
STARTING_TIMEOUT_S = 60.0
"""How long ``open`` waits for a server that says it is starting up."""
_STARTING_PAUSE_S = 0.2
_CONNECT_TIMEOUT_S = 10
POOL_TIMEOUT_S = 30.0
"""How long a caller waits for a free connection, or for a server that went away, before it is an error."""
_LOOK_AGAIN_S = 1.0
"""How soon the pool tries to connect again, as long as somebody waits. Left to itself it would double its pauses, and
come back half a minute after the server."""

_STARTING = ("starting up", "shutting down", "in recovery mode", "not yet accepting", "not accepting")

_DEFAULTS: dict[str, Any] = {
    "application_name": APPLICATION_NAME,
    "connect_timeout": _CONNECT_TIMEOUT_S,
    # a peer that is gone without a word is noticed within a minute, not after two hours
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


class Database:
    """A pool of at most ``max_connections`` connections; made by ``open`` or ``opened``.

    Every connection has the search path ``era, public`` and, as soon as the extension is there, pgvector's
    types. The pool survives a restart of the server: a dead connection is found out when it is asked for.
    """

    def __init__(
        self,
        url: str,
        pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]],
        *,
        timeout_s: float = POOL_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._pool = pool
        self._timeout_s = timeout_s
        self._clock = clock

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        max_connections: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timeout_s: float = POOL_TIMEOUT_S,
    ) -> Self:
        """Connect, and return the open pool.

        Args:
            url: ``postgresql://``, over TCP or a socket.
            max_connections: Connections at most, >= 1.
            clock: Monotonic seconds.
            sleep: Pauses between two tries at a server that is starting up.
            timeout_s: How long a caller waits for a connection, in seconds, before it is an error.

        Raises:
            ConfigurationError: Wrong URL, user, password or database.
            StoreUnavailableError: Nobody answers there, or not within a minute of starting up.
        """
        first = await _connect(url, clock, sleep)  # the pool would retry, and hide why it fails
        await first.close()
        pool = AsyncConnectionPool(
            url,
            kwargs=_options(url),
            min_size=1,
            max_size=max_connections,
            open=False,
            configure=_configure,
            name=APPLICATION_NAME,
            reconnect_timeout=_LOOK_AGAIN_S,
        )
        await pool.open()
        return cls(url, pool, timeout_s=timeout_s)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, url: str, *, max_connections: int, timeout_s: float = POOL_TIMEOUT_S
    ) -> AsyncIterator[Self]:
        """Open the pool for the length of a context; see ``open``."""
        database = await cls.open(url, max_connections=max_connections, timeout_s=timeout_s)
        try:
            yield database
        finally:
            await database.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend a connection: what was done is committed at the end, rolled back on an error.

        Raises:
            StoreUnavailableError: No connection within 30 s, or the server went away, is read-only or out of disk,
                or cancelled the statement.
        """
        try:
            connection = await self._borrow()
            try:
                async with connection:
                    if connection.adapters.types.get("vector") is None:
                        await _register_vector(connection)
                    yield connection
            finally:
                await self._pool.putconn(connection)
        except PoolClosed as error:
            raise connection_error(error, self._url) from error
        except psycopg.Error as error:
            if not is_connection_failure(error):
                raise
            raise connection_error(error, self._url) from error

    async def open_session(self) -> psycopg.AsyncConnection[Any]:
        """Return a connection beside the pool's, for the caller to close: each statement commits by itself.

        Raises:
            EraError: Nobody answers.
        """
        try:
            return await psycopg.AsyncConnection.connect(self._url, autocommit=True, **_options(self._url))
        except psycopg.Error as error:
            raise connection_error(error, self._url) from error

    async def _borrow(self) -> psycopg.AsyncConnection[Any]:
        """Take a living connection from the pool; dead ones are replaced, one after another and at once.

        Raises:
            EraError: There is none in time.
        """
        give_up_at = self._clock() + self._timeout_s
        while True:
            left = give_up_at - self._clock()
            try:
                connection = await self._pool.getconn(max(0.0, min(left, _LOOK_AGAIN_S)))
            except PoolTimeout as error:
                if left <= _LOOK_AGAIN_S:
                    raise await self._why_none(error) from error
                continue
            try:
                await AsyncConnectionPool.check_connection(connection)
            except psycopg.Error:
                await self._pool.putconn(connection)
                if left <= 0:
                    raise
                continue
            except BaseException:
                await self._pool.putconn(connection)
                raise
            return connection

    async def _why_none(self, error: PoolTimeout) -> EraError:
        """Find out why the pool has no connection to lend; it does not say itself."""
        try:
            probe = await psycopg.AsyncConnection.connect(self._url, **_options(self._url))
        except psycopg.Error as reason:
            return connection_error(reason, self._url)
        await probe.close()
        return StoreUnavailableError(
            f"All {self._pool.max_size} connections to {place(self._url)} are busy: {error}. "
            "A greater ERA_PRESET allows more of them."
        )

    async def close(self) -> None:
        """Close every connection; those that are lent out when they come back."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _options(url: str) -> dict[str, Any]:
    """Return our connection parameters, less those that the URL sets itself."""
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.Error as error:
        raise connection_error(error, url) from error
    return {name: value for name, value in _DEFAULTS.items() if name not in given}


async def _connect(
    url: str, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
) -> psycopg.AsyncConnection[Any]:
    deadline = clock() + STARTING_TIMEOUT_S
    while True:
        try:
            return await psycopg.AsyncConnection.connect(url, **_options(url))
        except psycopg.Error as error:
            if not any(words in str(error) for words in _STARTING) or clock() >= deadline:
                raise connection_error(error, url) from error
        await sleep(_STARTING_PAUSE_S)


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    """Prepare a new connection. The search path is set, not asked for at start-up: poolers refuse that."""
    await connection.execute("SELECT set_config('search_path', 'era, public', false)")
    await _register_vector(connection)
    await connection.commit()


async def _register_vector(connection: psycopg.AsyncConnection[Any]) -> None:
    """Teach the connection pgvector's types, where the extension exists yet."""
    cursor = await connection.execute("SELECT to_regtype('vector') IS NOT NULL")
    row = await cursor.fetchone()
    if row is not None and row[0]:
        await _teach(connection)


async def _teach(connection: psycopg.AsyncConnection[Any]) -> None:
    """Do what ``register_vector_async`` does for ``vector``, with the same classes for every connection.

    It makes sixteen classes a connection, which nothing frees (pgvector 0.4): 100 kB, and an hour of work opens
    thousands.
    """
    info = await TypeInfo.fetch(connection, "vector")
    assert info is not None
    info.register(connection)
    for dumper in _dumpers(info.oid):
        connection.adapters.register_dumper(Vector, dumper)
        connection.adapters.register_dumper("numpy.ndarray", dumper)
    for loader in (VectorLoader, VectorBinaryLoader):
        connection.adapters.register_loader(info.oid, loader)


@lru_cache(maxsize=64)
def _dumpers(oid: int) -> tuple[type[VectorDumper], type[VectorDumper]]:
    """Return what writes vectors, as text and as bytes, where their type has this oid."""
    text = type("TextDumper", (VectorDumper,), {"oid": oid})
    return text, type("BinaryDumper", (VectorBinaryDumper,), {"oid": oid})
