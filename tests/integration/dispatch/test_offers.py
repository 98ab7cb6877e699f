"""Offers: the head of the queue, spread over the devices that may run it, reserving nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest_asyncio

from gstd.bus.bus import Bus
from gstd.dispatch.matchmaker import Matchmaker
from gstd.proof_of_work.solver import solve
from gstd.protocol.execution import Limits
from gstd.protocol.types import Priority, Role, Tier
from gstd.protocol.work import Claimed, ClaimItem, Offer, OffersRequest, OffersResponse
from gstd.sandbox.profile import PROFILE
from tests.world import SECRET, Device, World, outcome

MIN_REWARD = "1000000"


@pytest_asyncio.fixture
async def maker(world: World) -> AsyncIterator[Matchmaker]:
    async with Bus.open(None) as bus:
        made = Matchmaker(world.database, bus, world.policy, world.clock, SECRET)
        async with made.running():
            yield made


async def ask(maker: Matchmaker, device: Device, **changes: object) -> OffersResponse:
    request = msgspec.structs.replace(OffersRequest(profile=PROFILE), **changes)
    return await maker.offers(device.actor, request)


def solved(offer: Offer) -> ClaimItem:
    return ClaimItem(
        offer_id=offer.offer_id,
        task_id=offer.task_id,
        bits=offer.bits,
        count=offer.count,
        expires_at=offer.expires_at,
        nonces=solve(offer.prefix, offer.bits, offer.count),
    )


async def test_a_solved_offer_is_claimed(world: World, maker: Matchmaker) -> None:
    job = await world.job(reward_nano=MIN_REWARD)
    device = await world.device()
    [offer] = (await ask(maker, device)).offers
    assert (offer.job_id, offer.reward_nano) == (job.id, MIN_REWARD)
    [claimed] = await world.claim_items(device, [solved(offer)])
    assert isinstance(claimed, Claimed)


async def test_an_offer_of_one_device_cannot_be_claimed_by_another(
    world: World, maker: Matchmaker
) -> None:
    await world.job(reward_nano=MIN_REWARD)
    device, thief = await world.device(), await world.device()
    [offer] = (await ask(maker, device)).offers
    [refused] = await world.claim_items(thief, [solved(offer)])
    assert not isinstance(refused, Claimed)
    assert refused.code == "invalid_proof"


async def test_offers_write_nothing(world: World, maker: Matchmaker) -> None:
    await world.job(tasks=5)
    device = await world.device()
    before = await world.rows()
    assert len((await ask(maker, device, free=3)).offers) == 3
    assert await world.rows() == before


async def test_urgent_jobs_come_first_then_earlier_deadlines(
    world: World, maker: Matchmaker
) -> None:
    now = world.clock.now()
    later, sooner = now + timedelta(days=3), now + timedelta(days=2)
    low = await world.job(priority=Priority.LOW, deadline=sooner)
    late = await world.job(priority=Priority.HIGH, deadline=later)
    soon = await world.job(priority=Priority.HIGH, deadline=sooner)
    critical = await world.job(priority=Priority.CRITICAL, deadline=later)
    offers = (await ask(maker, await world.device(), free=4)).offers
    assert [offer.job_id for offer in offers] == [critical.id, soon.id, late.id, low.id]


async def test_a_task_shown_to_one_device_is_held_back_from_others(
    world: World, maker: Matchmaker
) -> None:
    await world.job()
    first = await ask(maker, await world.device())
    second = await ask(maker, await world.device())
    assert len(first.offers) == 1
    assert second.offers == []
    assert second.idle is not None


async def test_devices_that_do_not_fit_learn_why(world: World, maker: Matchmaker) -> None:
    await world.job(limits=Limits(memory_bytes=512 << 20))
    small = await ask(maker, await world.device())
    assert small.offers == []
    assert small.idle is not None
    assert "memory" in small.idle
    other = await ask(maker, await world.device(), profile="another", memory_bytes=1 << 30)
    assert other.offers == []
    assert other.idle is not None
    assert "profile" in other.idle
    assert len((await ask(maker, await world.device(), memory_bytes=1 << 30)).offers) == 1


async def test_an_account_is_not_offered_a_task_it_has_tried(
    world: World, maker: Matchmaker
) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    account = await world.account(Role.WORKER)
    one, sibling = await world.device(account), await world.device(account)
    await world.submit(one, await world.claim(one, task.id), outcome())
    assert (await ask(maker, sibling)).offers == []
    assert len((await ask(maker, await world.device())).offers) == 1


async def test_an_empty_queue_is_named(world: World, maker: Matchmaker) -> None:
    answer = await ask(maker, await world.device())
    assert (answer.offers, answer.idle) == ([], "no task is waiting")
