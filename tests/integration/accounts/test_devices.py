"""Devices: enrolled once by a code, trusted by what verification decided, suspended for lies."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from gstd.accounts import service as accounts
from gstd.accounts.errors import (
    DeviceKeyTakenError,
    DeviceNotFoundError,
    InvalidCodeError,
)
from gstd.kernel.errors import GstdError
from gstd.protocol.people import DeviceView, EnrolRequest
from gstd.protocol.signing import DeviceKey, enrolment_statement
from gstd.protocol.types import Role
from tests.world import CREDITS, Device, World, outcome


async def new_code(world: World, account: UUID) -> str:
    made = await world.run(
        lambda conn: accounts.new_enrolment_code(conn, account, world.policy, world.clock.now())
    )
    return made.code


def request(code: str, key: DeviceKey, signer: DeviceKey | None = None) -> EnrolRequest:
    signature = (signer or key).sign(enrolment_statement(code, key.public))
    return EnrolRequest(code=code, name="device", public_key=key.public, signature=signature)


async def enrol(world: World, wanted: EnrolRequest) -> DeviceView:
    return await world.run(
        lambda conn: accounts.enrol_device(conn, wanted, world.policy, world.clock.now())
    )


async def device_view(world: World, device: Device) -> DeviceView:
    views = await world.run(lambda conn: accounts.devices_of(conn, device.actor.account_id))
    return next(view for view in views if view.id == device.actor.device_id)


async def test_a_code_links_one_key_and_may_be_repeated_for_it(world: World) -> None:
    account = await world.account(Role.WORKER)
    key, other = DeviceKey.generate(), DeviceKey.generate()
    code = await new_code(world, account)
    first = await enrol(world, request(code, key))
    world.clock.advance(hours=1)
    assert await enrol(world, request(code, key)) == first
    with pytest.raises(InvalidCodeError, match="another key"):
        await enrol(world, request(code, other))
    keys = [other.public, key.public, key.public]
    stranger, actor, again = await world.run(lambda conn: accounts.devices_of_keys(conn, keys))
    assert stranger is None
    assert actor is not None
    assert (actor.account_id, actor.device_id) == (account, first.id)
    assert again == actor


async def test_an_unknown_code_is_refused(world: World) -> None:
    with pytest.raises(InvalidCodeError):
        await enrol(world, request("gstd_code_unknown", DeviceKey.generate()))


async def test_a_code_lives_until_its_time_and_not_longer(world: World) -> None:
    account = await world.account(Role.WORKER)
    codes = [await new_code(world, account) for _ in range(2)]
    world.clock.advance(seconds=world.policy.enrolment_code_s - 1)
    await enrol(world, request(codes[0], DeviceKey.generate()))
    world.clock.advance(seconds=1)
    with pytest.raises(InvalidCodeError, match="expired"):
        await enrol(world, request(codes[1], DeviceKey.generate()))


async def test_a_wrong_signature_is_refused_and_leaves_the_code_unused(world: World) -> None:
    code = await new_code(world, await world.account(Role.WORKER))
    key = DeviceKey.generate()
    with pytest.raises(InvalidCodeError, match="signature"):
        await enrol(world, request(code, key, signer=DeviceKey.generate()))
    assert (await enrol(world, request(code, key))).public_key == key.public


async def test_a_key_belongs_to_one_device_only(world: World) -> None:
    key = DeviceKey.generate()
    mine, theirs = [await new_code(world, await world.account(Role.WORKER)) for _ in range(2)]
    await enrol(world, request(mine, key))
    with pytest.raises(DeviceKeyTakenError):
        await enrol(world, request(theirs, key))


async def test_one_code_used_by_many_at_once_links_one_device(world: World) -> None:
    account = await world.account(Role.WORKER)
    code = await new_code(world, account)
    results = await asyncio.gather(
        *(enrol(world, request(code, DeviceKey.generate())) for _ in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, DeviceView) for result in results) == 1
    assert sum(isinstance(result, InvalidCodeError) for result in results) == 7
    assert len(await world.run(lambda conn: accounts.devices_of(conn, account))) == 1


async def test_only_the_owner_revokes_a_device(world: World) -> None:
    device = await world.device()
    stranger = await world.account(Role.WORKER)

    async def revoke(who: UUID) -> DeviceView:
        return await world.run(
            lambda conn: accounts.revoke_device(
                conn, who, device.actor.device_id, world.clock.now()
            )
        )

    with pytest.raises(DeviceNotFoundError):
        await revoke(stranger)
    assert (await revoke(device.actor.account_id)).state == "revoked"


async def test_trust_rises_slowly_for_right_results_and_halves_for_wrong_ones(
    world: World,
) -> None:
    device = await world.device()
    assert (await device_view(world, device)).trust == 500
    await _prove(world, device)
    assert (await device_view(world, device)).trust == 525
    await _lie(world, device)
    view = await device_view(world, device)
    assert view.trust in (262, 263)
    assert (view.accepted, view.rejected, view.state) == (1, 1, "active")


async def test_a_device_below_the_least_trust_is_suspended_and_cannot_work(world: World) -> None:
    device = await world.device()
    for expected in ("active", "active", "suspended"):
        await _lie(world, device)
        assert (await device_view(world, device)).state == expected
    actor = await world.actor(device.key.public)
    with pytest.raises(GstdError, match="suspended"):
        actor.must_be_active()


async def test_tasks_of_ones_own_account_earn_no_trust_but_lies_still_cost_it(
    world: World,
) -> None:
    owner = await world.account(Role.REQUESTER, Role.WORKER, credits=CREDITS)
    device = await world.device(owner)
    await _prove(world, device, owner)
    view = await device_view(world, device)
    assert (view.trust, view.accepted) == (500, 0)
    await _lie(world, device, owner)
    assert (await device_view(world, device)).trust == 250


async def _prove(world: World, device: Device, owner: UUID | None = None) -> None:
    [task] = await world.tasks((await world.job(owner)).id)
    await world.submit(device, await world.claim(device, task.id))
    await world.referee()
    assert (await world.task(task.id)).attempts[-1].verdict == "proved"


async def _lie(world: World, device: Device, owner: UUID | None = None) -> None:
    [task] = await world.tasks((await world.job(owner)).id)
    await world.submit(device, await world.claim(device, task.id), outcome(b"wrong"))
    await world.referee()
    assert (await world.task(task.id)).attempts[-1].verdict == "wrong"
