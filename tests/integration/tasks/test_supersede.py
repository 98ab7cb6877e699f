"""A parent is revised after others were built on it: they are superseded, their workers paid."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from gstd.kernel.settings import Policy
from gstd.ledger import repair
from gstd.protocol.execution import Outcome, TaskInput
from gstd.protocol.graphs import Feed, JobAfter
from gstd.protocol.types import Role
from gstd.tasks.jobs import close_jobs
from gstd.tasks.supersede import supersede_descendants
from tests.integration.tasks.mill import Mill, bracket, named
from tests.world import CREDITS, REWARD, World, outcome

AGAIN = TaskInput(args=("a",), seed=1)
"""The parent's work under another name, so that the referee does not know it yet."""


@pytest.fixture
async def mill(world: World) -> Mill:
    world.policy = Policy(max_retries=0)
    return await Mill.open(world)


def lying(item: TaskInput) -> Outcome:
    """What the parent wrote at first."""
    return outcome(b"lie") if item.args == ("a",) else bracket(item)


async def revise(mill: Mill, task_id: UUID) -> list[UUID]:
    """What verification does when an accepted result is found wrong while its reward is held."""
    world = mill.world

    async def work(conn: Any) -> list[UUID]:
        now = world.clock.now()
        found = await supersede_descendants(conn, [task_id], world.policy, now)
        rows = await conn.fetch("SELECT id FROM ledger.earning WHERE task_id = $1", task_id)
        await repair.reverse_earnings(conn, [row["id"] for row in rows], now)
        await conn.execute(
            "UPDATE attempt SET state = 'rejected', verdict = 'wrong' WHERE task_id = $1", task_id
        )
        await conn.execute(
            "UPDATE task SET state = 'queued', wanted = 1, revision = revision + 1, proven = false,"
            " input = $2, input_hash = $3 WHERE id = $1",
            task_id,
            msgspec.msgpack.encode(AGAIN),
            AGAIN.hash(),
        )
        return found

    return await world.run(work)


async def fill_restitution(mill: Mill, amount: int) -> None:
    """Forfeit a cheat's earning of so much."""
    world = mill.world
    rich = await world.account(Role.REQUESTER, credits=CREDITS)
    job = await world.job(rich, reward_nano=str(amount))
    [task] = await world.tasks(job.id)
    cheat = await world.device()
    await world.submit(cheat, await world.claim(cheat, task.id))
    await world.referee()
    now = world.clock.now()
    await world.run(lambda conn: repair.forfeit(conn, [cheat.actor.device_id], now))


async def chain(mill: Mill) -> UUID:
    """a → b → c, and d that only comes after a."""
    inputs = named("a", ("b", (0,)), ("c", (1,)), "e")
    [job] = await mill.post(await mill.request("chain", inputs))
    return job


async def another_worker(mill: Mill) -> Mill:
    return Mill(mill.world, mill.owner, await mill.world.device())


async def test_descendants_wait_again_and_restitution_pays_for_them(mill: Mill) -> None:
    job = await chain(mill)
    after = (JobAfter(job=str(job)),)
    [ordered] = await mill.post(
        await mill.request("ordered", named("o"), after=after, feed=Feed.NONE)
    )
    await mill.drain(lying)
    assert (await mill.outputs(job))[2] == b"c(b(lie))"
    await mill.world.run(lambda conn: close_jobs(conn, mill.world.clock.now()))
    assert (await mill.world.view(job)).state == "closed"
    await fill_restitution(mill, 10 * REWARD)
    released = int((await mill.world.view(job)).money.released_nano)
    superseded = await revise(mill, (await mill.task(job, 0)).id)
    assert len(superseded) == 2
    assert await mill.states(job) == "qbba"
    assert await mill.states(ordered) == "a"
    view = await mill.world.view(job)
    assert view.state == "open"
    assert view.money.restored_nano == str(2 * int(view.quote.task_nano))
    assert int(view.money.released_nano) == released - REWARD  # b and c keep their pay
    assert [(await mill.task(job, n)).revision for n in range(4)] == [1, 1, 1, 0]
    other = await another_worker(mill)
    await other.drain()
    assert (await mill.outputs(job))[2] == b"c(b(a()))"
    await mill.assert_over()


async def test_without_restitution_descendants_have_failed_for_good(mill: Mill) -> None:
    job = await chain(mill)
    await mill.drain(lying)
    price = int((await mill.world.view(job)).quote.task_nano)
    await fill_restitution(mill, price + 1_000)  # enough for one of two
    await revise(mill, (await mill.task(job, 0)).id)
    states = await mill.states(job)
    assert sorted(states) == ["a", "b", "f", "q"]
    [failed] = [task for task in await mill.world.tasks(job) if task.state == "failed"]
    assert failed.reason.startswith("superseded")
    assert failed.attempts[0].earning_state in {"held", "vested"}
    await (await another_worker(mill)).drain()
    await mill.assert_over()


async def test_what_runs_on_a_revised_input_starts_again_for_free(mill: Mill) -> None:
    job = await chain(mill)
    await mill.work([(await mill.task(job, 0)).id], lying)
    await mill.referee(lying)
    await mill.settle()
    running = await mill.world.claim(mill.device, (await mill.task(job, 1)).id)
    await revise(mill, (await mill.task(job, 0)).id)
    task = await mill.task(job, 1)
    assert (task.state, task.revision) == ("blocked", 1)
    [attempt] = task.attempts
    assert (attempt.id, attempt.state) == (running.attempt_id, "cancelled")
    await (await another_worker(mill)).drain()
    assert (await mill.outputs(job))[2] == b"c(b(a()))"
    assert (await mill.world.view(job)).money.restored_nano == "0"
    await mill.assert_over()


async def test_a_result_that_waits_for_its_verdict_is_paid_before_it_is_superseded(
    mill: Mill,
) -> None:
    await fill_restitution(mill, 10 * REWARD)
    job = await chain(mill)
    await mill.work([(await mill.task(job, 0)).id], lying)
    await mill.referee(lying)
    await mill.settle()
    await mill.work([(await mill.task(job, 1)).id], lying)
    await revise(mill, (await mill.task(job, 0)).id)
    assert (await mill.task(job, 1)).state == "verifying"
    await mill.referee(lying)
    assert (await mill.task(job, 1)).attempts[0].state == "accepted"
    await mill.settle()
    assert (await mill.task(job, 1)).state == "blocked"
    assert (await mill.task(job, 2)).revision == 0  # it had read nothing yet
    await (await another_worker(mill)).drain()
    assert (await mill.outputs(job))[2] == b"c(b(a()))"
    view = await mill.world.view(job)
    assert view.money.restored_nano == view.quote.task_nano
    await mill.assert_over()
