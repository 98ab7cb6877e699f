"""Claims: one guarded update that agrees with ``advance``, whoever races for the task."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gstd.dispatch import claims
from gstd.kernel.errors import Refusal
from gstd.kernel.ids import new_id
from gstd.proof_of_work.challenge import Challenge
from gstd.proof_of_work.solver import solve
from gstd.protocol.types import Role, Tier
from gstd.protocol.work import Alive, Claimed, ClaimItem, ReleaseReason
from gstd.tasks.errors import AttemptNotFoundError
from tests.world import Device, World, outcome


async def claim_items(world: World, device: Device, items: list[ClaimItem]) -> list[str]:
    outcomes = await world.claim_items(device, items)
    return [item.code if isinstance(item, Refusal) else "claimed" for item in outcomes]


async def assert_advance_agrees(world: World) -> None:
    before = await world.rows()
    ids = [row["id"] for row in before["task"]]
    assert await world.advance(*ids) == {}
    assert await world.rows() == before


async def test_every_claim_leaves_what_advance_would_have_written(world: World) -> None:
    plain = await world.job(tasks=2)
    quorum = await world.job(tier=Tier.QUORUM, quorum=3)
    for job in (plain, quorum):
        for task in await world.tasks(job.id):
            for _ in range(job.quorum):
                await world.claim(await world.device(), task.id)
                await assert_advance_agrees(world)


async def test_claims_after_faults_lies_and_splits_agree_with_advance_too(world: World) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    devices = [await world.device() for _ in range(6)]
    first = await world.claim(devices[0], task.id)
    second = await world.claim(devices[1], task.id)
    await world.release(devices[0], first)
    world.clock.advance(seconds=1.2)
    third = await world.claim(devices[2], task.id)
    await assert_advance_agrees(world)
    await world.submit(devices[1], second, outcome(b"one"))
    await world.submit(devices[2], third, outcome(b"two"))
    fourth = await world.claim(devices[3], task.id)
    await assert_advance_agrees(world)
    await world.submit(devices[3], fourth, outcome(b"three"))
    await world.referee()
    fifth = await world.claim(devices[4], task.id)
    await assert_advance_agrees(world)
    await world.submit(devices[4], fifth)
    assert (await world.task(task.id)).state == "accepted"


async def test_a_replayed_claim_gives_the_same_attempt(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    item = world.solved(device, task.id)
    twice = [await world.claim_items(device, [item]) for _ in range(2)]
    in_one_batch = await world.claim_items(device, [item, item])
    attempts = {claimed.attempt_id for [claimed] in twice if isinstance(claimed, Claimed)}
    assert len(attempts) == 1
    assert {claimed.attempt_id for claimed in in_one_batch if isinstance(claimed, Claimed)} == (
        attempts
    )
    assert len((await world.task(task.id)).attempts) == 1
    await assert_advance_agrees(world)


async def test_an_offer_is_claimed_once_and_never_again_after_its_attempt_ended(
    world: World,
) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    item = world.solved(device, task.id)
    [claimed] = await world.claim_items(device, [item])
    assert isinstance(claimed, Claimed)
    await world.release(device, claimed, ReleaseReason.SHUTTING_DOWN)
    assert await claim_items(world, device, [item]) == ["task_taken"]
    assert (await world.task(task.id)).state == "queued"


async def test_one_account_never_holds_two_attempts_of_a_task(world: World) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    account = await world.account(Role.WORKER)
    one, other = await world.device(account), await world.device(account)
    claimed = await world.claim(one, task.id)
    for device in (one, other):
        assert await claim_items(world, device, [world.solved(device, task.id)]) == ["task_taken"]
    await world.submit(one, claimed)
    assert await claim_items(world, other, [world.solved(other, task.id)]) == ["task_taken"]
    assert len((await world.task(task.id)).attempts) == 1


async def test_two_devices_of_one_account_that_race_get_one_attempt(world: World) -> None:
    account = await world.account(Role.WORKER)
    devices = [await world.device(account) for _ in range(8)]
    job = await world.job(tasks=5, tier=Tier.QUORUM, quorum=5)
    for task in await world.tasks(job.id):
        items = [world.solved(device, task.id) for device in devices]
        outcomes = await asyncio.gather(
            *(
                claim_items(world, device, [item])
                for device, item in zip(devices, items, strict=True)
            )
        )
        assert sorted(outcomes) == [["claimed"]] + [["task_taken"]] * 7
    await assert_advance_agrees(world)


@pytest.mark.parametrize("wanted", [1, 3])
async def test_of_sixteen_concurrent_claims_exactly_the_wanted_ones_win(
    world: World, wanted: int
) -> None:
    tier = {"tier": Tier.FULL} if wanted == 1 else {"tier": Tier.QUORUM, "quorum": wanted}
    devices = [await world.device() for _ in range(16)]
    job = await world.job(tasks=5, **tier)
    for task in await world.tasks(job.id):
        items = [world.solved(device, task.id) for device in devices]
        outcomes = await asyncio.gather(
            *(
                claim_items(world, device, [item])
                for device, item in zip(devices, items, strict=True)
            )
        )
        assert outcomes.count(["claimed"]) == wanted
        assert outcomes.count(["task_taken"]) == 16 - wanted
        assert (await world.task(task.id)).state == "running"
    await assert_advance_agrees(world)


async def test_one_bad_item_does_not_spoil_a_batch(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=3)).id)
    device = await world.device()
    good = [world.solved(device, task.id) for task in tasks]
    items = [
        good[0],
        msgspec.structs.replace(good[1], bits=good[1].bits + 1),
        msgspec.structs.replace(good[1], expires_at=int(world.clock.now().timestamp()) - 1),
        world.solved(device, new_id()),
        good[2],
        world.solved(device, tasks[0].id),
    ]
    assert await claim_items(world, device, items) == [
        "claimed",
        "invalid_proof",
        "offer_expired",
        "task_taken",
        "claimed",
        "task_taken",
    ]


async def test_a_proof_of_another_device_is_refused(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    one, other = await world.device(), await world.device()
    assert await claim_items(world, other, [world.solved(one, task.id)]) == ["invalid_proof"]
    assert (await world.task(task.id)).attempts == []


@pytest.mark.parametrize(("bits", "count"), [(0, 1), (0, 64), (1, 1), (1, 63), (0, 0), (-1, -64)])
async def test_an_invented_offer_with_next_to_no_work_is_refused(
    world: World, bits: int, count: int
) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    challenge = Challenge(
        offer_id=new_id(),
        task_id=task.id,
        worker=device.key.public,
        bits=bits,
        count=count,
        expires_at=int(world.clock.now().timestamp()) + 60,
    )
    nonces = solve(challenge.prefix(world.pow_key), max(bits, 0), max(count, 0))
    item = ClaimItem(
        offer_id=challenge.offer_id,
        task_id=task.id,
        bits=bits,
        count=count,
        expires_at=challenge.expires_at,
        nonces=nonces,
    )
    assert await claim_items(world, device, [item]) == ["invalid_proof"]
    assert (await world.task(task.id)).attempts == []


async def test_a_task_is_not_claimed_before_its_time_nor_after_its_deadline(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    faulty, other = await world.device(), await world.device()
    await world.release(faulty, await world.claim(faulty, task.id))
    assert await claim_items(world, other, [world.solved(other, task.id)]) == ["task_taken"]
    world.clock.advance(seconds=world.policy.max_job_life_s)
    assert await claim_items(world, other, [world.solved(other, task.id)]) == ["task_taken"]


async def test_heartbeats_extend_only_ones_own_living_lease(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device, stranger = await world.device(), await world.device()
    attempt = (await world.claim(device, task.id)).attempt_id

    async def beat(who: Device) -> Alive | Refusal:
        [answer] = await world.heartbeat(who, attempt)
        return answer

    for _ in range(3):
        world.clock.advance(milliseconds=world.policy.lease_ms - 1)
        assert isinstance(await beat(device), Alive)
        refused = await beat(stranger)
        assert isinstance(refused, Refusal)
        assert refused.code == "attempt_over"
    assert await world.expire_leases() == 0
    world.clock.advance(milliseconds=world.policy.lease_ms)
    late = await beat(device)
    assert isinstance(late, Refusal)
    assert late.code == "attempt_over"
    assert await world.expire_leases() == 1


async def test_a_module_is_given_only_to_a_device_that_holds_an_attempt_at_it(
    world: World,
) -> None:
    [task] = await world.tasks((await world.job()).id)
    device, stranger = await world.device(), await world.device()
    claimed = await world.claim(device, task.id)

    async def ask(who: Device, module: str) -> bytes:
        return await world.run(lambda conn: claims.module_in_hand(conn, who.actor, module))

    assert (await ask(device, claimed.metered_hash)).hex() == claimed.metered_hash
    for who, module in ((stranger, claimed.metered_hash), (device, "00" * 32), (device, "zz")):
        with pytest.raises(AttemptNotFoundError):
            await ask(who, module)
    await world.submit(device, claimed)
    with pytest.raises(AttemptNotFoundError):
        await ask(device, claimed.metered_hash)
