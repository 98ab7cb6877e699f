"""Accounts, devices and wallets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, get, patch, post
from litestar.params import FromPath, JSONBody

from gstd.accounts import service as accounts
from gstd.accounts.model import Actor
from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.bus.bus import Hint
from gstd.database.connection import Connection
from gstd.events.service import Event, append
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.ids import new_id
from gstd.kernel.money import MAX_NANO
from gstd.kernel.settings import Mode
from gstd.ledger import service as ledger
from gstd.ledger.errors import TestCreditsOffError
from gstd.protocol.matching import DeviceChange
from gstd.protocol.people import (
    AccountRequest,
    AccountView,
    CreditRequest,
    DeviceView,
    EnrolmentCode,
    EnrolRequest,
    NewAccount,
    WalletView,
)
from gstd.protocol.types import Role


@get("/account", summary="Who am I")
async def show_account(actor: ActorDep, platform: PlatformDep) -> AccountView:
    """The account that the API key belongs to."""
    return await edge.read(platform, lambda conn: accounts.account(conn, actor.account_id))


@post("/accounts", summary="Make an account (admin)", opt=edge.IDEMPOTENT)
async def create_account(
    request: Request[Any, Any, Any],
    data: JSONBody[AccountRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[NewAccount]:
    """A new account with its first API key, which is shown this once."""
    actor.must_be(Role.ADMIN)

    async def create(connection: Connection, now: datetime) -> NewAccount:
        made = await accounts.create_account(connection, data.name, data.roles, now)
        facts = {"roles": [role.value for role in made.account.roles]}
        await _admin_acted(connection, "account_created", actor, made.account.id, facts, now)
        return made

    return await edge.write(request, platform, actor, create, hints=[Hint.OUTBOX])


@post(
    "/test-credits",
    summary="Grant test credits (admin, development)",
    opt=edge.MOVES_MONEY,
)
async def grant_test_credits(
    request: Request[Any, Any, Any],
    data: JSONBody[CreditRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[WalletView]:
    """Credits that can be spent on jobs and never withdrawn."""
    actor.must_be(Role.ADMIN)
    if platform.settings.mode is not Mode.DEVELOPMENT:
        raise TestCreditsOffError

    async def grant(connection: Connection, now: datetime) -> WalletView:
        await accounts.account(connection, data.account_id)
        amount = int(data.amount_nano)
        if not 0 < amount <= MAX_NANO:
            raise InvalidInputError(f"`amount_nano` must lie between 1 and {MAX_NANO}")
        await ledger.grant_test_credits(connection, new_id(), data.account_id, amount, now)
        facts = {"amount_nano": str(amount)}
        await _admin_acted(connection, "credits_granted", actor, data.account_id, facts, now)
        return await _wallet(connection, data.account_id)

    return await edge.write(request, platform, actor, grant, hints=[Hint.OUTBOX])


async def _admin_acted(
    connection: Connection,
    act: str,
    admin: Actor,
    account_id: UUID,
    facts: dict[str, Any],
    now: datetime,
) -> None:
    """What an admin did to an account is an event, and so a leaf of the audit log."""
    event = Event(
        kind=f"admin.{act}",
        accounts=(account_id,),
        data={"admin": str(admin.account_id), "account": str(account_id), **facts},
    )
    await append(connection, [event], now)


@get("/wallet", summary="My balances")
async def show_wallet(actor: ActorDep, platform: PlatformDep) -> WalletView:
    """Per asset: available, locked in escrow, held until it vests."""
    return await edge.read(platform, lambda conn: _wallet(conn, actor.account_id))


async def _wallet(connection: Connection, account_id: UUID) -> WalletView:
    return WalletView(account_id=account_id, balances=await ledger.balances(connection, account_id))


@post("/devices/codes", summary="Make a code that enrols one device", opt=edge.IDEMPOTENT)
async def create_code(
    request: Request[Any, Any, Any], actor: ActorDep, platform: PlatformDep
) -> Response[EnrolmentCode]:
    """A one-time code. Whoever has it can make a device work for this account."""
    actor.must_be(Role.WORKER)
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: accounts.new_enrolment_code(conn, actor.account_id, platform.policy, now),
    )


@post("/devices/enrol", summary="Enrol a device by its code", security=[{}])
async def enrol_device(data: JSONBody[EnrolRequest], platform: PlatformDep) -> DeviceView:
    """Link a device's key to the account of the code. The code is the credential."""
    device = await platform.database.run(
        lambda conn: accounts.enrol_device(conn, data, platform.policy, platform.clock.now())
    )
    await platform.bus.publish(Hint.OUTBOX)
    return device


@get("/devices", summary="My devices")
async def list_devices(actor: ActorDep, platform: PlatformDep) -> list[DeviceView]:
    """The account's devices with their trust, and when each was last heard of."""
    devices = await edge.read(platform, lambda conn: accounts.devices_of(conn, actor.account_id))
    seen = await platform.bus.last_seen([str(device.id) for device in devices])
    return [
        msgspec.structs.replace(
            device, last_seen_at=None if at is None else datetime.fromtimestamp(at / 1000, UTC)
        )
        for device, at in zip(devices, seen, strict=True)
    ]


@post(
    "/devices/{device_id:uuid}/revoke",
    summary="Revoke a device",
    status_code=200,
    opt=edge.IDEMPOTENT,
)
async def revoke_device(
    request: Request[Any, Any, Any],
    device_id: FromPath[UUID],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[DeviceView]:
    """End a device's work for good. What it earned stays earned."""
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: accounts.revoke_device(conn, actor.account_id, device_id, now),
        hints=[Hint.OUTBOX],
        status=200,
    )


@patch("/devices/{device_id:uuid}", summary="Set what a device takes", opt=edge.IDEMPOTENT)
async def change_device(
    request: Request[Any, Any, Any],
    device_id: FromPath[UUID],
    data: JSONBody[DeviceChange],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[DeviceView]:
    """Limits in place of those set before; the device's own, where stricter, still count."""
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: accounts.limit_device(
            conn, actor.account_id, device_id, data.limits, now
        ),
        hints=[Hint.OUTBOX],
        status=200,
    )


router = Router(
    "/",
    tags=["people"],
    route_handlers=[
        show_account,
        create_account,
        grant_test_credits,
        show_wallet,
        create_code,
        enrol_device,
        list_devices,
        revoke_device,
        change_device,
    ],
)
