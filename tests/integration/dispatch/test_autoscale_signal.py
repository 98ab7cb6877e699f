"""What the autoscale signal is measured from, on a real database, and that measuring is cheap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gstd.bus.bus import Bus
from gstd.database.sql import load_queries
from gstd.dispatch.autoscale import Load
from gstd.dispatch.signal import (
    ATTEMPTS_LATELY,
    COUNTED,
    HASHES_PER_S,
    ONLINE_WITHIN_MS,
    Signal,
    measure,
)
from gstd.kernel.settings import Policy
from gstd.protocol.types import Tier
from gstd.protocol.work import ReleaseReason
from gstd.tasks import jobs
from gstd.tasks.advance import admit_delayed
from tests.servers import until
from tests.world import World

PROOF_S = 16 * 2**4 / HASHES_PER_S
"""What ``World.claim`` solves."""


async def load(world: World) -> Load:
    return await world.run(lambda conn: measure(conn, world.policy, world.clock.now()))


async def test_an_empty_platform_has_no_load(world: World) -> None:
    assert await load(world) == Load(backlog=0, arrived=0, service_s=None, running=0)


async def test_rows_and_tasks_that_are_not_made_yet_wait(world: World) -> None:
    world.policy = Policy(chunk_tasks=4)
    job = await world.job(tasks=10)
    assert (await world.view(job.id)).counts.tasks == 10
    assert len(await world.tasks(job.id)) == 4
    assert (await load(world)).backlog == 10


async def test_every_copy_of_a_quorum_is_an_attempt(world: World) -> None:
    world.policy = Policy(chunk_tasks=2)
    await world.job(tasks=5, tier=Tier.QUORUM, quorum=3)
    found = await load(world)
    assert (found.backlog, found.arrived) == (15, 15)


async def test_a_claim_moves_an_attempt_from_the_backlog_to_what_runs(world: World) -> None:
    job = await world.job(tasks=3)
    device = await world.device()
    await world.claim(device, (await world.tasks(job.id))[0].id)
    found = await load(world)
    assert (found.backlog, found.running, found.arrived) == (2, 1, 3)


async def test_what_waits_for_its_retry_is_not_ready(world: World) -> None:
    job = await world.job()
    device = await world.device()
    claimed = await world.claim(device, (await world.tasks(job.id))[0].id)
    await world.release(device, claimed, ReleaseReason.HOST_FAULT)
    assert (await load(world)).backlog == 0
    world.clock.advance(seconds=2)
    await world.run(lambda conn: admit_delayed(conn, world.clock.now()))
    assert (await load(world)).backlog == 1


async def test_arrivals_are_forgotten_after_a_while_and_when_a_job_is_cancelled(
    world: World,
) -> None:
    job = await world.job(tasks=6)
    assert (await load(world)).arrived == 6
    world.clock.advance(seconds=world.policy.autoscale_arrivals_s)
    later = await load(world)
    assert (later.arrived, later.backlog) == (0, 6)
    owner = await world.run(
        lambda c: c.fetchval("SELECT account_id FROM job WHERE id = $1", job.id)
    )
    await world.run(lambda c: jobs.cancel_job(c, owner, job.id, world.policy, world.clock.now()))
    assert (await load(world)).backlog == 0


async def test_the_service_time_is_the_mean_of_what_was_submitted_last(world: World) -> None:
    job = await world.job(tasks=3)
    device = await world.device()
    for task, seconds in zip(await world.tasks(job.id), (2, 4, 9), strict=True):
        claimed = await world.claim(device, task.id)
        world.clock.advance(seconds=seconds)
        await world.submit(device, claimed)
    assert (await load(world)).service_s == pytest.approx(5 + PROOF_S)


async def test_devices_count_as_online_while_they_are_heard_of(world: World) -> None:
    async with Bus.open(None) as bus:
        now_ms = int(world.clock.now().timestamp() * 1000)
        await bus.touch("here", now_ms)
        await bus.touch("gone", now_ms - ONLINE_WITHIN_MS - 1)
        await world.job(tasks=12)
        signal = await Signal(world.database, bus, world.policy, world.clock).read()
    assert (signal.online_devices, signal.backlog, signal.desired_slots) == (1, 12, 2)
    assert signal.expected_wait_s == 60.0


async def test_many_who_ask_at_once_cost_one_measurement(world: World) -> None:
    async with Bus.open(None) as bus:
        signal = Signal(world.database, bus, world.policy, world.clock)
        answers = await asyncio.gather(*(signal.read() for _ in range(20)))
        assert all(answer is answers[0] for answer in answers)
        await world.job(tasks=3)
        await until(lambda: _backlog_is(signal, 3))


async def _backlog_is(signal: Signal, backlog: int) -> bool:
    return (await signal.read()).backlog == backlog


async def test_measuring_reads_indexes_and_never_a_whole_table(world: World) -> None:
    statement = load_queries("gstd.dispatch")["autoscale_load"]

    async def plan(connection: Any) -> str:
        # Tables of a test are so small that reading them whole would be right.
        await connection.execute("SET LOCAL enable_seqscan = off")
        now = world.clock.now()
        explained = f"EXPLAIN (COSTS OFF) {statement}"
        arguments = (now, now, COUNTED, ATTEMPTS_LATELY, HASHES_PER_S)
        return "\n".join(row[0] for row in await connection.fetch(explained, *arguments))

    found = await world.run(plan)
    assert "Seq Scan" not in found
    for index in ("job_created", "attempt_submitted", "attempt_lease"):
        assert index in found, found
