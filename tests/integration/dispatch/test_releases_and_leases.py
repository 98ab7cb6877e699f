"""Attempts that end without a result: retries with their delays, on another device first."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gstd.accounts import service as accounts
from gstd.kernel.errors import Refusal
from gstd.kernel.ids import new_id
from gstd.protocol.execution import Limits
from gstd.protocol.types import Tier
from gstd.protocol.work import Alive, Claimed, Released, ReleaseItem, ReleaseReason
from tests.world import Device, World


async def try_claim(world: World, device: Device, task_id: object) -> str:
    [answer] = await world.claim_all(device, [task_id])  # type: ignore[list-item]
    return answer.code if isinstance(answer, Refusal) else "claimed"


@pytest.mark.parametrize("end", [ReleaseReason.HOST_FAULT, ReleaseReason.WALL_CLOCK, None])
async def test_faults_are_retried_after_1_5_and_30_s_and_the_fourth_fails_and_refunds(
    world: World, end: ReleaseReason | None
) -> None:
    job = await world.job()
    [task] = await world.tasks(job.id)
    for delay in (1, 5, 30, None):
        device = await world.device()
        claimed = await world.claim(device, task.id)
        if end is None:
            world.clock.advance(milliseconds=world.policy.lease_ms)
            assert await world.expire_leases() == 1
        else:
            assert isinstance(await world.release(device, claimed, end), Released)
        now = await world.task(task.id)
        if delay is None:
            break
        assert now.state == "queued"
        waits = (now.available_at - world.clock.now()) / timedelta(seconds=delay)
        assert 1 <= waits <= 1.2
        other = await world.device()
        assert await try_claim(world, other, task.id) == "task_taken"
        world.clock.advance(seconds=1.2 * delay)
    assert (now.state, now.retries) == ("failed", 4)
    money = (await world.view(job.id)).money
    assert (money.locked_nano, money.refunded_nano) == ("0", money.funded_nano)
    await world.assert_sound()


async def test_the_device_that_failed_waits_longer_than_others(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    faulty = await world.device()
    await world.release(faulty, await world.claim(faulty, task.id))
    world.clock.advance(milliseconds=world.policy.same_device_after_ms - 1)
    assert await try_claim(world, faulty, task.id) == "task_taken"
    world.clock.advance(milliseconds=1)
    assert await try_claim(world, faulty, task.id) == "claimed"


async def test_another_device_of_the_same_account_may_try_after_a_fault(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    faulty = await world.device()
    sibling = await world.device(faulty.actor.account_id)
    await world.release(faulty, await world.claim(faulty, task.id))
    world.clock.advance(seconds=1.2)
    assert await try_claim(world, sibling, task.id) == "claimed"


async def test_leaving_politely_costs_no_retry_and_bars_nobody(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    for _ in range(5):
        claimed = await world.claim(device, task.id)
        await world.release(device, claimed, ReleaseReason.SHUTTING_DOWN)
    now = await world.task(task.id)
    assert (now.state, now.retries, len(now.attempts)) == ("queued", 0, 5)


async def test_only_the_holder_releases_and_only_once(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device, stranger = await world.device(), await world.device()
    claimed = await world.claim(device, task.id)
    refused = await world.release(stranger, claimed)
    assert isinstance(refused, Refusal)
    assert (await world.task(task.id)).state == "running"
    await world.release(device, claimed)
    before = await world.rows()
    again = await world.release(device, claimed)
    assert isinstance(again, Refusal)
    assert again.code == "attempt_over"
    assert await world.rows() == before


async def test_a_batch_of_releases_answers_every_item(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=2)).id)
    device = await world.device()
    held = [await world.claim(device, task.id) for task in tasks]
    items = [
        ReleaseItem(attempt_id=held[0].attempt_id, reason=ReleaseReason.DECLINED),
        ReleaseItem(attempt_id=new_id(), reason=ReleaseReason.DECLINED),
        ReleaseItem(attempt_id=held[1].attempt_id, reason=ReleaseReason.HOST_FAULT, detail="oom"),
    ]
    answers = await world.release_all([(device, item) for item in items])
    assert [type(answer) for answer in answers] == [Released, Refusal, Released]
    views = [await world.task(task.id) for task in tasks]
    assert [view.attempts[0].verdict for view in views] == ["declined", "host_fault"]
    assert [view.retries for view in views] == [0, 1]
    assert views[1].attempts[0].reason == "oom"


async def test_the_sweep_ends_only_what_is_overdue(world: World) -> None:
    first, second = await world.tasks((await world.job(tasks=2)).id)
    device = await world.device()
    await world.claim(device, first.id)
    world.clock.advance(milliseconds=world.policy.lease_ms // 2)
    await world.claim(device, second.id)
    world.clock.advance(milliseconds=world.policy.lease_ms // 2)
    assert await world.expire_leases() == 1
    assert await world.expire_leases() == 0
    views = [await world.task(task.id) for task in (first, second)]
    assert [view.attempts[0].state for view in views] == ["expired", "running"]


async def test_a_quorum_waits_for_a_replacement_of_the_device_that_vanished(world: World) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    one, gone, other = [await world.device() for _ in range(3)]
    held = await world.claim(one, task.id)
    await world.submit(one, held)
    await world.claim(gone, task.id)
    world.clock.advance(milliseconds=world.policy.lease_ms)
    await world.expire_leases()
    world.clock.advance(seconds=1.2)
    [claimed] = await world.claim_all(other, [task.id])
    assert isinstance(claimed, Claimed)
    assert (await world.submit(other, claimed)).state == "accepted"
    assert (await world.task(task.id)).state == "accepted"
    await world.assert_sound()


async def test_no_heartbeat_keeps_an_attempt_beyond_its_wall_clock_and_grace(world: World) -> None:
    job = await world.job(limits=Limits(wall_ms=30_000))
    [task] = await world.tasks(job.id)
    device = await world.device()
    claimed = await world.claim(device, task.id)
    life_s = (30_000 + world.policy.attempt_grace_ms) / 1000
    step_s = world.policy.lease_ms / 2000
    beats = 0
    while isinstance(await beat(world, device, claimed), Alive):
        world.clock.advance(seconds=step_s)
        beats += 1
    assert life_s <= beats * step_s < life_s + step_s
    await world.expire_leases()
    assert (await world.task(task.id)).attempts[0].verdict == "lease_expired"


async def beat(world: World, device: Device, claimed: Claimed) -> Alive | Refusal:
    [outcome] = await world.heartbeat(device, claimed.attempt_id)
    return outcome


async def test_a_revoked_devices_task_goes_on_at_once_and_keeps_its_retries(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device, other = await world.device(), await world.device()
    await world.claim(device, task.id)
    assert await world.expire_leases() == 0
    who = device.actor
    await world.run(
        lambda conn: accounts.revoke_device(conn, who.account_id, who.device_id, world.clock.now())
    )
    assert await world.expire_leases() == 1
    seen = await world.task(task.id)
    assert (seen.state, seen.retries, seen.attempts[0].verdict) == ("queued", 0, "device_barred")
    await world.claim(other, task.id)
