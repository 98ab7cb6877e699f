"""When something was wrong: take back, forfeit, restitute, freeze, rule.

Like everything that moves money, each function calls one array-shaped, idempotent SQL function and
returns one outcome per item. The caller locks tasks before it comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries

_sql = load_queries("gstd.ledger")


class Reversed(msgspec.Struct, frozen=True):
    """A held earning that went back: ``amount`` nano, fee included, are in the task's escrow."""

    earning_id: UUID
    task_id: UUID
    amount: int


class Forfeited(msgspec.Struct, frozen=True):
    """A held earning that went to restitution."""

    earning_id: UUID
    owner: UUID
    amount: int


class Claim(msgspec.Struct, frozen=True):
    """What a task should get from restitution. ``ref`` makes it happen once."""

    ref: UUID
    task_id: UUID
    amount: int


class Contest(msgspec.Struct, frozen=True):
    """What a dispute is about: an ``earning_id``, or ``amount`` nano of the task's escrow."""

    dispute_id: UUID
    task_id: UUID
    attempt_id: UUID
    earning_id: UUID | None = None
    amount: int = 0


class FreezeOutcome(StrEnum):
    """What became of a freeze."""

    FROZEN = "frozen"
    REPLAYED = "replayed"
    CONTESTED = "contested"
    """Another dispute about this attempt is open."""

    VESTED = "vested"
    """The earning is not held any more."""

    SHORT = "short"
    """The escrow has less than that."""

    UNKNOWN = "unknown"


class Ruling(msgspec.Struct, frozen=True):
    """How a dispute ends: ``award`` to the worker, ``fee`` on it, the rest to the requester.

    ``owner`` and ``device_id`` are the attempt's: contested escrow becomes their earning.
    """

    dispute_id: UUID
    award: int
    fee: int
    owner: UUID
    device_id: UUID


class RulingOutcome(StrEnum):
    """What became of a ruling."""

    RULED = "ruled"
    REPLAYED = "replayed"
    EXCESSIVE = "excessive"
    """It awards more than is contested."""

    WITHDRAWN = "withdrawn"
    UNKNOWN = "unknown"


async def reverse_earnings(
    connection: Connection, earnings: Sequence[UUID], now: datetime
) -> list[Reversed]:
    """Give the gross of held earnings back to their tasks, which can pay another attempt with it.

    Earnings that are not held any more are left alone and not returned.
    """
    return to_structs(await connection.fetch(_sql["reverse_earnings"], earnings, now), Reversed)


async def forfeit(
    connection: Connection, devices: Sequence[UUID], now: datetime
) -> list[Forfeited]:
    """Move everything that these devices hold to restitution. Frozen earnings stay frozen."""
    return to_structs(await connection.fetch(_sql["forfeit"], devices, now), Forfeited)


async def restitute(
    connection: Connection, claims: Sequence[Claim], now: datetime
) -> dict[UUID, int]:
    """Fill tasks' escrow from restitution as far as it reaches, in order: nano by ``ref``.

    The database refuses the whole call when a claim is below zero: restitution never takes.
    """
    rows = await connection.fetch(
        _sql["restitute"],
        [claim.ref for claim in claims],
        [claim.task_id for claim in claims],
        [claim.amount for claim in claims],
        now,
    )
    return {row["ref"]: row["amount"] for row in rows}


async def freeze(
    connection: Connection, contests: Sequence[Contest], now: datetime
) -> dict[UUID, FreezeOutcome]:
    """Freeze what disputes are about: nothing moves, and nothing of it can. By dispute."""
    rows = await connection.fetch(
        _sql["freeze"],
        [item.dispute_id for item in contests],
        [item.task_id for item in contests],
        [item.attempt_id for item in contests],
        [item.earning_id for item in contests],
        [item.amount for item in contests],
        now,
    )
    return {row["dispute_id"]: FreezeOutcome(row["outcome"]) for row in rows}


async def unfreeze(connection: Connection, disputes: Sequence[UUID], now: datetime) -> set[UUID]:
    """End disputes without a ruling; everything is as before. Returns those that were open."""
    rows = await connection.fetch(_sql["unfreeze"], disputes, now)
    return {row[0] for row in rows}


async def rule(
    connection: Connection, rulings: Sequence[Ruling], now: datetime
) -> dict[UUID, RulingOutcome]:
    """Split what is contested between worker, platform and requester. By dispute."""
    rows = await connection.fetch(
        _sql["rule"],
        [item.dispute_id for item in rulings],
        [item.award for item in rulings],
        [item.fee for item in rulings],
        [item.owner for item in rulings],
        [item.device_id for item in rulings],
        now,
    )
    return {row["dispute_id"]: RulingOutcome(row["outcome"]) for row in rows}
