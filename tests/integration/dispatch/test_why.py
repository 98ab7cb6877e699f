"""Why: a sentence for every state of a task and of a device, with counts and nobody's data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from gstd.accounts import service as accounts
from gstd.accounts.errors import DeviceNotFoundError
from gstd.bus.bus import Bus
from gstd.dispatch import why
from gstd.dispatch.asking import last_asked, note_asking, online
from gstd.kernel.ids import new_id
from gstd.protocol.execution import Limits
from gstd.protocol.matching import DeviceWhy, RuleCount, TaskWhy
from gstd.protocol.types import Asset, Priority, Role, Tier
from gstd.protocol.work import OffersRequest, ReleaseReason
from gstd.sandbox.profile import PROFILE
from gstd.tasks.errors import TaskNotFoundError
from gstd.verification import runs
from tests.world import CREDITS, REWARD, Device, World


@pytest_asyncio.fixture
async def bus() -> AsyncIterator[Bus]:
    async with Bus.open(None) as opened:
        yield opened


async def asks(world: World, bus: Bus, device: Device, **changes: Any) -> None:
    """The device is heard of and waits for work."""
    now = world.clock.now()
    plain: dict[str, Any] = {"profile": PROFILE, "wait_ms": 20_000}
    await bus.touch(str(device.actor.device_id), int(now.timestamp() * 1000))
    request = OffersRequest(**{**plain, **changes})
    await note_asking(bus, device.actor.device_id, request, now)


async def beats(world: World, bus: Bus, device: Device) -> None:
    """The device is heard of without asking for work."""
    now_ms = int(world.clock.now().timestamp() * 1000)
    await bus.touch(str(device.actor.device_id), now_ms)


async def of_task(world: World, bus: Bus, task_id: UUID) -> TaskWhy:
    now = world.clock.now()
    devices = await online(bus, now)
    return await world.run(
        lambda conn: why.task_why(conn, task_id, None, devices, world.policy, now)
    )


async def of_device(world: World, bus: Bus, device: Device) -> DeviceWhy:
    now, device_id = world.clock.now(), device.actor.device_id
    asking = (await last_asked(bus, [device_id])).get(device_id)
    [seen] = await bus.last_seen([str(device_id)])
    seen_at = None if seen is None else datetime.fromtimestamp(seen / 1000, UTC)
    return await world.run(
        lambda conn: why.device_why(
            conn, device_id, device.actor.account_id, asking, seen_at, world.policy, now
        )
    )


def time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


async def test_nobody_online(world: World, bus: Bus) -> None:
    job = await world.job()
    [task] = await world.tasks(job.id)
    found = await of_task(world, bus, task.id)
    words = f"waiting for a device: no device is online; it expires {time(job.deadline)}"
    assert (found.state, found.words, found.online) == ("queued", words, 0)
    assert (found.until, found.expected_start_s) == (job.deadline, None)


async def test_every_online_device_is_counted_once_by_its_first_rule(
    world: World, bus: Bus
) -> None:
    job = await world.job(limits=Limits(memory_bytes=300 << 20))
    [task] = await world.tasks(job.id)
    for _ in range(3):
        wish = {Asset.TEST: str(REWARD + 1)}
        device = await world.device()
        await asks(world, bus, device, memory_bytes=1 << 30, min_reward_nano=wish)
    for _ in range(2):
        await asks(world, bus, await world.device())
    await beats(world, bus, await world.device())
    found = await of_task(world, bus, task.id)
    assert found.online == 6
    assert found.fits == []
    assert found.misfits == [
        RuleCount(rule="reward", count=3, words="3 want a higher reward"),
        RuleCount(rule="memory", count=2, words="2 lack memory"),
        RuleCount(rule="silent", count=1, words="1 has not asked for work lately"),
    ]
    assert found.words == (
        "6 devices online: 3 want a higher reward, 2 lack memory, 1 has not asked for work lately; "
        f"none of them can have it; it expires {time(job.deadline)}"
    )


async def test_devices_that_fit_are_told_apart_by_what_they_do(world: World, bus: Bus) -> None:
    waiting, busy, quiet, resting = [await world.device() for _ in range(4)]
    other = await world.job()
    for device in (waiting, busy, quiet, resting):
        await asks(world, bus, device)
    await world.claim(busy, (await world.tasks(other.id))[0].id)
    await eject(world, resting)
    world.clock.advance(seconds=30)
    for device in (busy, quiet, resting):
        await beats(world, bus, device)
    await asks(world, bus, waiting)
    [task] = await world.tasks((await world.job()).id)
    found = await of_task(world, bus, task.id)
    assert found.misfits == []
    assert {item.words for item in found.fits} == {
        "1 eligible and waiting for work",
        "1 eligible and busy",
        "1 eligible but not asking just now",
        "1 eligible but resting after failures",
    }
    assert found.words.endswith("expected start in about 1 s (a guess)")


async def eject(world: World, device: Device) -> None:
    until = world.clock.now() + timedelta(hours=1)
    async with world.database.connection() as connection:
        await connection.execute(
            "UPDATE device SET ejected_until = $2, failures = 5 WHERE id = $1",
            device.actor.device_id,
            until,
        )


async def test_the_start_is_guessed_from_what_comes_first_and_how_fast_devices_took_work(
    world: World, bus: Bus
) -> None:
    device = await world.device()
    await asks(world, bus, device)
    taken = await world.tasks((await world.job(tasks=3, priority=Priority.HIGH)).id)
    await world.job(tasks=5, priority=Priority.HIGH)
    [task] = await world.tasks((await world.job()).id)
    world.clock.advance(seconds=30)
    await beats(world, bus, device)
    unknown = await of_task(world, bus, task.id)
    assert (unknown.ahead, unknown.expected_start_s) == (8, None)
    assert unknown.words == (
        "1 device online: 1 eligible but not asking just now; 8 tasks come first; "
        "when it starts is unknown: they have taken nothing for a while"
    )
    for other in taken:
        await world.claim(device, other.id)
    guessed = await of_task(world, bus, task.id)
    assert (guessed.ahead, guessed.expected_start_s) == (5, 600)  # 6 at 3 in five minutes
    assert guessed.words == (
        "1 device online: 1 eligible and busy; 5 tasks come first; "
        "expected start in about 600 s (a guess)"
    )


async def test_what_the_account_tried_is_a_rule(world: World, bus: Bus) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    account = await world.account(Role.WORKER)
    one, sibling = await world.device(account), await world.device(account)
    await world.submit(one, await world.claim(one, task.id))
    await asks(world, bus, sibling)
    found = await of_task(world, bus, task.id)
    assert [(item.rule, item.count) for item in found.misfits] == [("tried", 1)]
    assert "1 has tried it, or another device of its account has" in found.words


async def test_a_delayed_task_says_until_when(world: World, bus: Bus) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    await world.release(device, await world.claim(device, task.id), ReleaseReason.HOST_FAULT)
    until = (await world.task(task.id)).available_at
    found = await of_task(world, bus, task.id)
    assert found.until == until
    words = "waiting for another device after 1 failed attempts, from"
    assert found.words == f"{words} {time(until)} on"


async def test_a_running_task_says_when_its_device_must_be_done(world: World, bus: Bus) -> None:
    [task] = await world.tasks((await world.job()).id)
    await world.claim(await world.device(), task.id)
    found = await of_task(world, bus, task.id)
    assert found.state == "running"
    assert found.until is not None
    assert found.until > world.clock.now()
    assert found.words == f"running on 1 device, which must submit before {time(found.until)}"


async def test_a_verifying_task_says_what_the_referee_does(world: World, bus: Bus) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    await world.submit(device, await world.claim(device, task.id))
    found = await of_task(world, bus, task.id)
    assert (found.state, found.until) == ("verifying", None)
    assert found.words == (
        "waiting for the referee to run it again; 0 runs come first. "
        "Nothing cancels or expires it meanwhile"
    )
    await world.run(lambda conn: runs.take_runs(conn, 1, world.policy, world.clock.now()))
    found = await of_task(world, bus, task.id)
    assert found.until == world.clock.now() + timedelta(milliseconds=world.policy.referee_lease_ms)
    assert found.words.startswith("the referee is running it again, until ")


async def test_an_ended_task_says_how(world: World, bus: Bus) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    await world.submit(device, await world.claim(device, task.id))
    await world.referee()
    found = await of_task(world, bus, task.id)
    assert found.words == "accepted: proved by the referee. Nothing more happens to it"


async def test_only_the_owner_of_a_task_or_device_is_told(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device, now = await world.device(), world.clock.now()
    with pytest.raises(TaskNotFoundError):
        await world.run(lambda conn: why.task_why(conn, task.id, new_id(), {}, world.policy, now))
    with pytest.raises(DeviceNotFoundError):
        await world.run(
            lambda conn: why.device_why(
                conn, device.actor.device_id, new_id(), None, None, world.policy, now
            )
        )


async def test_a_device_that_is_away_or_says_nothing(world: World, bus: Bus) -> None:
    device = await world.device()
    found = await of_device(world, bus, device)
    assert not found.online
    assert found.words == "offline: never heard of lately. Start it with `gstd worker start`"
    await beats(world, bus, device)
    seen = world.clock.now()
    assert (await of_device(world, bus, device)).words == (
        "online, but it has not asked for work just now"
    )
    world.clock.advance(seconds=61)
    found = await of_device(world, bus, device)
    assert found.words == (
        f"offline: last heard of {time(seen)}. Start it with `gstd worker start`"
    )


async def test_a_device_is_told_what_is_ready_and_why_it_is_not_for_it(
    world: World, bus: Bus
) -> None:
    device = await world.device()
    await asks(world, bus, device, max_wall_ms=10_000)
    assert (await of_device(world, bus, device)).words == "no task is ready"
    await world.job(tasks=3, limits=Limits(memory_bytes=512 << 20))
    await world.job(min_trust=900)
    found = await of_device(world, bus, device)
    assert (found.tasks, found.fitting) == (4, 0)
    assert [(item.rule, item.count) for item in found.misfits] == [("memory", 3), ("trust", 1)]
    assert found.words == (
        "4 tasks are ready, none for this device: 3 need more memory, 1 needs more trust"
    )
    await world.job(limits=Limits(wall_ms=5_000))
    assert (await of_device(world, bus, device)).words == (
        "5 tasks are ready: 1 may come to it in turn, unless its account has tried them; "
        "3 need more memory, 1 needs more trust"
    )


async def test_a_device_that_is_full_resting_or_barred(world: World, bus: Bus) -> None:
    device = await world.device()
    await asks(world, bus, device)
    await world.claim(device, (await world.tasks((await world.job()).id))[0].id)
    world.clock.advance(seconds=30)
    await beats(world, bus, device)
    found = await of_device(world, bus, device)
    assert found.running == 1
    assert found.words.startswith("no free slot: it runs 1 task and asks for no more")
    await eject(world, device)
    until = time(world.clock.now() + timedelta(hours=1))
    words = (await of_device(world, bus, device)).words
    assert words.startswith(f"resting until {until}: 5 attempts failed in a row")
    actor = device.actor
    await world.run(
        lambda conn: accounts.revoke_device(
            conn, actor.account_id, actor.device_id, world.clock.now()
        )
    )
    assert (await of_device(world, bus, device)).words == "revoked by its owner"


async def test_a_pool_s_tasks_are_only_counted(world: World, bus: Bus) -> None:
    from gstd.accounts import pools

    owner = await world.account(Role.REQUESTER, credits=CREDITS)
    made = await world.run(
        lambda conn: pools.create_pool(conn, owner, "secret name", world.clock.now())
    )
    await world.job(owner, tasks=2, pool=made.pool.id)
    device = await world.device()
    await asks(world, bus, device)
    assert (await of_device(world, bus, device)).words == (
        "2 tasks are ready, none for this device: "
        "2 are in private pools that the device does not serve"
    )
