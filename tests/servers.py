"""Servers that tests start, cut and kill: Valkey of their own, and a wire to PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg

from gstd.database.provision import OWNER_ROLE
from gstd.embedded.postgres import PostgresAddress
from gstd.embedded.valkey import EmbeddedValkey
from tests.conftest import TEMPLATE

T = TypeVar("T")

PROBE_S = 0.02


@asynccontextmanager
async def folder() -> AsyncIterator[Path]:
    """A private folder with a path short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="gstd-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def in_own_task(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enters and leaves a context in one task, which anyio demands and fixtures do not give."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def live() -> None:
        try:
            async with manager as value:
                entered.set_result(value)
                await leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    task = asyncio.create_task(live())
    try:
        yield await entered
    finally:
        leave.set()
        await task


@asynccontextmanager
async def running_valkey() -> AsyncIterator[EmbeddedValkey]:
    """A Valkey server; the caller may stop and start it again."""
    async with folder() as path:
        server = EmbeddedValkey(path)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@asynccontextmanager
async def fresh_database(cluster: PostgresAddress, name: str) -> AsyncIterator[str]:
    """A migrated database that lives as long as the block; yields its name."""
    admin = await asyncpg.connect(cluster.dsn())
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER_ROLE}")
        yield name
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


async def until(
    condition: Callable[[], Any], within_s: float = 5.0, *, probe_s: float = PROBE_S
) -> Any:
    """The condition's first true value. Fails the test when there is none in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while True:
        value = condition()
        found = await value if isinstance(value, Awaitable) else value
        if found:
            return found
        assert loop.time() < end, "the condition did not become true in time"
        await asyncio.sleep(probe_s)


class Wire:
    """A way to PostgreSQL that can be cut: to its users the server is gone."""

    def __init__(self, place: Path, server: Path) -> None:
        self._place = place
        self._server = server
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[tuple[Wire, str]]:
        """A wire to the server of a URL, and the URL that goes through it."""
        parts = urlsplit(url)
        place = parse_qs(parts.query)
        host, port = place["host"][0], place["port"][0]
        async with folder() as path:
            socket = f".s.PGSQL.{port}"
            wire = cls(path / socket, Path(host) / socket)
            await wire.mend()
            try:
                yield wire, url.replace(quote(host, safe=""), quote(str(path), safe=""))
            finally:
                await wire.cut()

    async def mend(self) -> None:
        """The server is there again."""
        self._listener = await asyncio.start_unix_server(self._carry, self._place)

    async def cut(self) -> None:
        """Every connection ends now and no new one is taken."""
        assert self._listener is not None
        self._listener.close()
        self.drop()
        await self._listener.wait_closed()
        self._place.unlink(missing_ok=True)

    def drop(self) -> None:
        """Every connection ends now; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_unix_connection(self._server)
        both = {writer, server}
        self._writers |= both
        try:
            await asyncio.gather(_pump(reader, server), _pump(answers, writer))
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.transport.abort()
