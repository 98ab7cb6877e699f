"""The life of a task, from the posted money to the vested reward."""

from __future__ import annotations

import pytest

from gstd.blobs.store import Blobs
from gstd.database.connection import Database
from gstd.kernel.clock import ManualClock
from gstd.ledger import service as ledger
from gstd.protocol.types import Role, Tier
from tests.world import CREDITS, REWARD, World, outcome


@pytest.fixture
def world(database: Database, blobs: Blobs, clock: ManualClock) -> World:
    return World(database, blobs, clock)


async def test_a_proved_result_is_paid_and_the_rest_comes_back(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    job = await world.job(requester)
    [task] = await world.tasks(job.id)
    device = await world.device()
    claimed = await world.claim(device, task.id)
    assert (await world.task(task.id)).state == "running"
    submitted = await world.submit(device, claimed)
    assert submitted.state == "submitted"
    assert (await world.task(task.id)).state == "verifying"
    assert await world.referee() == 1
    done = await world.task(task.id)
    assert done.state == "accepted"
    assert done.attempts[0].verdict == "proved"
    assert done.attempts[0].earning_state == "held"
    await world.run(lambda conn: ledger.vest_due(conn, world.clock.now(), 10))
    assert await world.available(device.actor.account_id) == REWARD
    money = (await world.view(job.id)).money
    assert money.locked_nano == "0"
    assert int(money.fee_nano) == REWARD // 20
    spent = REWARD + int(money.fee_nano) + int(money.referee_nano)
    assert await world.available(requester) == CREDITS - spent
    await world.assert_sound()


async def test_a_wrong_result_is_not_paid_and_another_device_gets_the_task(world: World) -> None:
    job = await world.job()
    [task] = await world.tasks(job.id)
    cheat, honest = await world.device(), await world.device()
    await world.submit(cheat, await world.claim(cheat, task.id), outcome(b"wrong"))
    await world.referee()
    again = await world.task(task.id)
    assert again.state == "queued"
    assert again.attempts[0].verdict == "wrong"
    submitted = await world.submit(honest, await world.claim(honest, task.id))
    assert submitted.state == "accepted"  # the referee's result is known
    assert await world.available(cheat.actor.account_id) == 0
    await world.assert_sound()


async def test_two_agreeing_results_are_both_paid(world: World) -> None:
    job = await world.job(tier=Tier.QUORUM)
    [task] = await world.tasks(job.id)
    devices = [await world.device() for _ in range(3)]
    claims = [await world.claim(device, task.id) for device in devices[:2]]
    await world.submit(devices[0], claims[0])
    await world.submit(devices[1], claims[1], outcome(b"something else"))
    assert (await world.task(task.id)).state == "queued"
    await world.submit(devices[2], await world.claim(devices[2], task.id))
    done = await world.task(task.id)
    assert done.state == "accepted"
    assert [attempt.verdict for attempt in done.attempts] == ["agreed", "wrong", "agreed"]
    assert (await world.view(job.id)).money.released_nano == str(2 * REWARD)
    await world.assert_sound()
