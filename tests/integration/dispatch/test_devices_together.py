"""What devices send at the same time is one batch; each is answered as if it had come alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gstd.accounts import service as accounts
from gstd.dispatch import submits
from gstd.protocol.types import Role, Tier
from gstd.protocol.work import Alive, Claimed, ReleaseItem, ReleaseReason, Submitted
from tests.world import Device, World, outcome


def codes(outcomes: Sequence[object]) -> list[str]:
    return [getattr(item, "code", type(item).__name__) for item in outcomes]


async def bar(world: World, device: Device) -> None:
    who = device.actor
    await world.run(
        lambda conn: accounts.revoke_device(conn, who.account_id, who.device_id, world.clock.now())
    )


async def assert_advance_agrees(world: World) -> None:
    before = await world.rows()
    assert await world.advance(*(row["id"] for row in before["task"])) == {}
    assert await world.rows() == before


@pytest.mark.parametrize("wanted", [1, 2, 3])
async def test_the_first_of_several_accounts_get_a_task_and_the_rest_are_refused(
    world: World, wanted: int
) -> None:
    tier = {"tier": Tier.FULL} if wanted == 1 else {"tier": Tier.QUORUM, "quorum": wanted}
    one, other = await world.tasks((await world.job(tasks=2, **tier)).id)
    devices = [await world.device() for _ in range(4)]
    items = [(device, world.solved(device, task.id)) for device in devices for task in (one, other)]
    found = await world.claim_together(items)
    assert codes(found) == ["Claimed"] * 2 * wanted + ["task_taken"] * 2 * (4 - wanted)
    assert [item.task_id for item in found if isinstance(item, Claimed)] == (
        [one.id, other.id] * wanted
    )
    assert (await world.task(one.id)).state == "running"
    await assert_advance_agrees(world)
    assert await world.claim_together(items[: 2 * wanted]) == found[: 2 * wanted]


async def test_two_devices_of_one_account_in_one_batch_get_one_attempt(world: World) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    account = await world.account(Role.WORKER)
    one, twin, other = (
        await world.device(account),
        await world.device(account),
        await world.device(),
    )
    items = [(device, world.solved(device, task.id)) for device in (one, one, twin, other)]
    assert codes(await world.claim_together(items)) == [
        "Claimed",
        "task_taken",
        "task_taken",
        "Claimed",
    ]
    await assert_advance_agrees(world)


async def test_a_device_that_must_wait_does_not_stand_before_its_sibling(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    faulty = await world.device()
    sibling = await world.device(faulty.actor.account_id)
    await world.release(faulty, await world.claim(faulty, task.id))
    world.clock.advance(seconds=1.2)
    items = [(device, world.solved(device, task.id)) for device in (faulty, sibling)]
    assert codes(await world.claim_together(items)) == ["task_taken", "Claimed"]


async def test_a_device_barred_after_it_was_authenticated_gets_nothing_done(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=3)).id)
    barred, honest = await world.device(), await world.device()
    held = await world.claim(barred, tasks[0].id)
    fine = await world.claim(honest, tasks[1].id)
    results = await world.checked(
        [
            (device, world.signed(device, c, outcome()))
            for device, c in ((barred, held), (honest, fine))
        ]
    )
    good = [one for one in results if isinstance(one, submits.Checked)]
    assert len(good) == 2
    await bar(world, barred)
    before = (await world.rows())["task"]
    claims = [(device, world.solved(device, tasks[2].id)) for device in (barred,)]
    assert codes(await world.claim_together(claims)) == ["task_taken"]
    assert codes(await world.heartbeat(barred, held.attempt_id)) == ["attempt_over"]
    release = ReleaseItem(attempt_id=held.attempt_id, reason=ReleaseReason.HOST_FAULT)
    assert codes(await world.release_all([(barred, release)])) == ["attempt_over"]
    assert (await world.rows())["task"] == before
    assert codes(await world.submit_checked(good)) == ["device_barred", "Submitted"]
    again = await world.submit_together([(barred, good[0].item)])
    assert codes(again) == ["device_barred"]
    assert (await world.task(tasks[0].id)).state == "running"


async def test_results_of_several_devices_are_stored_at_once_and_twins_once(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=2, tier=Tier.QUORUM)).id)
    one, other = await world.device(), await world.device()
    held = [
        (device, await world.claim(device, task.id)) for task in tasks for device in (one, other)
    ]
    items = [(device, world.signed(device, claimed, outcome())) for device, claimed in held]
    lie = world.signed(one, held[0][1], outcome(b"another"))
    found = await world.submit_together([*items, items[0], (one, lie), (other, items[0][1])])
    assert codes(found) == ["Submitted"] * 5 + ["already_submitted", "attempt_not_found"]
    states = [item.state for item in found if isinstance(item, Submitted)]
    assert states == ["accepted"] * 5
    assert [task.state for task in await world.tasks(tasks[0].job_id)] == ["accepted"] * 2
    await world.assert_sound()


async def test_what_ends_between_the_check_and_the_lock_is_refused_by_name(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=3)).id)
    device = await world.device()
    held = [await world.claim(device, task.id) for task in tasks]
    sent = [(device, world.signed(device, claimed, outcome())) for claimed in held]
    good = [one for one in await world.checked(sent) if isinstance(one, submits.Checked)]
    assert len(good) == 3
    await world.release(device, held[0])
    await world.submit(device, held[1])
    rows = await world.rows()
    first = await world.submit_checked(good[:2])
    assert codes(first) == ["attempt_over", "Submitted"]
    assert await world.rows() == rows
    world.clock.advance(milliseconds=world.policy.lease_ms)
    assert codes(await world.submit_checked(good)) == [
        "attempt_over",
        "Submitted",
        "attempt_over",
    ]
    assert await world.rows() == rows


async def test_heartbeats_of_several_devices_extend_each_ones_own(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=2)).id)
    devices = [await world.device() for _ in tasks]
    held = [
        (await world.claim(device, task.id)).attempt_id
        for device, task in zip(devices, tasks, strict=True)
    ]
    world.clock.advance(milliseconds=world.policy.lease_ms - 1)
    found = await world.heartbeat_all(
        [(device, attempt) for device in devices for attempt in [*held, held[0]]]
    )
    assert codes(found) == [
        "Alive",
        "attempt_over",
        "Alive",
        "attempt_over",
        "Alive",
        "attempt_over",
    ]
    alive = [item for item in found if isinstance(item, Alive)]
    assert [item.attempt_id for item in alive] == [held[0], held[0], held[1]]
    assert {item.lease_ms for item in alive} == {world.policy.lease_ms}


async def test_of_two_reasons_for_one_release_the_first_counts(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=2)).id)
    one, other = await world.device(), await world.device()
    held = await world.claim(one, tasks[0].id), await world.claim(other, tasks[1].id)
    polite, fault, theirs = (
        ReleaseItem(attempt_id=claimed.attempt_id, reason=reason)
        for claimed, reason in (
            (held[0], ReleaseReason.SHUTTING_DOWN),
            (held[0], ReleaseReason.HOST_FAULT),
            (held[1], ReleaseReason.DECLINED),
        )
    )
    found = await world.release_all(
        [(other, fault), (one, polite), (one, fault), (other, theirs), (one, theirs)]
    )
    assert codes(found) == ["attempt_over", "Released", "Released", "Released", "attempt_over"]
    views = [await world.task(task.id) for task in tasks]
    assert [view.attempts[0].verdict for view in views] == ["shutting_down", "declined"]
    assert [view.retries for view in views] == [0, 0]
    rows = (await world.rows())["event_outbox"]
    released = [row["data"]["verdict"] for row in rows if row["kind"] == "attempt.released"]
    assert sorted(released) == ["declined", "shutting_down"]
