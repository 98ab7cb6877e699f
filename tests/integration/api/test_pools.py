"""Private pools and device limits over HTTP, from the secret to the task, and why not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx2
import msgspec
import pytest
import pytest_asyncio

from gstd.accounts.pools import MAX_POOLS
from gstd.bus.bus import Bus
from gstd.dispatch.asking import last_asked
from gstd.kernel.ids import new_id
from gstd.protocol.matching import DeviceLimits
from gstd.protocol.types import Asset, Role
from gstd.protocol.work import OffersRequest
from gstd.sandbox.profile import PROFILE
from gstd.sdk import ApiError
from tests.integration.api.house import (
    REWARD,
    House,
    bearer,
    codes,
    open_house,
    problem_of,
    solved,
)

ASK = OffersRequest(profile=PROFILE, free=64)


@pytest_asyncio.fixture(loop_scope="session")
async def house(
    database_urls: dict[str, str], tmp_path: Path, valkey_url: str
) -> AsyncIterator[House]:
    """A platform without other tests' tasks and devices."""

    async with open_house(
        tmp_path, database_urls["app"], database_urls["owner"], valkey_url
    ) as made:
        await made.module()
        yield made


async def test_a_pool_from_its_secret_to_its_task(house: House) -> None:
    owner = await house.requester()
    made = await owner.client.create_pool("friends")
    assert made.pool.is_owner
    assert made.secret.startswith("gstd_pool_")
    member, stranger = await house.device(), await house.device()
    with pytest.raises(ApiError, match="secret"):
        await member.owner.client.join_pool(made.pool.id, "gstd_pool_wrong")
    joined = await member.owner.client.join_pool(made.pool.id, made.secret)
    assert (joined.name, joined.is_owner, joined.members) == ("friends", False, 2)
    assert await member.owner.client.join_pool(made.pool.id, made.secret) == joined
    assert await member.owner.client.pools() == [joined]

    job = await house.job(owner, tasks=2, pool=made.pool.id)
    assert job.pool == made.pool.id
    assert (await stranger.client.offers(ASK)).offers == []
    offers = (await member.client.offers(ASK)).offers
    assert {offer.job_id for offer in offers} == {job.id}
    assert codes(await member.client.claims([solved(offers[0])])) == ["Claimed"]

    await member.owner.client.leave_pool(made.pool.id)
    assert codes(await member.client.claims([solved(offers[1])])) == ["private_pool"]
    assert await member.owner.client.pools() == []


async def test_a_removed_member_does_not_come_back_by_the_secret_it_knows(house: House) -> None:
    owner, member = await house.requester(), await house.person(Role.WORKER)
    made = await owner.client.create_pool("friends")
    await member.client.join_pool(made.pool.id, made.secret)
    [first, second] = await owner.client.pool_members(made.pool.id)
    assert {first.account_id, second.account_id} == {owner.id, member.id}
    renewed = await owner.client.remove_pool_member(made.pool.id, member.id)
    assert renewed.pool.members == 1
    assert renewed.secret != made.secret
    with pytest.raises(ApiError) as refusal:
        await member.client.join_pool(made.pool.id, made.secret)
    assert refusal.value.code == "wrong_pool_secret"
    await member.client.join_pool(made.pool.id, renewed.secret)


async def test_a_pool_is_its_owner_s(house: House) -> None:
    owner, member, stranger = [await house.requester() for _ in range(3)]
    made = await owner.client.create_pool("friends")
    pool = made.pool.id
    await member.client.join_pool(pool, made.secret)
    for person in (member, stranger):
        headers = bearer(person)
        path = f"/api/v1/pools/{pool}/members"
        problem_of(await house.http.get(path, headers=headers), 404, "pool_not_found")
        answer = await house.http.post(f"{path}/{owner.id}/remove", headers=headers)
        problem_of(answer, 404, "pool_not_found")
    for answer in (
        await house.http.post(f"/api/v1/pools/{pool}/leave", headers=bearer(owner)),
        await house.http.post(
            f"/api/v1/pools/{pool}/members/{owner.id}/remove", headers=bearer(owner)
        ),
    ):
        problem_of(answer, 409, "pool_owner_stays")
    with pytest.raises(ApiError) as refusal:
        await house.job(stranger, pool=pool)
    assert (refusal.value.status, refusal.value.code) == (404, "pool_not_found")
    assert (await house.job(member, pool=pool)).pool == pool
    with pytest.raises(ApiError) as unknown:
        await stranger.client.join_pool(new_id(), made.secret)
    assert unknown.value.code == "wrong_pool_secret"


async def test_an_account_is_in_so_many_pools_at_most(house: House) -> None:
    person = await house.requester()
    for number in range(MAX_POOLS):
        await person.client.create_pool(f"pool {number}")
    with pytest.raises(ApiError) as refusal:
        await person.client.create_pool("one more")
    assert refusal.value.code == "too_many_pools"
    assert len(await person.client.pools()) == MAX_POOLS


async def test_the_owner_of_a_device_sets_what_it_takes(house: House) -> None:
    device = await house.device()
    limits = DeviceLimits(min_reward_nano={Asset.TEST: str(REWARD + 1)}, max_wall_ms=5_000)
    assert (await device.owner.client.limit_device(device.id, limits)).limits == limits
    [listed] = await device.owner.client.devices()
    assert listed.limits == limits
    await house.job(await house.requester())
    answer = await device.client.offers(ASK)
    assert "may take longer than the device wants" in str(answer.idle)
    await device.owner.client.limit_device(device.id, DeviceLimits())
    assert len((await device.client.offers(ASK)).offers) == 1


async def patch(house: House, device_id: UUID, key: str, limits: object) -> httpx2.Response:
    return await house.http.patch(
        f"/api/v1/devices/{device_id}",
        headers={"Authorization": f"Bearer {key}"},
        content=msgspec.json.encode({"limits": limits}),
    )


async def test_limits_of_others_devices_and_limits_that_do_not_exist(house: House) -> None:
    device, stranger = await house.device(), await house.person(Role.WORKER)
    problem_of(await patch(house, device.id, stranger.key, {}), 404, "device_not_found")
    for limits in (
        {"max_wal_ms": 1},
        {"max_wall_ms": 60_001},
        {"min_reward_nano": {"EUR": "1"}},
        {"min_reward_nano": {"TEST": "-1"}},
        {"denied_modules": ["zz"]},
        {"denied_modules": ["0" * 64] * 65},
    ):
        problem_of(await patch(house, device.id, device.owner.key, limits), 400, "invalid_input")


async def test_why_is_answered_for_tasks_and_devices(house: House, valkey_url: str) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person)
    [task] = await person.client.tasks(job.id)
    asked = msgspec.structs.replace(ASK, min_reward_nano={Asset.TEST: str(REWARD + 1)})
    await device.client.offers(asked)
    found = await person.client.why_task(task.id)
    assert [(item.rule, item.words) for item in found.misfits if item.rule == "reward"] == [
        ("reward", "1 wants a higher reward")
    ]
    assert "1 wants a higher reward" in found.words
    told = await device.owner.client.why_device(device.id)
    assert told.words == ("1 task is ready, none for this device: 1 pays below its minimum reward")
    async with Bus.open(valkey_url) as elsewhere:  # as another process knows it
        known = await last_asked(elsewhere, [device.id])
    assert known[device.id].request == asked
    stranger = await house.requester()
    for path in (f"/api/v1/tasks/{task.id}/why", f"/api/v1/devices/{device.id}/why"):
        answer = await house.http.get(path, headers=bearer(stranger))
        assert answer.status_code == 404, answer.text
