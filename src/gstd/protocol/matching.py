"""What a device takes, and the answers to why something does not move."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.execution import MAX_WALL_MS
from gstd.protocol.types import Asset, HexHash, Nano

MAX_LISTED = 64
"""Modules or pools that one list of a device may name."""

Modules = Annotated[list[HexHash], Meta(max_length=MAX_LISTED)]


class DeviceLimits(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What a device takes; null, or an asset that is missing, means no limit.

    ``min_reward_nano`` is per asset. ``pools`` are those of the account's pools that it serves,
    null all of them; with ``public`` false it takes nothing else.
    """

    memory_bytes: Annotated[int, Meta(ge=65_536)] | None = None
    max_wall_ms: Annotated[int, Meta(ge=1, le=MAX_WALL_MS)] | None = None
    min_reward_nano: dict[Asset, Nano] = {}
    assets: Annotated[list[Asset], Meta(max_length=8)] | None = None
    allowed_modules: Modules | None = None
    denied_modules: Modules = []
    pools: Annotated[list[UUID], Meta(max_length=MAX_LISTED)] | None = None
    public: bool = True


NO_LIMITS = DeviceLimits()


class DeviceChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner sets for a device, in place of what was set before.

    Of these limits and those that the device itself asks with, the stricter count.
    """

    limits: DeviceLimits


class RuleCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices or tasks a rule, or a state of fitting devices, is true of; in words too."""

    rule: str
    count: int
    words: str


class TaskWhy(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task is where it is. ``until`` is null when no time ends that by itself.

    While it is ready: ``misfits`` counts online devices by the first rule that keeps it from them,
    ``fits`` the others by what they do. ``ahead`` counts tasks that come first, up to 10 000, and
    ``expected_start_s`` is a guess from how fast the fitting devices took work lately.
    """

    task_id: UUID
    state: str
    words: str
    until: datetime | None = None
    online: int | None = None
    misfits: list[RuleCount] = []
    fits: list[RuleCount] = []
    ahead: int | None = None
    expected_start_s: int | None = None


class DeviceWhy(msgspec.Struct, frozen=True, kw_only=True):
    """Why a device gets no work.

    ``tasks`` are ready, ``fitting`` of them may go to this device, ``misfits`` counts the others by
    the first rule that keeps them from it. Counts end at 1 000 tasks of equal needs.
    """

    device_id: UUID
    state: str
    words: str
    online: bool
    last_seen_at: datetime | None = None
    running: int = 0
    tasks: int = 0
    fitting: int = 0
    misfits: list[RuleCount] = []
