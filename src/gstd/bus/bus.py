"""The bus: hints between processes, which may be lost, and short-lived shared notes.

Without Valkey every call still answers from this process's memory, so one process goes on
working and several fall back to their polling intervals.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Self, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gstd.bus.memory import LocalNotes
from gstd.bus.queue_index import QueueIndex

log = structlog.get_logger()
T = TypeVar("T")

_PAUSE_S = 1.0
"""After a failure, how long calls answer from memory before Valkey is tried again."""

_HOLD = """
local granted = {}
for i, key in ipairs(KEYS) do
  local held = redis.call('INCR', key)
  if held > tonumber(ARGV[i + 1]) then
    redis.call('DECR', key)
    granted[i] = 0
  else
    redis.call('PEXPIRE', key, ARGV[1])
    granted[i] = 1
  end
end
return granted
"""

_DROP = """
for _, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') > 0 then redis.call('DECR', key) end
end
"""


class Hint(StrEnum):
    """What a hint says. It carries nothing else: who hears it looks into the database."""

    QUEUE = "queue"
    EVENTS = "events"
    OUTBOX = "outbox"
    REFEREE = "referee"
    TASKS = "tasks"


class Bus:
    """One connection to Valkey, or none. Use as ``async with Bus.open(url) as bus``."""

    def __init__(self, client: Redis | None) -> None:
        self._client = client
        self._local = LocalNotes(time.monotonic)
        self._listeners: dict[Hint, list[asyncio.Event]] = {hint: [] for hint in Hint}
        self._down_until = 0.0

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str | None) -> AsyncIterator[Self]:
        """A bus that listens for hints while the block runs."""
        client = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1) if url else None
        bus = cls(client)
        listening = asyncio.create_task(bus._listen()) if client else None
        try:
            yield bus
        finally:
            while listening is not None and not listening.done():
                listening.cancel()  # again, for a read that ends just then swallows it
                await asyncio.wait([listening], timeout=0.1)
            if client is not None:
                await client.aclose()

    @property
    def is_shared(self) -> bool:
        """Whether there is a Valkey at all, up or not."""
        return self._client is not None

    def queue_index(self, name: str) -> QueueIndex:
        """The queue index of the platform with this database."""
        return QueueIndex(self._try, name)

    async def is_up(self) -> bool:
        """Whether Valkey answers now."""
        if self._client is None:
            return False
        try:
            return bool(await self._client.ping())
        except (RedisError, OSError):
            return False

    async def publish(self, *hints: Hint) -> None:
        """Tell every process, this one included. Call after the commit."""
        for hint in hints:
            self._wake(hint)

        async def send(client: Redis) -> None:
            async with client.pipeline(transaction=False) as pipeline:
                for hint in hints:
                    pipeline.publish(_channel(hint), b"")
                await pipeline.execute()

        await self._try(send, None)

    @contextlib.contextmanager
    def listener(self, *hints: Hint) -> Any:
        """An ``asyncio.Event`` that is set whenever one of the hints is heard."""
        event = asyncio.Event()
        for hint in hints:
            self._listeners[hint].append(event)
        try:
            yield event
        finally:
            for hint in hints:
                self._listeners[hint].remove(event)

    async def hold(self, keys: Sequence[tuple[str, int]], ttl_ms: int) -> list[bool]:
        """For each (name, places): whether one of its places was still free and is now held."""
        if not keys:
            return []

        async def ask(client: Redis) -> list[bool]:
            names = [f"gstd:hold:{name}" for name, _ in keys]
            places = [places for _, places in keys]
            granted = await client.eval(_HOLD, len(names), *names, ttl_ms, *places)
            return [bool(flag) for flag in granted]

        held = await self._try(ask, None)
        return held if held is not None else [self._local.hold(*key, ttl_ms) for key in keys]

    async def held(self, names: Sequence[str]) -> list[int]:
        """How many places of each name are held now."""
        if not names:
            return []

        async def ask(client: Redis) -> list[int]:
            counts = await client.mget([f"gstd:hold:{name}" for name in names])
            return [int(count or 0) for count in counts]

        found = await self._try(ask, None)
        return found if found is not None else [self._local.held(name) for name in names]

    async def drop(self, names: Sequence[str]) -> None:
        """Give back one held place of each name."""
        if not names:
            return
        for name in names:
            self._local.drop(name)

        async def send(client: Redis) -> None:
            await client.eval(_DROP, len(names), *[f"gstd:hold:{name}" for name in names])

        await self._try(send, None)

    async def is_fresh(self, name: str, ttl_ms: int) -> bool:
        """Whether this name is seen for the first time within ``ttl_ms``."""

        async def ask(client: Redis) -> bool:
            return bool(await client.set(f"gstd:seen:{name}", b"", nx=True, px=ttl_ms))

        fresh_here = self._local.hold(f"seen:{name}", 1, ttl_ms)
        return await self._try(ask, fresh_here) and fresh_here

    async def touch(self, device: str, at_ms: int) -> None:
        """Note that a device was heard of."""
        self._local.presence[device] = at_ms

        async def send(client: Redis) -> None:
            await client.zadd("gstd:presence", {device: at_ms})

        await self._try(send, None)

    async def last_seen(self, devices: Sequence[str]) -> list[int | None]:
        """When each device was last heard of, in Unix milliseconds."""

        async def ask(client: Redis) -> list[int | None]:
            scores = await client.zmscore("gstd:presence", list(devices))
            return [None if score is None else int(score) for score in scores]

        if not devices:
            return []
        found = await self._try(ask, None)
        return found or [self._local.presence.get(device) for device in devices]

    async def seen_since(self, at_ms: int) -> int:
        """How many devices were heard of at ``at_ms`` (Unix milliseconds) or later."""

        async def ask(client: Redis) -> int:
            return int(await client.zcount("gstd:presence", at_ms, "+inf"))

        found = await self._try(ask, None)
        if found is not None:
            return int(found)
        return sum(seen >= at_ms for seen in self._local.presence.values())

    async def latest_seen(self, at_ms: int, limit: int) -> dict[str, int]:
        """Devices heard of since then, the latest first, with when; at most ``limit``."""

        async def ask(client: Redis) -> dict[str, int]:
            found: Any = await client.zrange(
                "gstd:presence",
                "+inf",
                at_ms,
                desc=True,
                byscore=True,
                offset=0,
                num=limit,
                withscores=True,
            )
            return {device.decode(): int(score) for device, score in found}

        found: dict[str, int] | None = await self._try(ask, None)
        if found is not None:
            return found
        latest = sorted(self._local.presence.items(), key=lambda item: -item[1])
        return {device: at for device, at in latest[:limit] if at >= at_ms}

    async def write_note(self, name: str, note: bytes, ttl_ms: int) -> None:
        """Keep a note for every process to read, for a while."""
        self._local.write(name, note, ttl_ms)

        async def send(client: Redis) -> None:
            await client.set(f"gstd:note:{name}", note, px=ttl_ms)

        await self._try(send, None)

    async def read_notes(self, names: Sequence[str]) -> list[bytes | None]:
        """The notes of these names, where there are any."""
        if not names:
            return []

        async def ask(client: Redis) -> list[bytes | None]:
            notes: Any = await client.mget([f"gstd:note:{name}" for name in names])
            return list(notes)

        found = await self._try(ask, None)
        return found if found is not None else [self._local.read(name) for name in names]

    async def _try(self, call: Callable[[Redis], Any], otherwise: T) -> Any | T:
        if self._client is None or time.monotonic() < self._down_until:
            return otherwise
        try:
            return await call(self._client)
        except (RedisError, OSError) as error:
            self._down_until = time.monotonic() + _PAUSE_S
            log.warning("valkey_unavailable", error=str(error))
            return otherwise

    def _wake(self, hint: Hint) -> None:
        for event in self._listeners[hint]:
            event.set()

    async def _listen(self) -> None:
        assert self._client is not None
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(*[_channel(hint) for hint in Hint])
                    for hint in Hint:  # whatever was missed while nobody listened
                        self._wake(hint)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            self._wake(Hint(message["channel"].decode().rpartition(":")[2]))
            except (RedisError, OSError) as error:
                log.warning("valkey_not_heard", error=str(error))
                await asyncio.sleep(_PAUSE_S)


def _channel(hint: Hint) -> str:
    return f"gstd:hint:{hint}"
