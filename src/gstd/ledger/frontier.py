"""Where money enters and leaves the ledger: deposits from the chain, withdrawals to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.database.connection import Connection
from gstd.database.sql import load_queries

_sql = load_queries("gstd.ledger")


class Deposit(msgspec.Struct, frozen=True):
    """An arrival on the chain. Its id derives from the chain event; without owner it waits."""

    id: UUID
    owner: UUID | None
    amount: int


class Withdrawal(msgspec.Struct, frozen=True):
    """Nano of GSTD that an owner wants on the chain."""

    id: UUID
    owner: UUID
    amount: int


async def deposit(connection: Connection, deposits: Sequence[Deposit], now: datetime) -> set[UUID]:
    """Book arrivals, each once, ever. Returns those that are new."""
    rows = await connection.fetch(
        _sql["deposit"],
        [item.id for item in deposits],
        [item.owner for item in deposits],
        [item.amount for item in deposits],
        now,
    )
    return {row[0] for row in rows}


async def assign_deposits(
    connection: Connection, owners: dict[UUID, UUID], now: datetime
) -> set[UUID]:
    """Give deposits in suspense to their owners. Returns those that were given now."""
    rows = await connection.fetch(_sql["assign_deposits"], list(owners), list(owners.values()), now)
    return {row[0] for row in rows}


async def reserve(
    connection: Connection, withdrawals: Sequence[Withdrawal], now: datetime
) -> dict[UUID, str]:
    """Set money aside, in order: reserved, replayed or insufficient, by withdrawal."""
    rows = await connection.fetch(
        _sql["reserve_withdrawals"],
        [item.id for item in withdrawals],
        [item.owner for item in withdrawals],
        [item.amount for item in withdrawals],
        now,
    )
    return {row["withdrawal_id"]: row["outcome"] for row in rows}


async def confirm(connection: Connection, withdrawals: Sequence[UUID], now: datetime) -> set[UUID]:
    """The chain has them. Returns those that were reserved until now."""
    return await _end(connection, withdrawals, now, confirmed=True)


async def give_back(
    connection: Connection, withdrawals: Sequence[UUID], now: datetime
) -> set[UUID]:
    """The chain will never have them. Returns those that were reserved until now."""
    return await _end(connection, withdrawals, now, confirmed=False)


async def _end(
    connection: Connection, withdrawals: Sequence[UUID], now: datetime, *, confirmed: bool
) -> set[UUID]:
    rows = await connection.fetch(_sql["end_withdrawals"], withdrawals, confirmed, now)
    return {row[0] for row in rows}
