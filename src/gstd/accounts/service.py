"""Use cases about accounts, keys and devices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from gstd.accounts.errors import (
    AccountNotFoundError,
    DeviceKeyTakenError,
    DeviceNotFoundError,
    InvalidCodeError,
    NotAuthenticatedError,
)
from gstd.accounts.model import Actor, DeviceActor, shard_of
from gstd.database.connection import Connection, to_struct, to_structs
from gstd.database.sql import load_queries
from gstd.events.service import Event, append
from gstd.kernel.ids import new_id
from gstd.kernel.secrets import new_token, token_hash
from gstd.kernel.settings import Policy
from gstd.protocol.matching import DeviceLimits
from gstd.protocol.people import (
    AccountView,
    DeviceView,
    EnrolmentCode,
    EnrolRequest,
    NewAccount,
)
from gstd.protocol.signing import enrolment_statement, is_signed_by
from gstd.protocol.types import Role

_sql = load_queries("gstd.accounts")


async def create_account(
    connection: Connection, name: str, roles: Sequence[Role], now: datetime
) -> NewAccount:
    """A new account with its first API key, which is shown this once."""
    account = AccountView(id=new_id(), name=name, roles=sorted(set(roles)), created_at=now)
    await connection.execute(
        _sql["insert_account"], account.id, name, account.roles, shard_of(account.id), now
    )
    token = new_token("gstd_key")
    await connection.execute(
        _sql["insert_api_key"], new_id(), account.id, token_hash(token), "first key", now
    )
    return NewAccount(account=account, api_key=token)


async def has_accounts(connection: Connection) -> bool:
    """Whether anybody has an account yet."""
    return bool(await connection.fetchval(_sql["any_account"]))


async def account(connection: Connection, account_id: UUID) -> AccountView:
    """An account that exists."""
    row = await connection.fetchrow(_sql["account"], account_id)
    if row is None:
        raise AccountNotFoundError(f"no account {account_id}")
    return to_struct(row, AccountView)


async def actor_of_key(connection: Connection, api_key: str, now: datetime) -> Actor:
    """Who an API key belongs to. Raises ``NotAuthenticatedError`` for anything but a live key."""
    row = await connection.fetchrow(_sql["actor_of_key"], token_hash(api_key), now)
    if row is None:
        raise NotAuthenticatedError("this API key is unknown, expired or revoked")
    return to_struct(row, Actor)


async def devices_of_keys(
    connection: Connection, public_keys: Sequence[str]
) -> list[DeviceActor | None]:
    """The device of each key, or ``None`` where none is enrolled with it."""
    rows = await connection.fetch(_sql["devices_of_keys"], public_keys)
    devices = {device.public_key: device for device in to_structs(rows, DeviceActor)}
    return [devices.get(key) for key in public_keys]


async def device_actors(
    connection: Connection, device_ids: Sequence[UUID], owner: UUID | None = None
) -> list[DeviceActor]:
    """Those of the devices that exist, only the owner's if one is given."""
    return to_structs(await connection.fetch(_sql["device_actors"], device_ids, owner), DeviceActor)


async def new_enrolment_code(
    connection: Connection, account_id: UUID, policy: Policy, now: datetime
) -> EnrolmentCode:
    """A code that links one device to the account, once, for a quarter of an hour."""
    code = new_token("gstd_code")
    expires_at = now + timedelta(seconds=policy.enrolment_code_s)
    await connection.execute(_sql["insert_code"], token_hash(code), account_id, expires_at)
    return EnrolmentCode(code=code, expires_at=expires_at)


async def enrol_device(
    connection: Connection, request: EnrolRequest, policy: Policy, now: datetime
) -> DeviceView:
    """Link a device key by a one-time code.

    Idempotent: the same code and key give the same device again. Raises ``InvalidCodeError`` for
    a code that is unknown, used for another key or expired, and for a wrong signature;
    ``DeviceKeyTakenError`` when the key belongs to another device.
    """
    hashed = token_hash(request.code)
    code = await connection.fetchrow(_sql["take_code"], hashed)
    if code is None:
        raise InvalidCodeError
    if not is_signed_by(
        request.public_key,
        enrolment_statement(request.code, request.public_key),
        request.signature,
    ):
        raise InvalidCodeError("the signature is not of the key that is enrolled")
    if code["device_id"] is not None:
        device = await _device(connection, code["device_id"])
        if device.public_key != request.public_key:
            raise InvalidCodeError("this enrolment code was used for another key")
        return device
    if code["expires_at"] <= now:
        raise InvalidCodeError("this enrolment code has expired")
    return await _link(connection, request, hashed, code["account_id"], policy, now)


async def _link(
    connection: Connection,
    request: EnrolRequest,
    hashed: bytes,
    account_id: UUID,
    policy: Policy,
    now: datetime,
) -> DeviceView:
    device_id = await connection.fetchval(
        _sql["insert_device"],
        new_id(),
        account_id,
        request.name,
        request.public_key,
        now,
        policy.first_quota,
    )
    if device_id is None:
        raise DeviceKeyTakenError
    await connection.execute(_sql["use_code"], hashed, device_id)
    event = Event(
        kind="device.enrolled",
        accounts=(account_id,),
        data={"device_id": str(device_id), "name": request.name},
    )
    await append(connection, [event], now)
    return await _device(connection, device_id)


async def devices_of(connection: Connection, account_id: UUID) -> list[DeviceView]:
    """The account's devices, oldest first."""
    rows = await connection.fetch(_sql["devices_of_account"], account_id)
    return to_structs(rows, DeviceView)


async def revoke_device(
    connection: Connection, account_id: UUID, device_id: UUID, now: datetime
) -> DeviceView:
    """End a device's work for good. Raises ``DeviceNotFoundError`` for somebody else's."""
    if await connection.fetchval(_sql["revoke_device"], device_id, account_id) is None:
        raise DeviceNotFoundError
    event = Event(kind="device.revoked", accounts=(account_id,), data={"device_id": str(device_id)})
    await append(connection, [event], now)
    return await _device(connection, device_id)


async def limit_device(
    connection: Connection, account_id: UUID, device_id: UUID, limits: DeviceLimits, now: datetime
) -> DeviceView:
    """Set what a device takes. Raises ``DeviceNotFoundError`` for somebody else's."""
    if await connection.fetchval(_sql["limit_device"], device_id, account_id, limits) is None:
        raise DeviceNotFoundError
    event = Event(
        kind="device.limits_changed", accounts=(account_id,), data={"device_id": str(device_id)}
    )
    await append(connection, [event], now)
    return await _device(connection, device_id)


async def _device(connection: Connection, device_id: UUID) -> DeviceView:
    row = await connection.fetchrow(_sql["device"], device_id)
    assert row is not None
    return to_struct(row, DeviceView)
