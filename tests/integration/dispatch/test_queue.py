"""The queue's heads from the rows and from the index: the same order, read from one index each."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from gstd.bus.bus import Bus
from gstd.bus.queue_index import LAST_KEY, Span
from gstd.database.connection import Connection
from gstd.database.sql import load_queries
from gstd.dispatch import claims
from gstd.dispatch.indexing import Indexer
from gstd.dispatch.queue import Candidate, IndexedQueue, Queue, SqlQueue
from gstd.embedded.valkey import EmbeddedValkey
from gstd.protocol.execution import Limits
from gstd.protocol.types import Priority, Tier
from tests.servers import running_valkey
from tests.world import World

MANY = 20_000


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with running_valkey() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def bus(valkey: EmbeddedValkey) -> AsyncIterator[Bus]:
    async with Bus.open(valkey.address().url()) as made:
        yield made


@pytest.fixture
def indexer(world: World, bus: Bus) -> Indexer:
    """Follows what is committed; the index is not complete before it is rebuilt."""
    made = Indexer(world.database, bus, world.clock)
    made.follow()
    return made


async def class_ids(world: World, queue: Queue) -> set[int]:
    async with world.database.connection() as connection:
        return {needs.id for needs in await queue.classes(connection)}


async def heads(world: World, queue: Queue, classes: Collection[int], depth: int) -> list[UUID]:
    """The first tasks of each level, in order of their keys."""
    async with world.database.connection() as connection:
        found = await queue.heads(connection, classes, depth, world.clock.now())
    taken: dict[int, list[Candidate]] = {}
    for task in found.tasks:
        taken.setdefault(task.order_key >> 51, []).append(task)
    return [task.task_id for level in sorted(taken) for task in taken[level][:depth]]


async def jobs_of_all_kinds(world: World, dice: random.Random, count: int) -> None:
    for number in range(count):
        world.clock.advance(milliseconds=dice.randrange(50))
        await world.job(
            tasks=dice.randint(1, 6),
            priority=dice.choice(list(Priority)),
            deadline=world.clock.now() + timedelta(seconds=dice.choice([60, 600, 90_000])),
            reward_nano=str(1_000_000 + number % 4),
            tier=dice.choice([Tier.FULL, Tier.FULL, Tier.QUORUM]),
        )


async def units(indexer: Indexer, classes: Collection[int]) -> dict[UUID, int]:
    """The free units of each task that the index knows."""
    found: dict[UUID, int] = {}
    for unit in await indexer.index.within([Span(one, 0, LAST_KEY) for one in sorted(classes)]):
        found[unit.task_id] = found.get(unit.task_id, 0) + 1
    return found


async def wanted(world: World) -> dict[UUID, int]:
    rows = await world.run(
        lambda conn: conn.fetch(
            "SELECT id, wanted FROM task WHERE wanted > 0 AND NOT delayed AND deadline > $1",
            world.clock.now(),
        )
    )
    return {row["id"]: row["wanted"] for row in rows}


@pytest.mark.parametrize("seed", range(3))
async def test_index_and_rows_give_the_same_order(
    world: World, bus: Bus, indexer: Indexer, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test's dice
    await jobs_of_all_kinds(world, dice, 8)
    await indexer.rebuild()
    await jobs_of_all_kinds(world, dice, 8)  # these come by hints
    world.clock.advance(seconds=61)  # some are too late now
    rows, index = SqlQueue(bus), IndexedQueue(indexer.index, indexer)
    classes = await class_ids(world, rows)
    assert classes == await class_ids(world, index)
    for asked in (classes, set(list(classes)[:2])):
        everything = await heads(world, rows, asked, 1_000)
        assert everything == await heads(world, index, asked, 1_000)
        for depth in (1, 3, 10):
            found = await heads(world, rows, asked, depth)
            of_index = await heads(world, index, asked, depth)
            # The index counts units, so its depth may end sooner: never with another order.
            shared = set(found) & set(of_index)
            assert [task for task in found if task in shared] == of_index
            assert found[0] == of_index[0]
            assert [task for task in everything if task in set(found)] == found


async def test_hints_follow_every_change_of_a_task(world: World, indexer: Indexer) -> None:
    await indexer.rebuild()
    quorum = await world.job(tasks=2, tier=Tier.QUORUM)
    plain = await world.job(tasks=3)
    rows = SqlQueue(Bus(None))

    async def same() -> None:
        assert await units(indexer, await class_ids(world, rows)) == await wanted(world)

    await same()
    device, other = await world.device(), await world.device()
    [first, _] = await world.tasks(quorum.id)
    held = await world.claim(device, first.id)
    await same()
    await world.claim(other, first.id)
    await same()
    await world.release(device, held)  # delayed now
    await same()
    [one, *_] = await world.tasks(plain.id)
    await world.submit(device, await world.claim(device, one.id))
    await same()
    world.clock.advance(seconds=3600)
    await world.expire_leases()
    await same()


async def test_what_is_rolled_back_is_not_told(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    item = world.solved(device, task.id)
    heard: list[set[UUID]] = []

    async def hear(tasks: set[UUID]) -> None:
        heard.append(tasks)

    async def half(connection: Connection) -> None:
        policy, now = world.policy, world.clock.now()
        proven = claims.Proven(device.actor, item)
        await claims.claim(connection, [proven], policy, now)
        raise LookupError

    world.database.tell(hear)
    with pytest.raises(LookupError):
        await world.run(half)
    assert heard == []
    await world.claim_items(device, [item])
    assert heard == [{task.id}]


async def test_a_lost_hint_is_made_good(world: World, indexer: Indexer) -> None:
    await indexer.rebuild()
    world.database.tell(_deaf)
    await world.job(tasks=3)
    kept = await world.job(tasks=3, reward_nano="2000000")
    device = await world.device()
    await world.claim_all(device, [task.id for task in await world.tasks(kept.id)])
    rows = SqlQueue(Bus(None))
    assert await units(indexer, {1, 2}) == {}
    assert await indexer.reconcile() == 3
    assert await units(indexer, await class_ids(world, rows)) == await wanted(world)
    assert await indexer.reconcile() == 0


async def _deaf(_: set[UUID]) -> None:
    """Hears nothing."""


async def test_what_only_the_index_has_is_cleared_away(world: World, indexer: Indexer) -> None:
    await indexer.rebuild()
    job = await world.job(tasks=4)
    world.database.tell(_deaf)
    device = await world.device()
    await world.claim_all(device, [task.id for task in await world.tasks(job.id)])
    stale = await indexer.index.classes()
    assert sum((await units(indexer, stale)).values()) == 4
    index = IndexedQueue(indexer.index, indexer)
    assert await heads(world, index, stale, 2) == []  # each look clears what it met
    assert await units(indexer, stale) == {}


async def test_reconciling_clears_classes_that_no_row_has_any_more(
    world: World, indexer: Indexer
) -> None:
    await indexer.rebuild()
    job = await world.job(tasks=4)
    world.database.tell(_deaf)
    device = await world.device()
    await world.claim_all(device, [task.id for task in await world.tasks(job.id)])
    await indexer.reconcile()
    assert await indexer.index.classes() == set()


async def fill_with_copies(superuser_url: str, count: int) -> None:
    """More tasks of every job, in one statement and without statistics."""
    admin = await asyncpg.connect(superuser_url)
    try:
        await admin.execute("ALTER TABLE task SET (autovacuum_enabled = off)")
        await admin.execute(
            "INSERT INTO task (id, job_id, index, shard, state, reason, wanted, available_at,"
            " priority, deadline, class_id, order_key, input, input_hash, created_at, updated_at)"
            " SELECT gen_random_uuid(), job_id, index + 1 + n, shard, state, reason, wanted,"
            " available_at, priority, deadline, class_id, order_key + 1024 * n, input, input_hash,"
            " created_at, updated_at FROM task, generate_series(1, $1) AS n",
            count,
        )
    finally:
        await admin.close()


@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_heads_are_read_from_the_ready_index_only(
    world: World, database_urls: dict[str, str], is_analyzed: bool
) -> None:
    for reward in range(3):
        await world.job(reward_nano=str(1_000_000 + reward))
    await fill_with_copies(database_urls["superuser"], MANY // 3)
    sql = load_queries("gstd.dispatch")
    admin = await asyncpg.connect(database_urls["superuser"])
    if is_analyzed:
        await admin.execute("VACUUM ANALYZE task")
    now = world.clock.now()
    rows = await admin.fetch(sql["heads"], [1, 2, 3], 4, now)
    ids = [row["task_id"] for row in rows]
    for name, index, arguments in (
        ("ready_classes", "task_ready", ()),
        ("heads", "task_ready", ([1, 2, 3], 4, now)),
        ("candidates", "task_pkey", (ids, now)),
        ("places", "task_pkey", (ids, now)),
    ):
        text = await admin.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {sql[name]}", *arguments
        )
        nodes = _nodes(msgspec.json.decode(text)[0]["Plan"])
        indexes = {node.get("Index Name", "") for node in nodes}
        assert {used for used in indexes if used.startswith("task_")} == {index}, name
        of_tasks = [node for node in nodes if node.get("Relation Name") == "task"]
        assert all("Seq" not in node["Node Type"] for node in of_tasks), name
        assert all(node["Actual Rows"] <= len(ids) for node in of_tasks), name
        if index == "task_ready":
            assert {node["Node Type"] for node in of_tasks} == {"Index Only Scan"}
    await admin.close()


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", []) for node in _nodes(below))]


@pytest.mark.parametrize("by_index", [True, False])
async def test_a_class_that_is_not_asked_for_costs_nothing(
    world: World, database_urls: dict[str, str], bus: Bus, indexer: Indexer, by_index: bool
) -> None:
    """However many tasks stand before it that nobody here can run."""
    await world.job(priority=Priority.CRITICAL, limits=Limits(memory_bytes=512 << 20))
    await fill_with_copies(database_urls["superuser"], MANY)
    job = await world.job(priority=Priority.LOW)
    await indexer.rebuild()
    queue: Queue = IndexedQueue(indexer.index, indexer) if by_index else SqlQueue(bus)
    async with world.database.connection() as connection:
        [small] = [
            needs.id for needs in await queue.classes(connection) if needs.memory_bytes < 512 << 20
        ]
        found = await queue.heads(connection, [small], 1, world.clock.now())
    assert [task.job_id for task in found.tasks] == [job.id]
