"""Coalescing: the items of everybody who calls at about the same time are one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from itertools import islice
from typing import Generic, TypeVar

from gstd.api.errors import ShuttingDownError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

Work = Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]]
"""Does a batch: one outcome per item, in the same order."""

CLOSING_S = 5.0
"""How long the batches of a closing coalescer may still take."""


class _Call(Generic[Item, Outcome]):
    """The items of one caller and where it waits for their outcomes."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

    def succeed(self, outcomes: list[Outcome]) -> None:
        if not self.answer.done():  # else its caller hung up
            self.answer.set_result(outcomes)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Coalescer(Generic[Item, Outcome]):
    """Runs ``work`` on batches, at most ``lanes`` of them at a time.

    A call that finds a free lane starts at once and alone; while all lanes run, calls collect and
    the next batch takes them in the order in which they came, up to ``size`` items (a larger call
    is a batch of its own). What ``work`` raises goes to all callers of that batch.

    A caller that is cancelled before its batch began takes its items with it; after that they are
    done like all others, and nobody else notices.
    """

    def __init__(self, work: Work[Item, Outcome], *, size: int, lanes: int = 1) -> None:
        self._work = work
        self._size = size
        self._lanes = lanes
        self._waiting: deque[_Call[Item, Outcome]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The outcomes of these items. Raises what the batch raised, or ``ShuttingDownError``."""
        if self._is_closed:
            raise ShuttingDownError
        if not items:
            return []
        call: _Call[Item, Outcome] = _Call(items)
        self._waiting.append(call)
        if len(self._running) < self._lanes:
            # A lane serves many callers: it is of nobody's task and context.
            self._running.add(asyncio.create_task(self._lane(), context=Context()))
        return await call.answer

    async def close(self) -> None:
        """Answer everybody who waits and take nobody new."""
        self._is_closed = True
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=CLOSING_S)
            for lane in late:
                lane.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for call in self._waiting:
            call.fail(ShuttingDownError())
        self._waiting.clear()

    async def _lane(self) -> None:
        try:
            while calls := self._next_batch():
                await self._serve(calls)
        finally:  # here and not in a callback: a call that comes meanwhile would find no lane
            task = asyncio.current_task()
            assert task is not None
            self._running.discard(task)

    def _next_batch(self) -> list[_Call[Item, Outcome]]:
        taken: list[_Call[Item, Outcome]] = []
        room = self._size
        while self._waiting and (not taken or len(self._waiting[0].items) <= room):
            call = self._waiting.popleft()
            if not call.answer.done():
                taken.append(call)
                room -= len(call.items)
        return taken

    async def _serve(self, calls: Sequence[_Call[Item, Outcome]]) -> None:
        items = [item for call in calls for item in call.items]
        try:
            outcomes = await self._work(items)
            assert len(outcomes) == len(items), "one outcome per item"
        except asyncio.CancelledError:
            for call in calls:
                call.fail(ShuttingDownError())
            raise
        except Exception as error:  # noqa: BLE001 - it is the callers' to handle
            for call in calls:
                call.fail(error)
            return
        rest = iter(outcomes)
        for call in calls:
            call.succeed(list(islice(rest, len(call.items))))
