"""Money moves: every function calls one array-shaped, idempotent SQL function."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries
from gstd.protocol.jobs import JobMoney
from gstd.protocol.people import Balance, Invariant, LedgerCheck
from gstd.protocol.types import Asset

_sql = load_queries("gstd.ledger")

INVARIANTS = (
    "sum of all balances is zero",
    "only issued money is below zero",
    "a balance is the sum of its transfers",
    "a spendable account counts and chains its transfers",
    "a transfer stays within one asset",
    "an escrow account holds what its job and tasks have left",
    "a task has released what its attempts earned",
    "a task was charged for its referee runs",
    "a task has frozen what its open disputes contest",
    "an earning is frozen while its dispute is open",
    "a held account holds the held earnings",
    "a reserved account holds the open withdrawals",
    "suspense holds the deposits without owner",
    "the days add up to what is folded",
)

DEFAULT_HOLDBACK = 19
"""``ceil((1 - p) / p)`` rewards, for a share p = 5 % of audited results: cheating never pays."""


class Funding(msgspec.Struct, frozen=True):
    """What a job locks: ``total`` nano of its owner's available balance."""

    job_id: UUID
    owner: UUID
    asset: Asset
    total: int


class Funded(msgspec.Struct, frozen=True):
    """``outcome`` is funded, replayed or insufficient; ``available`` what the owner had before."""

    job_id: UUID
    outcome: str
    available: int


class Settlement(msgspec.Struct, frozen=True):
    """An accepted attempt: ``amount`` to its owner, ``fee`` to the platform, both in nano.

    A proved result vests at ``final_at``. Another is kept back until ``kept_until``, or until its
    device has earned enough newer ones, but never less than to ``final_at``.
    """

    task_id: UUID
    attempt_id: UUID
    owner: UUID
    device_id: UUID
    amount: int
    fee: int
    final_at: datetime
    kept_until: datetime | None = None


class RefereeCharge(msgspec.Struct, frozen=True):
    """What re-executing a task cost, in nano."""

    task_id: UUID
    run_id: UUID
    amount: int


class Refund(msgspec.Struct, frozen=True):
    """What a task gave back."""

    task_id: UUID
    amount: int


class Vested(msgspec.Struct, frozen=True):
    """An earning that its owner may spend now."""

    earning_id: UUID
    attempt_id: UUID
    task_id: UUID
    owner: UUID
    amount: int


async def grant_test_credits(
    connection: Connection, ref: UUID, owner: UUID, amount: int, now: datetime
) -> bool:
    """Test credits out of nothing. False when this ``ref`` was granted before."""
    return bool(await connection.fetchval(_sql["grant_test_credits"], ref, owner, amount, now))


async def fund_jobs(
    connection: Connection, fundings: Sequence[Funding], now: datetime
) -> list[Funded]:
    """Lock the money of whole jobs, each wholly or not at all, in the given order."""
    rows = await connection.fetch(
        _sql["fund_jobs"],
        [funding.job_id for funding in fundings],
        [funding.owner for funding in fundings],
        [funding.asset.value for funding in fundings],
        [funding.total for funding in fundings],
        now,
    )
    return to_structs(rows, Funded)


async def allot(connection: Connection, job_id: UUID, tasks: Sequence[UUID], each: int) -> None:
    """Give new tasks of a job their share of its escrow."""
    await connection.execute(_sql["allot"], job_id, tasks, each)


async def settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    now: datetime,
    *,
    holdback: int = DEFAULT_HOLDBACK,
) -> set[UUID]:
    """Turn rewards into held earnings, once per attempt. Returns the attempts paid now.

    ``holdback`` is how many of its newest unproved earnings a device leaves behind.
    """
    if not settlements:
        return set()
    rows = await connection.fetch(
        _sql["settle"],
        [item.task_id for item in settlements],
        [item.attempt_id for item in settlements],
        [item.owner for item in settlements],
        [item.device_id for item in settlements],
        [item.amount for item in settlements],
        [item.fee for item in settlements],
        [item.final_at for item in settlements],
        [item.kept_until for item in settlements],
        holdback,
        now,
    )
    return {row[0] for row in rows}


async def charge_referee(
    connection: Connection, charges: Sequence[RefereeCharge], now: datetime
) -> None:
    """Take what re-execution cost from the tasks' escrow, once per run."""
    if charges:
        await connection.execute(
            _sql["charge_referee"],
            [charge.task_id for charge in charges],
            [charge.run_id for charge in charges],
            [charge.amount for charge in charges],
            now,
        )


async def refund_tasks(
    connection: Connection, tasks: Sequence[UUID], now: datetime
) -> list[Refund]:
    """Give back what tasks have left in escrow."""
    if not tasks:
        return []
    return to_structs(await connection.fetch(_sql["refund_tasks"], tasks, now), Refund)


async def refund_unmade(
    connection: Connection, jobs: Sequence[UUID], now: datetime
) -> dict[UUID, int]:
    """Give back the money of jobs' tasks whose rows were never made: nano by job."""
    rows = await connection.fetch(_sql["refund_unmade"], jobs, now)
    return {row["job_id"]: row["amount"] for row in rows}


async def vest_due(
    connection: Connection, now: datetime, limit: int, *, restitution_bps: int = 0
) -> list[Vested]:
    """Make held earnings spendable whose time has come, at most ``limit`` of them.

    ``restitution_bps`` of the fees on them goes to the restitution account.
    """
    rows = await connection.fetch(_sql["vest_due"], now, limit, restitution_bps)
    return to_structs(rows, Vested)


async def fold(connection: Connection, limit: int) -> int:
    """Fold transfers that can no longer change into balances and days; returns how many."""
    folded: int = await connection.fetchval(_sql["fold"], limit)
    return folded


async def balances(connection: Connection, owner: UUID) -> list[Balance]:
    """What an account has, per asset: available, in escrow, held, reserved."""
    rows = await connection.fetch(_sql["balances"], owner)
    return [
        Balance(
            asset=Asset(row["asset"]),
            available_nano=str(row["available"]),
            escrow_nano=str(row["escrow"]),
            held_nano=str(row["held"]),
            reserved_nano=str(row["reserved"]),
            total_nano=str(row["available"] + row["escrow"] + row["held"] + row["reserved"]),
        )
        for row in rows
    ]


async def job_money(connection: Connection, job_id: UUID) -> JobMoney:
    """Where the money of a job is."""
    row = await connection.fetchrow(_sql["job_money"], job_id)
    assert row is not None, "a job never exists without its escrow"
    parts = {name: row[name] for name in ("released", "fee", "referee", "refunded")}
    return JobMoney(
        funded_nano=str(row["funded"]),
        restored_nano=str(row["restored"]),
        frozen_nano=str(row["frozen"]),
        locked_nano=str(row["funded"] + row["restored"] - sum(parts.values())),
        **{f"{name}_nano": str(amount) for name, amount in parts.items()},
    )


async def check(connection: Connection) -> LedgerCheck:
    """Every promise of the ledger against every row."""
    broken: dict[str, list[str]] = {name: [] for name in INVARIANTS}
    for row in await connection.fetch(_sql["broken"]):
        broken[row["invariant"]].append(row["what"])
    totals = await connection.fetchrow(_sql["totals"])
    assert totals is not None
    return LedgerCheck(
        ok=not any(broken.values()),
        sum_nano=totals["sum"],
        accounts=totals["accounts"],
        transfers=totals["transfers"],
        invariants=[
            Invariant(name=name, holds=not rows, broken=rows) for name, rows in broken.items()
        ],
    )
