"""Devices that fail or fall silent get nothing for a while, and come back by one probe."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from gstd.accounts import service as accounts
from gstd.bus.bus import Bus
from gstd.dispatch.matchmaker import Matchmaker
from gstd.protocol.types import Role
from gstd.protocol.work import Offer, OffersRequest
from gstd.sandbox.profile import PROFILE
from tests.world import CREDITS, SECRET, Device, World, outcome


@pytest_asyncio.fixture
async def maker(world: World) -> AsyncIterator[Matchmaker]:
    async with Bus.open(None) as bus:
        made = Matchmaker(world.database, bus, world.policy, world.clock, SECRET)
        async with made.running():
            yield made


async def offered(world: World, maker: Matchmaker, device: Device, free: int = 1) -> list[Offer]:
    """What the device is offered as the platform knows it now."""
    actor = await world.actor(device.actor.public_key)
    answer = await maker.offers(actor, OffersRequest(profile=PROFILE, free=free))
    assert answer.offers or answer.idle
    return answer.offers


async def fail(world: World, device: Device, times: int) -> None:
    """Attempts that the device gives back as its own fault."""
    for _ in range(times):
        [task] = await world.tasks((await world.job()).id)
        await world.release(device, await world.claim(device, task.id))


async def events_of(world: World, kind: str) -> list[object]:
    """What the outbox holds of a kind."""
    rows = await world.rows()
    return [row for row in rows["event_outbox"] if row["kind"] == kind]


async def test_a_device_that_fails_in_a_row_rests_and_comes_back_by_a_probe(
    world: World, maker: Matchmaker
) -> None:
    device, other = await world.device(), await world.device()
    await fail(world, device, world.policy.breaker_failures)
    await world.job(tasks=5)
    await offered(world, maker, other)
    assert await offered(world, maker, device) == []
    world.clock.advance(milliseconds=world.policy.breaker_base_ms)
    [probe] = await offered(world, maker, device, free=3)
    claimed = await world.claim(device, probe.task_id)
    assert await offered(world, maker, device, free=3) == []
    await world.submit(device, claimed, outcome())
    await world.referee()
    assert len(await offered(world, maker, device, free=3)) == 2
    for kind in ("device.ejected", "device.readmitted"):
        assert len(await events_of(world, kind)) == 1


async def test_a_failed_probe_rests_twice_as_long(world: World) -> None:
    device = await world.device()
    await fail(world, device, world.policy.breaker_failures)
    world.clock.advance(milliseconds=world.policy.breaker_base_ms)
    await fail(world, device, 1)
    await world.job()
    world.clock.advance(milliseconds=1.2 * world.policy.breaker_base_ms)
    actor = await world.actor(device.actor.public_key)
    assert actor.ejections == 2
    assert actor.capacity(0, world.clock.now()) == 0


async def test_a_silent_device_gets_nothing_more(world: World, maker: Matchmaker) -> None:
    device = await world.device()
    job = await world.job(tasks=3)
    [first, *_] = await world.tasks(job.id)
    await world.claim(device, first.id)
    assert len(await offered(world, maker, device)) == 1
    world.clock.advance(milliseconds=0.7 * world.policy.lease_ms)
    assert await offered(world, maker, device) == []


async def test_a_new_device_holds_at_most_its_first_quota(world: World, maker: Matchmaker) -> None:
    await world.job(tasks=20)
    offers = await offered(world, maker, await world.device(), free=20)
    assert len(offers) == world.policy.first_quota


async def test_work_for_its_own_account_closes_the_circuit_and_earns_no_trust(
    world: World, maker: Matchmaker
) -> None:
    owner = await world.account(Role.REQUESTER, Role.WORKER, credits=CREDITS)
    device = await world.device(owner)
    await fail(world, device, world.policy.breaker_failures)
    world.clock.advance(milliseconds=world.policy.breaker_base_ms)
    await world.job(owner, tasks=4)
    [probe] = await offered(world, maker, device, free=4)
    await world.submit(device, await world.claim(device, probe.task_id), outcome())
    await world.referee()
    assert len(await offered(world, maker, device, free=4)) == 2
    [actor] = await world.run(lambda conn: accounts.devices_of_keys(conn, [device.key.public]))
    assert actor is not None
    assert actor.trust == device.actor.trust
