"""Who gets which work: what devices take, private pools, and why something does not move."""

from __future__ import annotations

from uuid import UUID

from gstd.protocol.matching import DeviceChange, DeviceLimits, DeviceWhy, TaskWhy
from gstd.protocol.people import DeviceView
from gstd.protocol.pools import JoinRequest, NewPool, PoolMember, PoolRequest, PoolView
from gstd.sdk.room import Room, change, get, make


class Matching(Room):
    """Limits of devices, private pools, and why."""

    async def limit_device(
        self, device_id: UUID, limits: DeviceLimits, *, idempotency_key: str | None = None
    ) -> DeviceView:
        """Set what a device takes, in place of what was set before."""
        call = change(f"/devices/{device_id}", DeviceChange(limits=limits), idempotency_key)
        return await self._transport.fetch(DeviceView, call)

    async def why_device(self, device_id: UUID) -> DeviceWhy:
        """Why a device gets no work."""
        return await self._transport.fetch(DeviceWhy, get(f"/devices/{device_id}/why"))

    async def why_task(self, task_id: UUID) -> TaskWhy:
        """Why a task is where it is."""
        return await self._transport.fetch(TaskWhy, get(f"/tasks/{task_id}/why"))

    async def create_pool(self, name: str, *, idempotency_key: str | None = None) -> NewPool:
        """A pool of this account; its secret is shown this once."""
        call = make("/pools", PoolRequest(name=name), idempotency_key)
        return await self._transport.fetch(NewPool, call)

    async def pools(self) -> list[PoolView]:
        """The pools that the account owns or has joined."""
        return await self._transport.fetch(list[PoolView], get("/pools"))

    async def join_pool(
        self, pool_id: UUID, secret: str, *, idempotency_key: str | None = None
    ) -> PoolView:
        """Let the account's devices take the pool's jobs."""
        call = make(f"/pools/{pool_id}/join", JoinRequest(secret=secret), idempotency_key)
        return await self._transport.fetch(PoolView, call)

    async def leave_pool(self, pool_id: UUID, *, idempotency_key: str | None = None) -> PoolView:
        """End the account's membership."""
        call = make(f"/pools/{pool_id}/leave", None, idempotency_key)
        return await self._transport.fetch(PoolView, call)

    async def pool_members(self, pool_id: UUID) -> list[PoolMember]:
        """Who is in a pool of this account."""
        return await self._transport.fetch(list[PoolMember], get(f"/pools/{pool_id}/members"))

    async def remove_pool_member(
        self, pool_id: UUID, account_id: UUID, *, idempotency_key: str | None = None
    ) -> NewPool:
        """Take an account out of a pool of this account, which gets a new secret."""
        path = f"/pools/{pool_id}/members/{account_id}/remove"
        return await self._transport.fetch(NewPool, make(path, None, idempotency_key))
