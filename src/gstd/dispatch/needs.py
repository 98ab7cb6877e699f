"""What tasks need of a device: the class that they share in the queue."""

from __future__ import annotations

from uuid import UUID

import msgspec

from gstd.protocol.types import Asset


class TaskClass(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that any device can either run all of or none of. Amounts in nano."""

    id: int
    profile: str
    module_hash: bytes
    memory_bytes: int
    fuel: int
    wall_ms: int
    min_trust: int
    reward: int
    asset: Asset
    pool_id: UUID | None
