"""What use cases see of the database: a connection inside a transaction, rows as Structs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import structlog

from gstd.database.notebook import notebook
from gstd.kernel.errors import GstdError

log = structlog.get_logger()
T = TypeVar("T")

Listener = Callable[[set[UUID]], Awaitable[None]]
"""Hears which tasks a committed transaction moved in the queue."""

if TYPE_CHECKING:
    Connection = (
        asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
    )
else:
    Connection = asyncpg.Connection
"""A connection. Use cases receive one inside a transaction and never commit it themselves."""


class Row(Protocol):
    """A row: column names and values."""

    def items(self) -> Iterable[tuple[str, Any]]: ...


APP_ROLE = "gstd_app"
"""Every running process has this role: it executes the ledger's functions, no more."""

FROZEN_AFTER = "15s"
"""A process that is silent so long within a transaction loses it, for it holds up everybody else:
the tasks it locked, and every event that is younger than its transaction."""

_RETRIED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

UNREACHABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,  # after the server's last words, until its end is noticed
)
"""What asyncpg raises while the server is away."""


class DatabaseUnavailableError(GstdError):
    """PostgreSQL does not answer."""

    code = "database_unavailable"
    status = 503
    hint = "Try again in a few seconds, with the same Idempotency-Key: nothing is done twice."


def to_struct(row: Row, kind: type[T]) -> T:
    """A row as a Struct of the same field names."""
    return msgspec.convert(dict(row.items()), kind)


def to_structs(rows: Iterable[Row], kind: type[T]) -> list[T]:
    """Rows as Structs, in order."""
    return [msgspec.convert(dict(row.items()), kind) for row in rows]


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda data: msgspec.json.decode(data[1:]),
        format="binary",
    )


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool took it back by itself because it had closed
        return True


class Database:
    """A pool of connections to one PostgreSQL database."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], name: str) -> None:
        self._pool = pool
        self.name = name
        self._listener: Listener | None = None

    @classmethod
    async def connect(cls, url: str, *, role: str | None = None, size: int = 10) -> Self:
        """Connect. With ``role`` every session runs as that role from its start.

        Raises ``DatabaseUnavailableError`` when no server answers.
        """
        settings = {
            "application_name": "gstd",
            "timezone": "UTC",
            "jit": "off",
            "idle_in_transaction_session_timeout": FROZEN_AFTER,
        }
        if role is not None:
            settings["role"] = role
        pool = await asyncpg.create_pool(
            url, min_size=0, max_size=size, init=_prepare, server_settings=settings
        )
        database = cls(pool, "")
        try:
            async with database.connection() as connection:
                database.name = await connection.fetchval("SELECT current_database()")
                return database
        except DatabaseUnavailableError:
            await database.close()
            raise

    async def close(self) -> None:
        """Close every connection, at most five seconds later by force."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside a transaction, for reads of one statement."""
        acquired = False
        try:
            async with self._pool.acquire() as connection:
                acquired = True
                try:
                    yield connection
                except asyncpg.InterfaceError as error:
                    # asyncpg uses this one class for a lost connection and for wrong calls.
                    if _is_lost(connection):
                        raise DatabaseUnavailableError(str(error)) from error
                    raise
        except UNREACHABLE as error:
            raise DatabaseUnavailableError(str(error)) from error
        except asyncpg.InterfaceError as error:
            if not acquired:
                raise DatabaseUnavailableError(str(error)) from error
            raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction: committed when the block ends, rolled back when it raises.

        What it noted is told to the listener after the commit, before this returns.
        """
        with notebook() as noted:
            async with self.connection() as connection, connection.transaction():
                yield connection
        if noted and self._listener is not None:
            try:
                await self._listener(noted)
            except Exception as error:  # noqa: BLE001 - a hint is lost, what is committed stands
                log.warning("hint_lost", tasks=len(noted), error=repr(error))

    def tell(self, listener: Listener) -> None:
        """From now on tell ``listener`` what committed transactions noted."""
        self._listener = listener

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, tries: int = 3) -> T:
        """Run ``work`` in a transaction, again after a deadlock, at most ``tries`` times."""
        for left in reversed(range(tries)):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except _RETRIED:
                if left == 0:
                    raise
        raise AssertionError("unreachable")
