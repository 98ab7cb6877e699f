"""The queue index on a real Valkey: order, reservations, and what is left when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gstd.bus.bus import Bus
from gstd.bus.queue_index import IndexUnavailableError, Place, QueueIndex, Span, Unit
from gstd.embedded.valkey import EmbeddedValkey
from gstd.kernel.ids import new_id
from gstd.tasks.order import order_key
from tests.servers import running_valkey

LAST = (1 << 53) - 1
ALL = 1_000


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with running_valkey() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def bus(valkey: EmbeddedValkey) -> AsyncIterator[Bus]:
    async with Bus.open(valkey.address().url()) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def index(bus: Bus) -> QueueIndex:
    """An empty index of its own that is complete."""
    made = bus.queue_index(uuid4().hex)
    await made.finish(await made.begin())
    return made


def place(class_id: int, key: int, wanted: int = 1, task_id: UUID | None = None) -> Place:
    return Place(task_id or new_id(), class_id, key, wanted)


async def keys(index: QueueIndex, *classes: int, depth: int = ALL) -> list[int]:
    return sorted(unit.order_key for unit in await units(index, *classes, depth=depth))


async def units(index: QueueIndex, *classes: int, depth: int = ALL) -> list[Unit]:
    return [unit for lane in await index.heads(classes, depth) for unit in lane.units]


async def test_keys_of_53_bits_keep_every_bit(index: QueueIndex) -> None:
    exact = [LAST, LAST - 1, LAST - 2, (1 << 52) + 1, (1 << 52) + 3, 1, 0]
    await index.put([place(1, key) for key in exact])
    assert await keys(index, 1) == sorted(exact)
    found = await units(index, 1)
    await index.reserve([(1, unit.task_id, 1) for unit in found])
    await asyncio.sleep(0.05)
    assert await keys(index, 1) == sorted(exact)


async def test_heads_are_the_first_of_every_level_in_the_classes_asked_for(
    index: QueueIndex,
) -> None:
    tasks = {
        (class_id, level, ms): place(class_id, order_key(level, ms, class_id))
        for class_id in (1, 2, 3)
        for level in range(4)
        for ms in range(6)
    }
    await index.put(tasks.values())
    assert await index.classes() == {1, 2, 3}
    found = set(await units(index, 1, 3, depth=3))
    for level in range(4):
        first = [tasks[1, level, 0], tasks[3, level, 0], tasks[1, level, 1]]
        assert {Unit(one.task_id, one.class_id, one.order_key) for one in first} <= found
    assert all(unit.class_id != 2 for unit in found)


async def test_putting_again_moves_and_nothing_else(index: QueueIndex) -> None:
    task = place(1, order_key(3, 5, 0), wanted=2)
    for _ in range(3):
        await index.put([task])
    assert len(await units(index, 1)) == 2
    moved = Place(task.task_id, 1, order_key(0, 9, 0), 2)
    await index.put([moved])
    assert await keys(index, 1) == [moved.order_key] * 2
    await index.put([Place(task.task_id, 1, moved.order_key, 0)])
    assert await keys(index, 1) == []
    assert await index.classes() == set()


async def test_a_unit_is_reserved_by_one_only(index: QueueIndex) -> None:
    task = place(1, 7, wanted=2)
    await index.put([task])
    asks = [index.reserve([(1, task.task_id, 60_000)]) for _ in range(10)]
    assert sum([won for [won] in await asyncio.gather(*asks)]) == 2
    assert await index.classes() == set()


async def test_one_call_reserves_as_many_units_as_it_names(index: QueueIndex) -> None:
    task = place(1, 7, wanted=2)
    await index.put([task])
    assert await index.reserve([(1, task.task_id, 60_000)] * 3) == [True, True, False]


async def test_a_reservation_that_ends_brings_the_unit_back_where_it_belongs(
    index: QueueIndex,
) -> None:
    task = place(1, 7)
    await index.put([task])
    assert await index.reserve([(1, task.task_id, 100)]) == [True]
    await index.put([Place(task.task_id, 1, 3, 1)])  # moved while it was shown
    assert await keys(index, 1) == []
    await asyncio.sleep(0.15)
    assert await keys(index, 1) == [3]


async def test_a_claim_takes_a_reserved_unit_and_leaves_the_free_one(index: QueueIndex) -> None:
    task = place(1, 7, wanted=2)
    await index.put([task])
    await index.reserve([(1, task.task_id, 50)])
    await index.put([Place(task.task_id, 1, 7, 1)])
    assert await keys(index, 1) == [7]
    await asyncio.sleep(0.1)
    assert await keys(index, 1) == [7]
    await index.put([Place(task.task_id, 1, 7, 2)])  # a retry wants it again
    assert await keys(index, 1) == [7, 7]


async def test_a_flush_is_noticed_at_once_and_by_a_rebuild_under_way(
    index: QueueIndex, valkey: EmbeddedValkey
) -> None:
    task = place(1, 7)
    await index.put([task])
    assert await index.is_complete()
    client = Redis.from_url(valkey.address().url())
    await client.flushall()
    for call in (index.classes(), index.heads([1], 1), index.reserve([(1, task.task_id, 9)])):
        with pytest.raises(IndexUnavailableError):
            await call
    assert not await index.is_complete()
    token = await index.begin()
    await index.put([task])
    await client.flushall()
    assert not await index.finish(token)
    token = await index.begin()
    await index.put([task])
    assert await index.finish(token)
    assert await keys(index, 1) == [7]
    await client.aclose()


async def test_an_index_restored_from_disk_is_not_complete(
    bus: Bus, valkey: EmbeddedValkey
) -> None:
    name = uuid4().hex
    index = bus.queue_index(name)
    await index.finish(await index.begin())
    client = Redis.from_url(valkey.address().url())
    await client.set(f"gstd:{{queue:{name}}}:epoch", "another life of the server")
    assert not await index.is_complete()
    await client.aclose()


async def test_parts_of_classes_are_read_with_both_ends(index: QueueIndex) -> None:
    await index.put([place(1, key) for key in (1, 2, 3, LAST)])
    found = await index.within([Span(1, 2, 3), Span(1, 4, LAST), Span(2, 0, LAST)])
    assert [unit.order_key for unit in found] == [2, 3, LAST]


async def test_platforms_that_share_a_server_do_not_see_each_other(
    index: QueueIndex, bus: Bus
) -> None:
    other = bus.queue_index(uuid4().hex)
    await other.finish(await other.begin())
    await index.put([place(1, 7)])
    assert await other.classes() == set()


async def test_without_valkey_it_says_so() -> None:
    async with Bus.open(None) as bus:
        with pytest.raises(IndexUnavailableError):
            await bus.queue_index("x").classes()
