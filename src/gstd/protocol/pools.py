"""Messages about private pools: groups of accounts whose devices take jobs of their own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.types import Name


class PoolRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new pool."""

    name: Name


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool that the account owns or has joined."""

    id: UUID
    name: str
    is_owner: bool
    members: int
    created_at: datetime


class NewPool(msgspec.Struct, frozen=True, kw_only=True):
    """``secret`` lets accounts join. It is shown this once and stored only as a hash."""

    pool: PoolView
    secret: str


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pool's secret, as its owner passed it on."""

    secret: Annotated[str, Meta(max_length=100)]


class PoolMember(msgspec.Struct, frozen=True, kw_only=True):
    """An account whose devices take the pool's jobs."""

    account_id: UUID
    name: str
    devices: int
    joined_at: datetime
