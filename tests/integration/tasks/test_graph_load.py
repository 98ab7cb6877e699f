"""A large random graph, drained by workers that do everything at once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import time
from collections.abc import Sequence

import msgspec
import pytest

from gstd.kernel.settings import Policy
from gstd.protocol.execution import Outcome, TaskInput
from gstd.protocol.graphs import JobInput
from gstd.tasks.opening import open_children
from tests.integration.tasks.mill import Mill
from tests.world import World, outcome

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
NODES = 2_000 * SCALE
PARENTS = 5
WORKERS = 4
BATCH = 100


def fingerprint(item: TaskInput) -> Outcome:
    """An output that differs whenever anything of the input does."""
    text = " ".join(item.args).encode() + b"|" + item.stdin
    return outcome(hashlib.sha256(text).hexdigest()[:16].encode())


def random_graph(nodes: int, seed: int) -> list[tuple[int, ...]]:
    """The parents of each node; they may have higher numbers than it."""
    rng = random.Random(seed)  # noqa: S311 - a test's graph
    order = list(range(nodes))
    rng.shuffle(order)
    parents: list[tuple[int, ...]] = [()] * nodes
    for place, node in enumerate(order):
        count = min(place, rng.randint(0, 2 * PARENTS - 1))
        parents[node] = tuple(order[at] for at in rng.sample(range(place), count))
    return parents


def expected(parents: Sequence[tuple[int, ...]]) -> dict[int, bytes]:
    """What every node must write, by a plain walk from the roots."""
    outputs: dict[int, bytes] = {}
    todo = list(range(len(parents)))
    while todo:
        left = []
        for node in todo:
            if all(parent in outputs for parent in parents[node]):
                stdin = b"".join(outputs[parent] for parent in parents[node])
                outputs[node] = fingerprint(TaskInput(args=(str(node),), stdin=stdin)).stdout
            else:
                left.append(node)
        assert len(left) < len(todo)
        todo = left
    return outputs


ACCEPT = """
WITH locked AS MATERIALIZED (
    SELECT id FROM task WHERE id = ANY ($2) ORDER BY id FOR NO KEY UPDATE
), done AS (
    UPDATE task t SET state = 'accepted', wanted = 0, proven = true, status = 'ok', exit_code = 0,
        output_hash = n.hash, output_bytes = 2
    FROM unnest($2::uuid[], $3::bytea[]) AS n (id, hash) JOIN locked USING (id)
    WHERE t.id = n.id AND t.state = 'queued' RETURNING t.index
)
INSERT INTO graph_news (about, job_id, first, last) SELECT 'ended', $1, index, index FROM done
"""
"""What ``advance`` does to tasks and to their graph, without the work and the money."""


@pytest.mark.timeout(1200)
async def test_opening_keeps_up_with_whatever_ends(world: World) -> None:
    world.policy = Policy(max_graph_nodes=10**6, max_graph_edges=10**6, chunk_tasks=NODES)
    mill = await Mill.open(world)
    parents = random_graph(NODES, seed=9)
    inputs = [JobInput(after=above) for above in parents]
    [job] = await mill.post(await mill.request("graph", inputs))
    names = [b"%02d" % number for number in range(64)]
    hashes = [await world.blobs.put(name) for name in names]
    begin = time.perf_counter()

    async def end_tasks() -> int:
        async with world.database.connection() as conn:
            rows = await conn.fetch(
                "UPDATE task SET priority = 3 WHERE id IN (SELECT id FROM task WHERE job_id = $1"
                " AND state = 'queued' AND priority <> 3 LIMIT 100 FOR UPDATE SKIP LOCKED)"
                " RETURNING id, index",
                job,
            )
            ids = sorted((row["id"], row["index"]) for row in rows)
            outputs = [hashes[index % 64] for _, index in ids]
            await conn.execute(ACCEPT, job, [task_id for task_id, _ in ids], outputs)
        return len(rows)

    async def worker() -> None:
        ended = 0
        while ended or await unfinished():
            ended = await end_tasks()
            await world.run(
                lambda conn: open_children(conn, world.blobs, world.policy, world.clock.now())
            )

    async def unfinished() -> bool:
        async with world.database.connection() as conn:
            return bool(
                await conn.fetchval(
                    "SELECT EXISTS (SELECT FROM task WHERE job_id = $1"
                    " AND state IN ('blocked', 'queued'))",
                    job,
                )
            )

    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    took, edges = time.perf_counter() - begin, sum(map(len, parents))
    sys.stderr.write(
        f"\n{NODES} nodes, {edges} edges: {NODES / took:.0f} nodes/s, {edges / took:.0f} edges/s\n"
    )
    async with world.database.connection() as conn:
        rows = await conn.fetch("SELECT index, input FROM task WHERE job_id = $1", job)
    for row in rows:
        stdin = b"".join(names[parent % 64] for parent in parents[row["index"]])
        assert msgspec.msgpack.decode(row["input"], type=TaskInput).stdin == stdin
    await assert_opened_once(world, parents)


async def assert_opened_once(world: World, parents: Sequence[tuple[int, ...]]) -> None:
    """Every task that waited was queued once, and nobody deadlocked."""
    async with world.database.connection() as conn:
        opened = await conn.fetchval("SELECT count(*) FROM event_outbox WHERE kind = 'task.queued'")
        deadlocks = await conn.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    assert opened == sum(bool(above) for above in parents)
    assert deadlocks == 0


@pytest.mark.timeout(1200)
async def test_a_large_graph_is_drained_without_a_wrong_opening_or_a_deadlock(
    world: World,
) -> None:
    world.policy = Policy(max_graph_nodes=10**6, max_graph_edges=10**6, chunk_tasks=NODES)
    mill = await Mill.open(world)
    parents = random_graph(NODES, seed=25)
    inputs = [JobInput(args=(str(node),), after=above) for node, above in enumerate(parents)]
    begin = time.perf_counter()
    [job] = await mill.post(await mill.request("graph", inputs))
    posted = time.perf_counter() - begin
    mills = [Mill(world, mill.owner, await world.device()) for _ in range(WORKERS)]
    rng = random.Random(1)  # noqa: S311 - a test's order

    async def is_over() -> bool:
        async with world.database.connection() as conn:
            count = await conn.fetchval(
                "SELECT count(*) FROM task WHERE job_id = $1 AND state = 'accepted'", job
            )
            return bool(count == NODES)

    opening = [0.0]

    async def worker(own: Mill) -> None:
        while not await is_over():
            start = time.perf_counter()
            while await world.run(
                lambda conn: open_children(conn, world.blobs, world.policy, world.clock.now())
            ):
                pass
            opening[0] += time.perf_counter() - start
            ids = await own.ready(limit=BATCH * WORKERS)
            if not ids:
                await asyncio.sleep(0.05)
            await own.work(rng.sample(ids, min(BATCH, len(ids))), fingerprint)
            await own.referee(fingerprint)

    await asyncio.gather(*map(worker, mills))
    took = time.perf_counter() - begin
    edges = sum(map(len, parents))
    sys.stderr.write(
        f"\n{NODES} nodes, {edges} edges: posted in {posted:.1f} s, drained at {NODES / took:.0f}"
        f" nodes/s, opened at {NODES / opening[0]:.0f} nodes/s\n"
    )
    assert await mill.outputs(job) == expected(parents)
    await mill.settle()
    await assert_opened_once(world, parents)
    await mill.assert_over()
