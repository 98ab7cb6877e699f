"""Tasks reach only devices that fit: every rule at the offer, trust and pool at the claim too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from gstd.accounts import pools
from gstd.accounts import service as accounts
from gstd.accounts.errors import PoolNotFoundError
from gstd.bus.bus import Bus
from gstd.dispatch.matchmaker import Matchmaker
from gstd.kernel.errors import Refusal
from gstd.protocol.execution import Limits
from gstd.protocol.jobs import InputRange
from gstd.protocol.matching import DeviceLimits
from gstd.protocol.types import Asset, Role
from gstd.protocol.work import Claimed, OffersRequest, OffersResponse
from gstd.sandbox.profile import PROFILE
from tests.world import CREDITS, REWARD, SECRET, Device, World, outcome

_starts = count(step=1000)
MEASURED = 200_000_000
"""Fuel that is enough to measure a device's speed."""


@pytest_asyncio.fixture
async def maker(world: World) -> AsyncIterator[Matchmaker]:
    async with Bus.open(None) as bus:
        made = Matchmaker(world.database, bus, world.policy, world.clock, SECRET)
        async with made.running():
            yield made


async def renewed(world: World, device: Device) -> Device:
    """The device as it authenticates now."""
    [actor] = await world.run(lambda conn: accounts.devices_of_keys(conn, [device.key.public]))
    return msgspec.structs.replace(device, actor=actor)


async def ask(world: World, maker: Matchmaker, device: Device, **changes: Any) -> OffersResponse:
    request = msgspec.structs.replace(OffersRequest(profile=PROFILE), **changes)
    return await maker.offers((await renewed(world, device)).actor, request)


async def limit(world: World, device: Device, **limits: Any) -> None:
    actor = device.actor
    await world.run(
        lambda conn: accounts.limit_device(
            conn, actor.account_id, actor.device_id, DeviceLimits(**limits), world.clock.now()
        )
    )


async def set_trust(world: World, device: Device, trust: int) -> None:
    async with world.database.connection() as connection:
        await connection.execute(
            "UPDATE device SET trust = $2 WHERE id = $1", device.actor.device_id, trust
        )


@pytest.mark.parametrize(
    ("refused", "admitted", "words"),
    [
        ({"max_wall_ms": 999}, {"max_wall_ms": 1_000}, "may take longer"),
        (
            {"min_reward_nano": {Asset.TEST: str(REWARD + 1)}},
            {"min_reward_nano": {Asset.TEST: str(REWARD), Asset.GSTD: str(10 * REWARD)}},
            "pay below its minimum reward",
        ),
        ({"assets": [Asset.GSTD]}, {"assets": [Asset.GSTD, Asset.TEST]}, "does not want"),
        ({"allowed_modules": ["0" * 64]}, {"allowed_modules": None}, "does not list"),
        ({"denied_modules": ["MODULE"]}, {"denied_modules": ["0" * 64]}, "denies"),
        ({"public": False}, {"public": True}, "only its pools' tasks"),
        ({"memory_bytes": (256 << 20) - 1}, {"memory_bytes": 256 << 20}, "need more memory"),
    ],
)
async def test_a_limit_refuses_and_admits_whoever_sets_it(
    world: World,
    maker: Matchmaker,
    refused: dict[str, Any],
    admitted: dict[str, Any],
    words: str,
) -> None:
    job = await world.job(limits=Limits(wall_ms=1_000))
    if "denied_modules" in refused:
        refused = {"denied_modules": [job.module]}
    asking, limited = await world.device(), await world.device()
    told = await ask(world, maker, asking, **refused)
    assert told.offers == []
    assert told.idle is not None
    assert told.idle.startswith("tasks are waiting: some ")
    assert words in told.idle
    await limit(world, limited, **refused)
    assert words in str((await ask(world, maker, limited, **admitted)).idle)
    await limit(world, limited, **admitted)
    assert len((await ask(world, maker, limited, **admitted)).offers) == 1


async def test_what_is_denied_on_the_platform_cannot_be_allowed_by_the_device(
    world: World, maker: Matchmaker
) -> None:
    job = await world.job()
    device = await world.device()
    await limit(world, device, allowed_modules=["0" * 64])
    answer = await ask(world, maker, device, allowed_modules=[job.module])
    assert "does not list" in str(answer.idle)


async def test_a_task_that_fits_is_found_behind_others_that_do_not(
    world: World, maker: Matchmaker
) -> None:
    await world.job(tasks=3, limits=Limits(memory_bytes=512 << 20))
    small = await world.job()
    answer = await ask(world, maker, await world.device(), free=4)
    assert [offer.job_id for offer in answer.offers] == [small.id]


async def test_trust_is_asked_for_at_the_offer_and_again_at_the_claim(
    world: World, maker: Matchmaker
) -> None:
    job = await world.job(min_trust=600)
    [task] = await world.tasks(job.id)
    device = await world.device()
    assert "need more trust" in str((await ask(world, maker, device)).idle)
    [refusal] = await world.claim_all(device, [task.id])
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.detail) == ("needs_more_trust", "trust 500 is below 600")
    assert refusal.hint
    assert (await world.task(task.id)).attempts == []
    await set_trust(world, device, 600)
    assert len((await ask(world, maker, device)).offers) == 1
    assert isinstance((await world.claim_all(device, [task.id]))[0], Claimed)


async def test_who_may_not_have_a_task_hears_that_even_when_it_is_taken(world: World) -> None:
    job = await world.job(min_trust=600)
    [task] = await world.tasks(job.id)
    trusted, other, late = [await world.device() for _ in range(3)]
    await set_trust(world, trusted, 900)
    await set_trust(world, late, 900)
    await world.claim(trusted, task.id)
    codes = [(await world.claim_all(one, [task.id]))[0] for one in (other, late)]
    assert [getattr(code, "code", None) for code in codes] == ["needs_more_trust", "task_taken"]


async def make_pool(world: World) -> tuple[UUID, UUID, str]:
    """A requester, its pool and the pool's secret."""
    owner = await world.account(Role.REQUESTER, credits=CREDITS)
    made = await world.run(lambda conn: pools.create_pool(conn, owner, "a pool", world.clock.now()))
    return owner, made.pool.id, made.secret


async def join(world: World, device: Device, pool: UUID, secret: str) -> None:
    account = device.actor.account_id
    await world.run(lambda conn: pools.join_pool(conn, account, pool, secret, world.clock.now()))


async def test_a_pool_s_tasks_reach_only_devices_of_members_that_serve_it(
    world: World, maker: Matchmaker
) -> None:
    owner, pool, secret = await make_pool(world)
    job = await world.job(owner, tasks=3, pool=pool)
    assert job.pool == pool
    task = (await world.tasks(job.id))[0]
    stranger, member, opted_out = [await world.device() for _ in range(3)]
    for device in (member, opted_out):
        await join(world, device, pool, secret)
    await limit(world, opted_out, pools=[])
    for device in (stranger, opted_out):
        assert "private pools" in str((await ask(world, maker, device)).idle)
    [refusal] = await world.claim_all(stranger, [task.id])
    assert isinstance(refusal, Refusal)
    assert refusal.code == "private_pool"
    assert len((await ask(world, maker, member)).offers) == 1
    assert isinstance((await world.claim_all(member, [task.id]))[0], Claimed)


async def test_who_left_the_pool_between_offer_and_claim_does_not_get_the_task(
    world: World,
) -> None:
    owner, pool, secret = await make_pool(world)
    [task] = await world.tasks((await world.job(owner, pool=pool)).id)
    device = await world.device()
    await join(world, device, pool, secret)
    solved = world.solved(device, task.id)
    await world.run(
        lambda conn: pools.leave_pool(conn, device.actor.account_id, pool, world.clock.now())
    )
    [refusal] = await world.claim_items(device, [solved])
    assert isinstance(refusal, Refusal)
    assert refusal.code == "private_pool"


async def test_only_members_post_to_a_pool_and_nothing_is_locked_otherwise(world: World) -> None:
    _, pool, _ = await make_pool(world)
    stranger = await world.account(Role.REQUESTER, credits=CREDITS)
    with pytest.raises(PoolNotFoundError):
        await world.job(stranger, pool=pool)
    assert await world.available(stranger) == CREDITS


async def speed_of(world: World, device: Device) -> float | None:
    return (await renewed(world, device)).actor.fuel_per_ms


async def work(world: World, device: Device, fuel: int, seconds: float) -> None:
    """The device works for so long on a task of its own and the referee agrees."""
    [task] = await world.tasks((await world.job(range=InputRange(count=1, start=next(_starts)))).id)
    claimed = await world.claim(device, task.id)
    world.clock.advance(seconds=seconds)
    await world.submit(device, claimed, outcome(fuel=fuel))
    await world.referee(outcome(fuel=fuel))
    assert (await world.task(task.id)).state == "accepted"


async def test_speed_is_a_moving_average_over_accepted_results(world: World) -> None:
    device = await world.device()
    assert await speed_of(world, device) is None
    await work(world, device, MEASURED, 2)
    assert await speed_of(world, device) == 100_000
    await work(world, device, 2 * MEASURED, 2)
    assert await speed_of(world, device) == pytest.approx(0.8 * 100_000 + 0.2 * 200_000)
    before = await speed_of(world, device)
    await work(world, device, 1_000, 2)
    assert await speed_of(world, device) == before


async def test_a_lie_and_work_for_oneself_measure_nothing(world: World) -> None:
    liar = await world.device()
    [task] = await world.tasks((await world.job()).id)
    claimed = await world.claim(liar, task.id)
    world.clock.advance(seconds=1)
    await world.submit(liar, claimed, outcome(b"a lie", fuel=10**12))
    await world.referee(outcome(fuel=MEASURED))
    assert await speed_of(world, liar) is None
    account = await world.account(Role.REQUESTER, Role.WORKER, credits=CREDITS)
    own = await world.device(account)
    [task] = await world.tasks((await world.job(account, limits=Limits(fuel=10**9))).id)
    claimed = await world.claim(own, task.id)
    world.clock.advance(seconds=1)
    await world.submit(own, claimed, outcome(fuel=MEASURED))
    await world.referee(outcome(fuel=MEASURED))
    assert (await world.task(task.id)).state == "accepted"
    assert await speed_of(world, own) is None


async def test_a_deadline_too_near_for_the_measured_speed_is_left_to_faster_devices(
    world: World, maker: Matchmaker
) -> None:
    fast, new = await world.device(), await world.device()
    await work(world, fast, MEASURED, 0.2)  # ten times the speed of a slow device
    assert await speed_of(world, fast) == 1_000_000
    deadline = world.clock.now() + timedelta(seconds=5)
    limits = Limits(fuel=2_000_000_000, wall_ms=60_000)  # 20 s for a slow device, 2 s for this one
    job = await world.job(deadline=deadline, limits=limits)
    told = (await ask(world, maker, new)).idle
    assert told is not None
    assert "cannot be finished before their deadlines at this device's measured speed" in told
    assert [offer.job_id for offer in (await ask(world, maker, fast)).offers] == [job.id]
