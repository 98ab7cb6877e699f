"""Accounts and devices: who somebody is, and what works for them."""

from __future__ import annotations

from uuid import UUID

from gstd.protocol.people import (
    AccountRequest,
    AccountView,
    DeviceView,
    EnrolmentCode,
    NewAccount,
)
from gstd.sdk.room import Room, get, make
from gstd.sdk.transport import Call


class People(Room):
    """Who somebody is, and the devices that work for them."""

    async def account(self) -> AccountView:
        """The account of the API key."""
        return await self._transport.fetch(AccountView, get("/account"))

    async def create_account(
        self, request: AccountRequest, *, idempotency_key: str | None = None
    ) -> NewAccount:
        """A new account and its API key, which is shown this once. Admins only."""
        call = make("/accounts", request, idempotency_key)
        return await self._transport.fetch(NewAccount, call)

    async def new_enrolment_code(self, *, idempotency_key: str | None = None) -> EnrolmentCode:
        """A one-time code that links a device to this account."""
        call = make("/devices/codes", None, idempotency_key)
        return await self._transport.fetch(EnrolmentCode, call)

    async def devices(self) -> list[DeviceView]:
        """The account's devices, oldest first."""
        return await self._transport.fetch(list[DeviceView], get("/devices"))

    async def revoke_device(self, device_id: UUID) -> DeviceView:
        """End a device's work for good. Revoking twice changes nothing."""
        call = Call(method="POST", path=f"/devices/{device_id}/revoke", safe=True)
        return await self._transport.fetch(DeviceView, call)
