"""The queue as sorted sets in Valkey: which units of which tasks are ready, in order.

A unit is one attempt that a task still wants. Per class of tasks a sorted set holds its free units
by their order key; shown units wait in a set of their own, by the end of their reservation, and
come back by themselves. Everything here can be lost: an epoch key says that the index is complete,
and goes with it. Who finds no epoch asks PostgreSQL.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from gstd.bus import queue_scripts as scripts

T = TypeVar("T")

Ask = Callable[[Callable[[Redis], Awaitable[Any]], Any], Awaitable[Any]]
"""Runs a call on Valkey, or gives the second argument while there is none."""

PUT_AT_ONCE = 500
"""Tasks that one script writes: a few milliseconds in which Valkey answers nobody else."""

UUID_BYTES = 16

LAST_KEY = (1 << 53) - 1
"""No order key is larger: a score holds each exactly."""


class IndexUnavailableError(Exception):
    """Valkey does not answer, or the index is not complete. PostgreSQL knows."""


class Place(msgspec.Struct, frozen=True):
    """Where a task stands, and how many attempts it wants; none takes it out."""

    task_id: UUID
    class_id: int
    order_key: int
    wanted: int


class Unit(msgspec.Struct, frozen=True):
    """One attempt that a task wants and nobody has been shown."""

    task_id: UUID
    class_id: int
    order_key: int


class Lane(msgspec.Struct, frozen=True):
    """The first units of a class in one priority level; ``is_cut`` when there may be more."""

    units: list[Unit]
    is_cut: bool


class Span(msgspec.Struct, frozen=True):
    """A part of a class: both keys are in it."""

    class_id: int
    low: int
    high: int


class QueueIndex:
    """The index of one platform, named by its database. Raises ``IndexUnavailableError``."""

    def __init__(self, ask: Ask, name: str) -> None:
        self._ask = ask
        self._name = f"gstd:{{queue:{name}}}:"

    async def put(self, places: Iterable[Place]) -> None:
        """Let the index say this of these tasks. Putting twice changes nothing.

        A unit that is no longer wanted is taken from the reserved ones first: it was claimed.
        """
        left = iter(places)
        while some := list(islice(left, PUT_AT_ONCE)):
            words: list[Any] = []
            for place in some:
                words += [place.class_id, place.order_key, place.wanted, place.task_id.bytes]
            await self._run(scripts.PUT, *words)

    async def classes(self) -> set[int]:
        """The classes that have a free unit, after expired reservations came back."""
        found = self._complete(await self._run(scripts.CLASSES))
        return {int(name) for name in found}

    async def heads(self, classes: Iterable[int], depth: int) -> list[Lane]:
        """The first free units of each class in each priority level, as far as they may count.

        At least one for each that may have one among the first ``depth`` of the level.
        """
        found = self._complete(await self._run(scripts.HEADS, depth, *classes))
        return [
            Lane(
                [
                    _unit(name, score, int(class_id))
                    for name, score in zip(flat[::2], flat[1::2], strict=True)
                ],
                is_cut=len(flat) == 2 * most,
            )
            for class_id, most, flat in found
        ]

    async def reserve(self, tasks: Sequence[tuple[int, UUID, int]]) -> list[bool]:
        """For each (class, task, milliseconds): whether a unit of it was free and now is not.

        A task may stand there more than once, for a unit each time.
        """
        words = [word for class_id, task, ms in tasks for word in (class_id, task.bytes, ms)]
        won = self._complete(await self._run(scripts.RESERVE, *words))
        return [bool(flag) for flag in won]

    async def within(self, spans: Sequence[Span]) -> list[Unit]:
        """All free units of parts of classes, complete or not."""

        async def call(client: Redis) -> list[Any]:
            async with client.pipeline(transaction=False) as pipeline:
                for span in spans:
                    pipeline.zrangebyscore(
                        f"{self._name}class:{span.class_id}", span.low, span.high, withscores=True
                    )
                return list(await pipeline.execute())

        found = await self._answer(call)
        return [
            _unit(name, score, span.class_id)
            for span, units in zip(spans, found, strict=True)
            for name, score in units
        ]

    async def known_classes(self) -> set[int]:
        """As ``classes``, of an index that need not be complete."""
        return {int(name) for name in await self._run(scripts.KNOWN_CLASSES)}

    async def is_complete(self) -> bool:
        """Whether the index was completed in this life of the server.

        A server that restores an old index from its disk does not know that it is old.
        """

        async def call(client: Redis) -> bool:
            return await client.get(f"{self._name}epoch") == await _run_id(client)

        return bool(await self._answer(call))

    async def begin(self) -> str:
        """Begin to rebuild: until ``finish`` nobody reads the index."""
        token = secrets.token_hex(8)
        await self._run(scripts.BEGIN, token)
        return token

    async def finish(self, token: str) -> bool:
        """The index is complete, unless it was lost since ``begin``; whether it is."""

        async def call(client: Redis) -> Any:
            script = client.register_script(scripts.FINISH)
            return await script(args=[self._name, token, await _run_id(client)])

        return bool(await self._answer(call))

    async def _run(self, script: str, *words: Any) -> Any:
        return await self._answer(
            lambda client: client.register_script(script)(args=[self._name, *words])
        )

    async def _answer(self, call: Callable[[Redis], Awaitable[Any]]) -> Any:
        answer = await self._ask(call, _NOTHING)
        if answer is _NOTHING:
            raise IndexUnavailableError("Valkey does not answer")
        return answer

    @staticmethod
    def _complete(answer: T | None) -> T:
        if answer is None:
            raise IndexUnavailableError("the index is not complete")
        return answer


_NOTHING = object()


def _unit(name: bytes, score: bytes | float, class_id: int) -> Unit:
    return Unit(UUID(bytes=name[:UUID_BYTES]), class_id, int(float(score)))


async def _run_id(client: Redis) -> bytes:
    facts = await client.info("server")
    return str(facts["run_id"]).encode()
