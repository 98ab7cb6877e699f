"""What must happen as time passes, on a clock that moves only when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus, Hint
from gstd.database.connection import Database
from gstd.events import incidents
from gstd.events import service as events
from gstd.events.audit import log_key
from gstd.kernel.clock import ManualClock
from gstd.kernel.settings import Policy
from gstd.maintenance.leadership import SupersededError
from gstd.maintenance.scheduler import QUIET_S, Scheduler
from gstd.protocol.types import Role, Tier
from gstd.verification import runs
from gstd.verification.results import result_of
from tests.servers import until
from tests.world import CREDITS, REWARD, SECRET, World, outcome

POLICY = Policy(chunk_tasks=4, holdback_rewards=2)
KEY = log_key(SECRET)


@pytest.fixture
def world(database: Database, blobs: Blobs, clock: ManualClock) -> World:
    return World(database, blobs, clock, POLICY)


@pytest_asyncio.fixture(loop_scope="session")
async def bus() -> AsyncIterator[Bus]:
    async with Bus.open(None) as made:
        yield made


@pytest.fixture
def scheduler(world: World, bus: Bus) -> Scheduler:
    return Scheduler(world.database, world.blobs, bus, POLICY, world.clock, KEY)


async def kinds(world: World, scheduler: Scheduler) -> list[str]:
    """Everything that happened so far."""

    async def all_numbered() -> bool:
        await scheduler.number_events()
        count = "SELECT count(*) FROM event_outbox"
        return bool(await world.run(lambda conn: conn.fetchval(count)) == 0)

    # A transaction that runs in another database of the server holds the numbering back.
    await until(all_numbered)
    page = await world.run(lambda conn: events.read(conn, after=0, account_id=None))
    return [event.kind for event in page.items]


def more_schedulers(world: World, bus: Bus) -> list[Scheduler]:
    return [Scheduler(world.database, world.blobs, bus, POLICY, world.clock, KEY) for _ in range(3)]


async def test_a_lease_that_ended_gives_the_task_on(world: World, scheduler: Scheduler) -> None:
    job = await world.job()
    [task] = await world.tasks(job.id)
    await world.claim(await world.device(), task.id)
    world.clock.advance(milliseconds=POLICY.lease_ms - 1)
    await scheduler.tick()
    assert (await world.task(task.id)).state == "running"
    world.clock.advance(milliseconds=1)
    await scheduler.tick()
    found = await world.task(task.id)
    assert (found.state, found.retries, found.attempts[0].state) == ("queued", 1, "expired")
    assert "attempt.expired" in await kinds(world, scheduler)
    await world.assert_sound()


async def test_a_deadline_that_passed_ends_tasks_and_gives_the_money_back(
    world: World, scheduler: Scheduler
) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    deadline = world.clock.now() + timedelta(seconds=100)
    job = await world.job(requester, tasks=10, deadline=deadline)
    assert len(await world.tasks(job.id)) == POLICY.chunk_tasks
    world.clock.advance(seconds=99)
    await scheduler.tick()
    assert await world.available(requester) < CREDITS
    world.clock.advance(seconds=1)
    await scheduler.tick()
    view = await world.view(job.id)
    assert (view.state, view.counts.expired) == ("closed", 10)
    assert await world.available(requester) == CREDITS
    await world.assert_sound()


async def test_a_large_job_is_filled_as_its_tasks_are_taken(
    world: World, scheduler: Scheduler
) -> None:
    job = await world.job(tasks=10)
    await scheduler.tick()
    assert len(await world.tasks(job.id)) == 4
    device = await world.device()
    for expected in (8, 10, 10):
        waiting = [task.id for task in await world.tasks(job.id) if task.state == "queued"]
        await world.claim_all(device, waiting)
        await scheduler.tick()
        assert len(await world.tasks(job.id)) == expected
    await world.assert_sound()


async def test_a_proved_result_vests_and_its_job_closes(world: World, scheduler: Scheduler) -> None:
    job = await world.job()
    [task] = await world.tasks(job.id)
    device = await world.device()
    await world.submit(device, await world.claim(device, task.id))
    await scheduler.tick()
    assert (await world.view(job.id)).state == "open"
    await world.referee()
    assert await world.available(device.actor.account_id) == 0
    await scheduler.tick()
    assert await world.available(device.actor.account_id) == REWARD
    view = await world.view(job.id)
    assert (view.state, view.counts.paid) == ("closed", 1)
    found = await kinds(world, scheduler)
    assert (found.count("earning.vested"), found.count("job.closed")) == (1, 1)
    await world.assert_sound()


async def test_an_agreed_result_is_held_back_until_its_device_has_earned_enough_newer_ones(
    world: World, scheduler: Scheduler
) -> None:
    job = await world.job(tier=Tier.QUORUM, tasks=4)
    tasks = await world.tasks(job.id)
    devices = [await world.device() for _ in range(2)]

    async def agree_on(count: int) -> None:
        for task in tasks[:count]:
            for device in devices:
                await world.submit(device, await world.claim(device, task.id))
            tasks.remove(task)

    await agree_on(1)
    world.clock.advance(seconds=POLICY.challenge_window_s)
    await scheduler.tick()
    assert await world.available(devices[0].actor.account_id) == 0
    await agree_on(POLICY.holdback_rewards)
    await scheduler.tick()
    for device in devices:
        assert await world.available(device.actor.account_id) == REWARD
    await world.assert_sound()


async def test_what_is_held_back_vests_in_the_end_though_the_device_stopped(
    world: World, scheduler: Scheduler
) -> None:
    job = await world.job(tier=Tier.QUORUM)
    [task] = await world.tasks(job.id)
    devices = [await world.device() for _ in range(2)]
    for device in devices:
        await world.submit(device, await world.claim(device, task.id))
    world.clock.advance(seconds=POLICY.holdback_s - 1)
    await scheduler.tick()
    assert await world.available(devices[0].actor.account_id) == 0
    world.clock.advance(seconds=1)
    await scheduler.tick()
    for device in devices:
        assert await world.available(device.actor.account_id) == REWARD
    await world.assert_sound()


async def test_a_job_on_which_nothing_happens_for_days_is_refunded_once(
    world: World, bus: Bus, scheduler: Scheduler
) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    job = await world.job(requester, tasks=10)
    used = await world.job(requester, tasks=4)
    world.clock.advance(seconds=POLICY.idle_refund_s - 1)
    device = await world.device()
    [first, *_] = await world.tasks(used.id)
    await world.submit(device, await world.claim(device, first.id))
    await scheduler.tick()
    assert (await world.view(job.id)).state == "open"
    world.clock.advance(seconds=1)
    await asyncio.gather(*(one.tick() for one in [scheduler, *more_schedulers(world, bus)]))
    view = await world.view(job.id)
    assert (view.state, view.counts.expired) == ("idle", 10)
    assert (view.money.refunded_nano, view.money.locked_nano) == (view.money.funded_nano, "0")
    assert (await world.view(used.id)).state == "open"
    assert await world.available(requester) == CREDITS - int(used.quote.total_nano)
    found = await kinds(world, scheduler)
    assert found.count("job.auto_refunded") == 1
    await world.assert_sound()


async def test_two_schedulers_at_once_vest_and_close_once(
    world: World, bus: Bus, scheduler: Scheduler
) -> None:
    job = await world.job(tasks=4)
    device = await world.device()
    for task in await world.tasks(job.id):
        await world.submit(device, await world.claim(device, task.id))
    await world.referee()
    others = more_schedulers(world, bus)
    await asyncio.gather(*(one.tick() for one in [scheduler, *others]))
    assert await world.available(device.actor.account_id) == 4 * REWARD
    found = await kinds(world, scheduler)
    assert (found.count("earning.vested"), found.count("job.closed")) == (4, 1)
    await world.assert_sound()


async def test_the_reconciler_judges_a_task_whose_referees_last_step_was_lost(
    world: World, scheduler: Scheduler
) -> None:
    job = await world.job()
    [task] = await world.tasks(job.id)
    device = await world.device()
    await world.submit(device, await world.claim(device, task.id))
    now = world.clock.now()
    [run] = await world.run(lambda conn: runs.take_runs(conn, 1, POLICY, now))
    end = runs.Finished(run, result_of(run.work(), outcome()))
    await world.run(lambda conn: runs.record_runs(conn, [end], POLICY, now))
    await scheduler.reconcile()
    assert (await world.task(task.id)).state == "verifying"  # it may still come
    world.clock.advance(seconds=QUIET_S)
    await scheduler.reconcile()
    assert (await world.task(task.id)).state == "accepted"
    await scheduler.tick()
    assert await world.available(device.actor.account_id) == REWARD
    await world.assert_sound()


async def test_reconciling_what_is_in_order_changes_nothing(
    world: World, scheduler: Scheduler
) -> None:
    job = await world.job(tasks=3)
    tasks = await world.tasks(job.id)
    device = await world.device()
    await world.claim(device, tasks[0].id)
    await world.submit(device, await world.claim(device, tasks[1].id))
    world.clock.advance(seconds=QUIET_S)
    before = await world.tasks(job.id)
    seen = await kinds(world, scheduler)
    await scheduler.reconcile()
    assert await world.tasks(job.id) == before
    assert await kinds(world, scheduler) == seen


async def test_a_tick_tells_waiting_devices_that_there_is_work_again(
    world: World, bus: Bus, scheduler: Scheduler
) -> None:
    job = await world.job()
    [task] = await world.tasks(job.id)
    await world.claim(await world.device(), task.id)
    with bus.listener(Hint.QUEUE) as news:
        await scheduler.tick()
        assert not news.is_set()
        world.clock.advance(milliseconds=POLICY.lease_ms)
        await scheduler.tick()
        assert news.is_set()


async def test_a_leader_that_slept_and_was_followed_does_nothing_more(
    world: World, scheduler: Scheduler, bus: Bus
) -> None:
    other = more_schedulers(world, bus)[0]
    job = await world.job()
    [task] = await world.tasks(job.id)
    await scheduler.lead()
    await world.claim(await world.device(), task.id)
    world.clock.advance(milliseconds=POLICY.leader_lease_ms)
    await other.lead()
    world.clock.advance(milliseconds=POLICY.lease_ms - POLICY.leader_lease_ms)
    with pytest.raises(SupersededError):
        await scheduler.tick()  # it was between two steps when it fell asleep
    await scheduler.lead()
    assert (await world.task(task.id)).state == "running"
    await other.lead()
    assert (await world.task(task.id)).state == "queued"


async def test_a_serving_scheduler_leads_survives_a_bad_turn_and_resigns(
    world: World, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []

    async def tick() -> None:
        turns.append("tick")
        if len(turns) == 1:
            raise RuntimeError("a bad turn")

    monkeypatch.setattr(scheduler, "tick", tick)
    serving = asyncio.create_task(scheduler.serve())
    await until(lambda: len(turns) >= 2)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    [recorded] = await world.run(incidents.recorded)
    assert (recorded.place, recorded.detail) == ("scheduler.lead", "a bad turn")
    async with world.database.connection() as connection:
        expires_at = await connection.fetchval("SELECT expires_at FROM leader")
    assert expires_at <= world.clock.now()
