"""Coalescing: everybody gets the outcomes of their own items, whoever else is in the batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.api import coalescer as coalescing
from gstd.api.coalescer import Coalescer
from gstd.api.errors import ShuttingDownError


class Gate:
    """Work that notes its batches and, while shut, keeps them waiting."""

    def __init__(self, *, lanes: int = 1, size: int = 100) -> None:
        self.batches: list[list[int]] = []
        self.ended = 0
        self.running = self.most_running = 0
        self.open = asyncio.Event()
        self.open.set()
        self.coalescer: Coalescer[int, int] = Coalescer(self._work, size=size, lanes=lanes)

    async def _work(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.open.wait()
            if -1 in items:
                raise ConnectionError("the database is away")
            return [10 * item for item in items]
        finally:
            self.running -= 1
            self.ended += 1

    def call(self, *items: int) -> asyncio.Task[list[int]]:
        return asyncio.create_task(self.coalescer.run(items))


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def busy(gate: Gate) -> AsyncIterator[None]:
    """While the block runs one batch is under way."""
    gate.open.clear()
    first = gate.call(0)
    await settled()
    yield
    gate.open.set()
    assert await first == [0]


async def test_a_lone_call_starts_at_once() -> None:
    gate = Gate()
    call = gate.call(1, 2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gate.batches == [[1, 2]]
    assert await call == [10, 20]


async def test_calls_that_come_while_a_batch_runs_are_the_next_one_in_their_order() -> None:
    gate = Gate()
    async with busy(gate):
        calls = [gate.call(1, 2), gate.call(3), gate.call(4, 5, 6)]
        await settled()
    assert await asyncio.gather(*calls) == [[10, 20], [30], [40, 50, 60]]
    assert gate.batches == [[0], [1, 2, 3, 4, 5, 6]]


async def test_nothing_asked_is_nothing_done() -> None:
    gate = Gate()
    assert await gate.call() == []
    assert gate.batches == []


async def test_a_batch_keeps_to_its_size_and_nobody_is_overtaken() -> None:
    gate = Gate(size=4)
    async with busy(gate):
        calls = [gate.call(1, 2), gate.call(3, 3, 3), gate.call(4), gate.call(*[5] * 9)]
        calls += [gate.call(6)]
        await settled()
    await asyncio.gather(*calls)
    assert gate.batches == [[0], [1, 2], [3, 3, 3, 4], [5] * 9, [6]]


async def test_no_more_batches_run_at_a_time_than_there_are_lanes() -> None:
    gate = Gate(lanes=2, size=1)
    gate.open.clear()
    calls = [gate.call(number) for number in range(10)]
    await settled()
    assert gate.batches == [[0], [1]]
    gate.open.set()
    assert await asyncio.gather(*calls) == [[10 * number] for number in range(10)]
    assert gate.most_running == 2


async def test_a_failure_goes_to_everybody_of_its_batch_and_to_nobody_else() -> None:
    gate = Gate(size=2)
    async with busy(gate):
        calls = [gate.call(item) for item in (1, -1, 2, 3)]
        await settled()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(item) for item in found] == [ConnectionError, ConnectionError, list, list]


async def test_work_that_answers_too_little_answers_nobody() -> None:
    async def forgetful(items: Sequence[int]) -> list[int]:
        return list(items)[1:]

    with pytest.raises(AssertionError, match="one outcome per item"):
        await Coalescer(forgetful, size=9).run([1, 2])


async def test_who_hangs_up_before_the_batch_begins_takes_the_items_along() -> None:
    gate = Gate()
    async with busy(gate):
        stays, leaves = gate.call(1), gate.call(2)
        await settled()
        leaves.cancel()
        await settled()
    assert await stays == [10]
    assert gate.batches == [[0], [1]]


async def test_who_hangs_up_during_the_batch_costs_nobody_anything() -> None:
    gate = Gate()
    async with busy(gate):
        stays, leaves = gate.call(1), gate.call(2)
        await settled()
        gate.open.set()
        gate.open.clear()
        await settled()
        assert gate.batches == [[0], [1, 2]]
        leaves.cancel()
        await settled()
    assert await stays == [10]
    assert gate.ended == 2
    assert leaves.cancelled()


async def test_the_caller_whose_call_began_the_lane_may_hang_up_too() -> None:
    gate = Gate()
    gate.open.clear()
    first = gate.call(1)
    await settled()
    second = gate.call(2)
    first.cancel()
    await settled()
    gate.open.set()
    assert await second == [20]
    assert gate.batches == [[1], [2]]


async def test_a_lane_runs_in_nobodys_context() -> None:
    caller: ContextVar[str] = ContextVar("caller", default="nobody")

    async def whose(items: Sequence[int]) -> list[str]:
        return [caller.get() for _ in items]

    caller.set("somebody")
    assert await Coalescer(whose, size=1).run([1]) == ["nobody"]


async def test_closing_answers_who_waits_and_refuses_who_comes() -> None:
    gate = Gate(size=1)
    gate.open.clear()
    calls = [gate.call(1), gate.call(2)]
    await settled()
    closing = asyncio.create_task(gate.coalescer.close())
    await settled()
    with pytest.raises(ShuttingDownError):
        await gate.coalescer.run([3])
    assert not closing.done()
    gate.open.set()
    await closing
    assert await asyncio.gather(*calls) == [[10], [20]]
    assert gate.batches == [[1], [2]]


async def test_a_batch_that_hangs_keeps_nobody_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalescing, "CLOSING_S", 0.01)
    gate = Gate(size=1)
    gate.open.clear()
    calls = [gate.call(1), gate.call(2)]
    await settled()
    await gate.coalescer.close()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(item) for item in found] == [ShuttingDownError, ShuttingDownError]
    assert gate.running == 0


async def test_a_call_at_the_moment_a_lane_ends_is_served() -> None:
    gate = Gate()
    for number in range(200):
        first = gate.call(number)
        for _ in range(number % 8):
            await asyncio.sleep(0)
        second = gate.call(-number - 2)
        assert await asyncio.wait_for(first, 1) == [10 * number]
        assert await asyncio.wait_for(second, 1) == [-10 * number - 20]


@given(
    sizes=st.lists(st.integers(0, 7), max_size=30),
    pauses=st.lists(st.integers(0, 3), min_size=30, max_size=30),
    hang_ups=st.sets(st.integers(0, 29)),
    lanes=st.integers(1, 3),
    size=st.integers(1, 8),
)
def test_any_mix_of_calls_gets_its_own_outcomes_and_everything_once(
    sizes: list[int], pauses: list[int], hang_ups: set[int], lanes: int, size: int
) -> None:
    async def scene() -> None:
        gate = Gate(lanes=lanes, size=size)
        calls = []
        for number, (length, pause) in enumerate(zip(sizes, pauses, strict=False)):
            calls.append(gate.call(*range(100 * number, 100 * number + length)))
            for _ in range(pause):
                await asyncio.sleep(0)
            if number in hang_ups:
                calls[number].cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        done = [item for batch in gate.batches for item in batch]
        assert len(done) == len(set(done))
        assert gate.most_running <= lanes
        for number, (length, outcomes) in enumerate(zip(sizes, found, strict=True)):
            items = range(100 * number, 100 * number + length)
            if isinstance(outcomes, list):
                assert outcomes == [10 * item for item in items]
                assert set(items) <= set(done)
            else:
                assert number in hang_ups
        if lanes == 1:
            assert done == sorted(done)

    asyncio.run(scene())
