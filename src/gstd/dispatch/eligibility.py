"""Which device may have which task: pure rules, each with words for why not.

The rules of a class hold for all of its tasks, so the queue asks per class; the rules of a task
are asked last, for the few tasks at the head of a class that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from gstd.accounts.model import DeviceActor
from gstd.dispatch.needs import TaskClass
from gstd.kernel.settings import Policy
from gstd.protocol.matching import DeviceLimits
from gstd.protocol.types import Asset
from gstd.protocol.work import OffersRequest
from gstd.tasks.order import expected_run_ms


class Rule(Enum):
    """What keeps a task from a device, in the words of either side, for one and for many."""

    PROFILE = (
        "needs another execution profile",
        "need another execution profile",
        "has another execution profile",
        "have another execution profile",
    )
    POOL = (
        "is in a private pool that the device does not serve",
        "are in private pools that the device does not serve",
        "does not serve its private pool",
        "do not serve its private pool",
    )
    PUBLIC = (
        "is public, and the device takes only its pools' tasks",
        "are public, and the device takes only its pools' tasks",
        "takes only tasks of its own pools",
        "take only tasks of their own pools",
    )
    TRUST = ("needs more trust", "need more trust", "lacks trust", "lack trust")
    MEMORY = ("needs more memory", "need more memory", "lacks memory", "lack memory")
    TIME = (
        "may take longer than the device wants",
        "may take longer than the device wants",
        "wants shorter tasks",
        "want shorter tasks",
    )
    DENIED = (
        "runs a module that the device denies",
        "run modules that the device denies",
        "denies its module",
        "deny its module",
    )
    NOT_ALLOWED = (
        "runs a module that the device does not list",
        "run modules that the device does not list",
        "does not list its module",
        "do not list its module",
    )
    ASSET = (
        "pays in an asset that the device does not want",
        "pay in assets that the device does not want",
        "does not want its asset",
        "do not want its asset",
    )
    REWARD = (
        "pays below its minimum reward",
        "pay below its minimum reward",
        "wants a higher reward",
        "want a higher reward",
    )
    TRIED = (
        "was tried by this account or device",
        "were tried by this account or device",
        "has tried it, or another device of its account has",
        "have tried it, or other devices of their accounts have",
    )
    DEADLINE = (
        "cannot be finished before its deadline at this device's measured speed",
        "cannot be finished before their deadlines at this device's measured speed",
        "cannot finish it before its deadline at its measured speed",
        "cannot finish it before its deadline at their measured speed",
    )

    def of_tasks(self, count: int) -> str:
        """What a device is told of this many tasks."""
        return f"{count} {self.value[0 if count == 1 else 1]}"

    def of_some(self) -> str:
        """What a device is told of tasks that nobody counted."""
        return f"some {self.value[1]}"

    def of_devices(self, count: int) -> str:
        """What a requester is told of this many devices."""
        return f"{count} {self.value[2 if count == 1 else 3]}"


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What a device takes: its own limits and its owner's, and what the platform knows of it."""

    profile: str
    trust: int
    fuel_per_ms: float
    memory_bytes: int | None
    max_wall_ms: int | None
    min_reward: Mapping[Asset, int]
    assets: frozenset[Asset] | None
    allowed_modules: frozenset[bytes] | None
    denied_modules: frozenset[bytes]
    pools: frozenset[UUID]
    public: bool


def conditions_of(device: DeviceActor, request: OffersRequest, policy: Policy) -> Conditions:
    """Of the device's own limits and its owner's, the stricter of each."""
    own, owners = request, device.limits
    allowed = _both(own.allowed_modules, owners.allowed_modules)
    return Conditions(
        profile=request.profile,
        trust=device.trust,
        fuel_per_ms=device.fuel_per_ms or policy.slow_fuel_per_ms,
        memory_bytes=_least(own.memory_bytes, owners.memory_bytes),
        max_wall_ms=_least(own.max_wall_ms, owners.max_wall_ms),
        min_reward={asset: _min_reward(asset, own, owners) for asset in Asset},
        assets=_both(own.assets, owners.assets),
        allowed_modules=None if allowed is None else frozenset(map(bytes.fromhex, allowed)),
        denied_modules=frozenset(map(bytes.fromhex, [*own.denied_modules, *owners.denied_modules])),
        pools=_both(_both(own.pools, owners.pools), device.pools) or frozenset(),
        public=own.public and owners.public,
    )


def class_misfits(needs: TaskClass, device: Conditions) -> Iterator[Rule]:
    """All rules that keep the tasks of this class from the device, in order."""
    return (rule for rule, keeps in _CLASS_RULES.items() if keeps(needs, device))


def class_misfit(needs: TaskClass, device: Conditions) -> Rule | None:
    """The first rule that keeps all tasks of this class from the device; ``None`` if it fits."""
    return next(class_misfits(needs, device), None)


def task_misfit(
    needs: TaskClass, device: Conditions, *, deadline: datetime, tried: bool, now: datetime
) -> Rule | None:
    """Why this one task of a class that fits is not for the device."""
    if tried:
        return Rule.TRIED
    run_ms = expected_run_ms(needs.fuel, needs.wall_ms, device.fuel_per_ms)
    return Rule.DEADLINE if now + timedelta(milliseconds=run_ms) > deadline else None


def _least(own: int | None, owners: int | None) -> int | None:
    return min((limit for limit in (own, owners) if limit is not None), default=None)


def _min_reward(asset: Asset, *limits: DeviceLimits) -> int:
    return max(int(one.min_reward_nano.get(asset, "0")) for one in limits)


def _both(own: Any, owners: Any) -> frozenset[Any] | None:
    """What is in both; ``None`` stands for everything."""
    if own is None or owners is None:
        left = owners if own is None else own
        return None if left is None else frozenset(left)
    return frozenset(own) & frozenset(owners)


_CLASS_RULES: dict[Rule, Callable[[TaskClass, Conditions], bool]] = {
    Rule.PROFILE: lambda needs, device: needs.profile != device.profile,
    Rule.POOL: lambda needs, device: (
        needs.pool_id is not None and needs.pool_id not in device.pools
    ),
    Rule.PUBLIC: lambda needs, device: needs.pool_id is None and not device.public,
    Rule.TRUST: lambda needs, device: needs.min_trust > device.trust,
    Rule.MEMORY: lambda needs, device: (
        device.memory_bytes is not None and needs.memory_bytes > device.memory_bytes
    ),
    Rule.TIME: lambda needs, device: (
        device.max_wall_ms is not None and needs.wall_ms > device.max_wall_ms
    ),
    Rule.DENIED: lambda needs, device: needs.module_hash in device.denied_modules,
    Rule.NOT_ALLOWED: lambda needs, device: (
        device.allowed_modules is not None and needs.module_hash not in device.allowed_modules
    ),
    Rule.ASSET: lambda needs, device: (
        device.assets is not None and needs.asset not in device.assets
    ),
    Rule.REWARD: lambda needs, device: needs.reward < device.min_reward[needs.asset],
}
