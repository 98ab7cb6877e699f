"""Posting, filling, cancelling and expiring jobs: the money follows every task."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from gstd.kernel.settings import Policy
from gstd.ledger.errors import InsufficientFundsError
from gstd.modules import service as modules
from gstd.modules.errors import UnknownModuleError
from gstd.protocol.execution import Limits, TaskInput
from gstd.protocol.types import Role, Tier
from gstd.tasks.advance import expire_tasks
from gstd.tasks.errors import InvalidJobError, JobNotFoundError, RewardTooLowError
from gstd.tasks.jobs import close_jobs, expire_jobs, fill_jobs
from tests.world import CREDITS, REWARD, World, outcome


async def fill(world: World) -> int:
    return await world.run(
        lambda conn: fill_jobs(conn, world.blobs, world.policy, world.clock.now())
    )


async def rows_of(world: World, job_id: UUID) -> int:
    async with world.database.connection() as conn:
        count: int = await conn.fetchval("SELECT count(*) FROM task WHERE job_id = $1", job_id)
        return count


async def allotted(world: World, job_id: UUID) -> int:
    async with world.database.connection() as conn:
        amount: int = await conn.fetchval(
            "SELECT allotted FROM ledger.job_escrow WHERE job_id = $1", job_id
        )
        return amount


async def test_a_job_larger_than_the_balance_changes_nothing_at_all(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    price = int((await world.job()).quote.task_nano)
    before = await world.rows()
    with pytest.raises(InsufficientFundsError, match="the account has"):
        await world.job(requester, tasks=CREDITS // price + 1)
    assert await world.rows() == before
    await world.job(requester, tasks=CREDITS // price)
    await world.assert_sound()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"reward_nano": "999999"}, RewardTooLowError),
        ({"range": None}, InvalidJobError),
        ({"inputs": [TaskInput()]}, InvalidJobError),
        ({"limits": Limits(memory_bytes=65_536)}, InvalidJobError),
        ({"limits": Limits(memory_bytes=1 << 32)}, InvalidJobError),
        ({"range": None, "inputs": [TaskInput(stdin=b"x" * 65_537)]}, InvalidJobError),
        ({"reward_nano": str(2**63)}, InvalidJobError),
    ],
)
async def test_a_job_that_breaks_a_rule_changes_nothing(
    world: World, changes: dict[str, Any], error: type[Exception]
) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    await world.request()
    before = await world.rows()
    with pytest.raises(error):
        await world.job(requester, **changes)
    assert await world.rows() == before


@pytest.mark.parametrize("seconds", [-1, 0, 30 * 24 * 3600 + 1])
async def test_a_deadline_outside_a_jobs_life_is_refused(world: World, seconds: int) -> None:
    with pytest.raises(InvalidJobError, match="deadline"):
        await world.job(deadline=world.clock.now() + timedelta(seconds=seconds))


@pytest.mark.parametrize("name", ["00" * 32, "zz", ""])
async def test_an_unknown_module_is_refused(world: World, name: str) -> None:
    with pytest.raises(UnknownModuleError):
        await world.run(lambda conn: modules.module(conn, name))


async def test_racing_jobs_lock_no_more_than_the_account_has(world: World) -> None:
    price = int((await world.job()).quote.task_nano)
    requester = await world.account(Role.REQUESTER, credits=3 * price)
    results = await asyncio.gather(
        *(world.job(requester) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, InsufficientFundsError) for result in results) == 5
    assert await world.available(requester) == 0
    await world.assert_sound()


async def test_task_rows_are_made_in_chunks_as_they_are_claimed(world: World) -> None:
    job = await world.job(tasks=1000)
    each = int(job.quote.task_nano)
    device = await world.device()
    assert await fill(world) == 0
    for expected in (256, 512, 768, 1000):
        assert await rows_of(world, job.id) == expected
        assert await allotted(world, job.id) == expected * each
        await world.claim_all(device, await _queued(world, job.id))
        made = await fill(world)
        assert made == min(256, 1000 - expected)
    indexes = [task.index for task in await world.tasks(job.id)]
    assert indexes == list(range(500))
    counts = (await world.view(job.id)).counts
    assert (counts.tasks, counts.running, counts.queued) == (1000, 1000, 0)
    await world.assert_sound()


async def _queued(world: World, job_id: UUID) -> list[UUID]:
    async with world.database.connection() as conn:
        rows = await conn.fetch(
            "SELECT id FROM task WHERE job_id = $1 AND state = 'queued'", job_id
        )
        return [row["id"] for row in rows]


async def test_a_job_of_a_million_tasks_posts_quickly_with_few_rows(world: World) -> None:
    world.policy = Policy(referee_nano_per_gfuel=0)
    requester = await world.account(Role.REQUESTER, credits=2**62)
    await world.request()
    started = time.perf_counter()
    job = await world.job(requester, tasks=1_000_000, reward_nano="1000000")
    assert time.perf_counter() - started < 2
    assert await rows_of(world, job.id) == 256
    assert job.counts.queued == 1_000_000
    await world.cancel(requester, job.id)
    assert await world.available(requester) == 2**62
    await world.assert_sound()


async def test_cancelling_refunds_what_waits_but_not_what_is_being_verified(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    job = await world.job(requester, tasks=600)
    verifying, running, *_ = await world.tasks(job.id)
    device, other = await world.device(), await world.device()
    await world.submit(device, await world.claim(device, verifying.id))
    held = await world.claim(other, running.id)
    await world.cancel(requester, job.id)
    price = int(job.quote.task_nano)
    assert await world.available(requester) == CREDITS - price
    counts = (await world.view(job.id)).counts
    assert (counts.cancelled, counts.verifying) == (599, 1)
    [late] = await world.submit_all(other, [world.signed(other, held, outcome())])
    assert getattr(late, "code", "") == "attempt_over"
    await world.referee()
    assert (await world.task(verifying.id)).state == "accepted"
    money = (await world.view(job.id)).money
    assert (money.locked_nano, money.released_nano) == ("0", str(REWARD))
    before = await world.rows()
    await world.cancel(requester, job.id)
    assert await world.rows() == before
    await world.assert_sound()


async def test_nobody_cancels_somebody_elses_job(world: World) -> None:
    job = await world.job()
    stranger = await world.account(Role.REQUESTER)
    with pytest.raises(JobNotFoundError):
        await world.cancel(stranger, job.id)
    assert (await world.view(job.id)).state == "open"


async def test_the_deadline_refunds_everything_that_has_no_result(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    deadline = world.clock.now() + timedelta(hours=1)
    job = await world.job(requester, tasks=300, deadline=deadline)
    submitted, running, *_ = await world.tasks(job.id)
    devices = [await world.device() for _ in range(2)]
    await world.claim(devices[1], running.id)
    await world.submit(devices[0], await world.claim(devices[0], submitted.id))

    async def sweep() -> int:
        await world.run(lambda conn: expire_jobs(conn, world.clock.now()))
        return await world.run(lambda conn: expire_tasks(conn, world.policy, world.clock.now()))

    world.clock.advance(seconds=3599)
    assert await sweep() == 0
    world.clock.advance(seconds=1)
    assert await fill(world) == 0
    assert await sweep() == 255
    counts = (await world.view(job.id)).counts
    assert (counts.expired, counts.verifying) == (299, 1)
    assert await world.available(requester) == CREDITS - int(job.quote.task_nano)
    assert await world.run(lambda conn: close_jobs(conn, world.clock.now())) == []
    await world.referee()
    assert await world.run(lambda conn: close_jobs(conn, world.clock.now())) == [job.id]
    assert (await world.view(job.id)).money.locked_nano == "0"
    await world.assert_sound()


async def test_filling_races_cancelling_and_no_money_is_lost(world: World) -> None:
    world.policy = Policy(chunk_tasks=8)
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    for _ in range(6):
        job = await world.job(requester, tasks=40)
        device = await world.device()
        await world.claim_all(device, [task.id for task in await world.tasks(job.id)])
        await asyncio.gather(fill(world), world.cancel(requester, job.id), fill(world), fill(world))
        view = await world.view(job.id)
        assert (view.state, view.counts.cancelled, view.money.locked_nano) == ("cancelled", 40, "0")
        assert await fill(world) == 0
    assert await world.available(requester) == CREDITS
    await world.assert_sound()


async def test_claims_race_cancelling_and_no_attempt_survives(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    devices = [await world.device() for _ in range(6)]
    for _ in range(5):
        job = await world.job(requester, tasks=6, tier=Tier.QUORUM)
        ids = [task.id for task in await world.tasks(job.id)]
        await asyncio.gather(
            *(world.claim_all(device, ids) for device in devices[:3]),
            world.cancel(requester, job.id),
            *(world.claim_all(device, ids) for device in devices[3:]),
        )
        for task in await world.tasks(job.id):
            assert task.state == "cancelled"
            assert {attempt.state for attempt in task.attempts} <= {"cancelled"}
    assert await world.available(requester) == CREDITS
    await world.assert_sound()
