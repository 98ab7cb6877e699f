"""The referee's queue when referees die, fail, or meet a cancelled job."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gstd.bus.bus import Bus
from gstd.protocol.execution import Limits, Outcome, TaskInput
from gstd.protocol.jobs import JobView, TaskView
from gstd.protocol.types import Role
from gstd.sandbox.runner import Sandbox
from gstd.tasks import jobs
from gstd.verification import runs
from gstd.verification.referee import Referee
from gstd.verification.results import result_of
from tests.servers import until
from tests.world import CREDITS, World, outcome


async def take(world: World) -> list[runs.Run]:
    return await world.run(lambda conn: runs.take_runs(conn, 10, world.policy, world.clock.now()))


async def fail_for_good(world: World) -> None:
    for _ in range(world.policy.referee_tries):
        await fail_once(world)


async def fail_once(world: World) -> None:
    ends = [runs.Failed(run, "broken") for run in await take(world)]
    await world.run(lambda conn: runs.record_runs(conn, ends, world.policy, world.clock.now()))


async def submit_one(world: World, output: bytes = b"") -> tuple[JobView, TaskView]:
    """A task of the same work as every other first task, with a result that waits."""
    job = await world.job()
    [task] = await world.tasks(job.id)
    device = await world.device()
    result = outcome(output) if output else outcome()
    await world.submit(device, await world.claim(device, task.id), result)
    return job, task


async def test_work_that_failed_for_one_task_is_run_anew_for_the_next(world: World) -> None:
    await submit_one(world)
    await fail_for_good(world)
    assert await take(world) == []
    job, _ = await submit_one(world)
    assert await world.referee() == 1
    assert (await world.view(job.id)).counts.accepted == 1
    await world.assert_sound()


async def test_a_run_that_kills_its_referees_ends_and_its_task_is_refunded(world: World) -> None:
    job, task = await submit_one(world)
    for _ in range(world.policy.referee_tries):
        assert len(await take(world)) == 1
        world.clock.advance(seconds=world.policy.referee_lease_ms / 1000)
    assert await take(world) == []
    assert await world.run(lambda c: runs.abandon_runs(c, world.policy, world.clock.now())) == 1
    await world.advance(task.id)
    ended = await world.task(task.id)
    assert (ended.state, ended.attempts[0].verdict) == ("failed", "unproven")
    assert (await world.view(job.id)).money.locked_nano == "0"
    await world.assert_sound()


async def test_a_referee_that_stops_gives_its_runs_back_at_once(world: World) -> None:
    await submit_one(world)
    for _ in range(world.policy.referee_tries + 1):
        await take_and_return(world)


async def take_and_return(world: World) -> None:
    taken = await take(world)
    assert len(taken) == 1
    await world.run(lambda conn: runs.return_runs(conn, taken))


class HeldSandbox(Sandbox):
    """Begins runs and ends them when it is told."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def run(self, module: bytes | Path, task: TaskInput, limits: Limits) -> Outcome:  # noqa: ARG002
        self.begun += 1
        await self.may_end.wait()
        return outcome()


async def test_a_referee_that_takes_its_own_run_anew_goes_on(world: World) -> None:
    """As after an outage of the database that was longer than its lease."""
    job, _ = await submit_one(world)
    sandbox = HeldSandbox()
    async with Bus.open(None) as bus:
        referee = Referee(
            world.database, world.blobs, bus, sandbox, world.policy, world.clock, slots=2
        )
        serving = asyncio.create_task(referee.serve())
        await until(lambda: sandbox.begun == 1)
        world.clock.advance(milliseconds=world.policy.referee_lease_ms)
        await until(lambda: sandbox.begun == 2)
        sandbox.may_end.set()

        async def is_accepted() -> bool:
            return (await world.view(job.id)).counts.accepted == 1

        await until(is_accepted)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
    await world.assert_sound()


async def test_a_verdict_that_waits_for_a_cancel_sees_the_cancelled_job(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    job = await world.job(requester)
    [task] = await world.tasks(job.id)
    device = await world.device()
    await world.submit(device, await world.claim(device, task.id), outcome(b"wrong"))
    [run] = await take(world)
    await world.blobs.put(outcome().stdout)
    end = runs.Finished(run, result_of(run.work(), outcome()))
    now = world.clock.now()
    await world.run(lambda conn: runs.record_runs(conn, [end], world.policy, now))

    async def is_waiting() -> bool:
        async with world.database.connection() as connection:
            found: int = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        return found == 1

    async with world.database.transaction() as cancelling:
        await jobs.cancel_job(cancelling, requester, job.id, world.policy, now)
        judging = asyncio.ensure_future(
            world.run(lambda conn: runs.judge_waiting(conn, [run.id], world.policy, now))
        )
        await until(is_waiting)
    await judging
    ended = await world.task(task.id)
    assert (ended.state, ended.attempts[0].verdict) == ("accepted", "wrong")
    assert (await world.view(job.id)).money.locked_nano == "0"
    await world.assert_sound()
