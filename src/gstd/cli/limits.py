"""What a device takes, as options of a command."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
import typer

from gstd.cli.job import read_amount
from gstd.cli.output import counted
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.money import format_gstd
from gstd.protocol.matching import DeviceLimits
from gstd.protocol.types import Asset

MinRewardOption = Annotated[
    str | None, typer.Option(help="Take no task that pays less, such as 0.01.")
]
MaxSecondsOption = Annotated[
    float | None, typer.Option(help="Take no task that may run longer.", min=0.001, max=60)
]
AssetOption = Annotated[
    list[Asset] | None, typer.Option(help="Take only tasks that pay in this; repeatable.")
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option("--allow-module", help="Run only this module (its hash); repeatable."),
]
DenyOption = Annotated[
    list[str] | None,
    typer.Option("--deny-module", help="Never run this module (its hash); repeatable."),
]
PoolOption = Annotated[
    list[UUID] | None,
    typer.Option("--pool", help="Of your private pools serve only this one; repeatable."),
]
OnlyPoolsOption = Annotated[
    bool, typer.Option("--only-pools", help="Take only tasks of your private pools.")
]


def limits_of(
    *,
    min_reward: str | None = None,
    max_seconds: float | None = None,
    asset: list[Asset] | None = None,
    allow: list[str] | None = None,
    deny: list[str] | None = None,
    pool: list[UUID] | None = None,
    only_pools: bool = False,
) -> dict[str, Any]:
    """The limits that were given, by field. Raises ``InvalidInputError``."""
    given: dict[str, Any] = {}
    if min_reward is not None:
        nano = str(read_amount(min_reward))
        given["min_reward_nano"] = dict.fromkeys(Asset, nano)
    if max_seconds is not None:
        given["max_wall_ms"] = round(max_seconds * 1000)
    lists = {"assets": asset, "allowed_modules": allow, "denied_modules": deny, "pools": pool}
    given |= {name: listed for name, listed in lists.items() if listed}
    if only_pools:
        given["public"] = False
    return given


def changed(limits: DeviceLimits, given: dict[str, Any]) -> DeviceLimits:
    """The limits with what was given in place. Raises ``InvalidInputError``."""
    plain = msgspec.to_builtins(msgspec.structs.replace(limits, **given))
    try:
        return msgspec.convert(plain, DeviceLimits)
    except msgspec.ValidationError as error:
        raise InvalidInputError(
            f"limits: {error}", hint="A module is named by its hash of 64 hexadecimal digits."
        ) from error


def words_of(limits: DeviceLimits) -> str:
    """The limits in one line; empty without any."""
    parts = []
    if limits.memory_bytes is not None:
        parts.append(f"at most {limits.memory_bytes >> 20} MiB")
    if limits.max_wall_ms is not None:
        parts.append(f"at most {limits.max_wall_ms / 1000:g} s")
    parts += [
        f"at least {format_gstd(int(nano))} {asset}"
        for asset, nano in limits.min_reward_nano.items()
    ]
    if limits.assets is not None:
        parts.append("paid in " + " or ".join(limits.assets))
    if limits.allowed_modules is not None:
        parts.append(f"only {counted(len(limits.allowed_modules), 'module')}")
    if limits.denied_modules:
        parts.append(f"not {counted(len(limits.denied_modules), 'module')}")
    if limits.pools is not None:
        parts.append(f"{counted(len(limits.pools), 'pool')} served")
    if not limits.public:
        parts.append("no public tasks")
    return ", ".join(parts)
