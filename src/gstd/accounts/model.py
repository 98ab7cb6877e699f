"""Who acts: a person's account by its API key, or a device by its signature."""

from __future__ import annotations

from uuid import UUID

import msgspec

from gstd.accounts.errors import DeviceBarredError, NotAllowedError
from gstd.accounts.health import Health
from gstd.protocol.matching import NO_LIMITS, DeviceLimits
from gstd.protocol.types import Role

SHARDS = 64


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated account."""

    account_id: UUID
    name: str
    roles: frozenset[Role]

    def must_be(self, *roles: Role) -> None:
        """Raise ``NotAllowedError`` unless the account has one of the roles."""
        if not self.roles & set(roles):
            raise NotAllowedError(f"this needs the role {' or '.join(roles)}")

    @property
    def is_admin(self) -> bool:
        return Role.ADMIN in self.roles


class DeviceActor(Health, frozen=True, kw_only=True):
    """An authenticated device. ``trust`` goes from 0 to 1000, ``pools`` are its account's.

    ``limits`` is what its owner set; ``fuel_per_ms`` was measured on accepted results.
    """

    device_id: UUID
    account_id: UUID
    name: str
    public_key: str
    state: str
    trust: int
    limits: DeviceLimits = NO_LIMITS
    fuel_per_ms: float | None = None
    pools: tuple[UUID, ...] = ()

    def must_be_active(self) -> None:
        """Raise ``DeviceBarredError`` unless the device may work."""
        if self.state != "active":
            raise DeviceBarredError(f"this device is {self.state}")


def shard_of(account_id: UUID) -> int:
    """The logical shard on which everything of this requester lives, 0 to 63."""
    return int.from_bytes(account_id.bytes[-8:], "big") % SHARDS
