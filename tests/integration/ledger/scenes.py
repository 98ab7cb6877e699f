"""A ledger in which everything has happened, and what the tests of this folder ask of one."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from gstd.database.connection import Connection, Database
from gstd.kernel.ids import new_id
from gstd.ledger import frontier, repair
from gstd.ledger import service as ledger
from gstd.ledger.frontier import Deposit, Withdrawal
from gstd.ledger.repair import Claim, Contest, Ruling
from gstd.ledger.service import Funding, RefereeCharge, Settlement
from gstd.protocol.types import Asset

DAY = timedelta(days=1)


async def broken(database: Database) -> set[str]:
    """The promises that the check names as broken."""
    check = await database.run(ledger.check)
    names = {item.name for item in check.invariants if not item.holds}
    assert check.ok == (not names)
    return names


async def assert_sound(database: Database) -> None:
    check = await database.run(ledger.check)
    assert check.ok, check.invariants
    assert check.sum_nano == "0"


async def fold_all(database: Database) -> int:
    """Fold until there is nothing more; older transactions elsewhere may delay it."""
    total = 0
    for _ in range(200):
        total += await database.run(lambda conn: ledger.fold(conn, 1_000))
        async with database.connection() as conn:
            if not await conn.fetchval(
                "SELECT EXISTS (SELECT FROM ledger.transfer, ledger.sweep WHERE id > through)"
            ):
                return total
        await asyncio.sleep(0.02)
    raise AssertionError("an old transaction is open")


async def available(database: Database, owner: UUID, asset: Asset = Asset.TEST) -> int:
    async with database.connection() as conn:
        return int(
            await conn.fetchval(
                "SELECT coalesce(sum(balance), 0) FROM ledger.balance "
                "WHERE owner = $1 AND kind = 'available' AND asset = $2::text::ledger.asset",
                owner,
                asset.value,
            )
        )


async def platform(database: Database, kind: str, asset: Asset = Asset.TEST) -> int:
    """The balance of one of the platform's own accounts."""
    async with database.connection() as conn:
        return int(
            await conn.fetchval(
                "SELECT coalesce(sum(balance), 0) FROM ledger.balance "
                "WHERE owner IS NULL AND kind::text = $1 AND asset = $2::text::ledger.asset",
                kind,
                asset.value,
            )
        )


async def tasks_with(
    conn: Connection, now: datetime, count: int, *, each: int = 100, owner: UUID | None = None
) -> tuple[UUID, UUID, list[UUID]]:
    """A requester with 10 000 test nano, its job with money to spare, and the job's tasks."""
    requester, job = owner or new_id(), new_id()
    tasks = sorted(new_id() for _ in range(count))
    await ledger.grant_test_credits(conn, new_id(), requester, 10_000, now)
    await ledger.fund_jobs(conn, [Funding(job, requester, Asset.TEST, each * (count + 1))], now)
    await ledger.allot(conn, job, tasks, each)
    return requester, job, tasks


async def earned(
    conn: Connection,
    task: UUID,
    now: datetime,
    *,
    owner: UUID | None = None,
    device: UUID | None = None,
    amount: int = 50,
    fee: int = 4,
    final_at: datetime | None = None,
    kept_until: datetime | None = None,
    holdback: int = 19,
) -> UUID:
    """A new attempt of the task is paid; its id is that of its earning."""
    item = Settlement(
        task_id=task,
        attempt_id=new_id(),
        owner=owner or new_id(),
        device_id=device or new_id(),
        amount=amount,
        fee=fee,
        final_at=final_at or now,
        kept_until=kept_until,
    )
    assert await ledger.settle(conn, [item], now, holdback=holdback) == {item.attempt_id}
    return item.attempt_id


class Correction(NamedTuple):
    """Test nano that should go from one owner's available balance to another's."""

    id: UUID
    debit: UUID
    credit: UUID
    amount: int


async def propose(conn: Connection, wish: Correction, admin: UUID, now: datetime) -> str:
    """The SQL function itself: its bare word."""
    return str(
        await conn.fetchval(
            "SELECT ledger.propose_correction("
            "$1, $2, 'available', $3, 'available', 'TEST', $4, NULL, 'a mistake', $5, $6)",
            *wish,
            admin,
            now,
        )
    )


async def decide(
    conn: Connection, correction: UUID, admin: UUID, *, apply: bool, now: datetime
) -> str:
    """The SQL function itself: its bare word."""
    statement = "SELECT ledger.decide_correction($1, $2, $3, $4)"
    return str(await conn.fetchval(statement, correction, admin, apply, now))


async def _disputes(conn: Connection, tasks: list[UUID], worker: UUID, now: datetime) -> None:
    """Freezes of both kinds: open, withdrawn and ruled."""
    for task in tasks:
        attempt = await earned(conn, task, now, owner=worker, final_at=now + DAY)
        contests = [
            Contest(new_id(), task, attempt, attempt),
            Contest(new_id(), task, new_id(), None, 20),
            Contest(new_id(), task, new_id(), None, 5),
        ]
        assert set((await repair.freeze(conn, contests, now)).values()) == {"frozen"}
        await repair.unfreeze(conn, [contests[2].dispute_id], now)
        if task == tasks[-1]:
            rulings = [
                Ruling(contests[0].dispute_id, 30, 2, worker, new_id()),
                Ruling(contests[1].dispute_id, 10, 1, worker, new_id()),
            ]
            assert set((await repair.rule(conn, rulings, now)).values()) == {"ruled"}


async def _frontier(conn: Connection, owner: UUID, now: datetime) -> None:
    deposits = [Deposit(new_id(), owner, 500), Deposit(new_id(), None, 70)]
    late = Deposit(new_id(), None, 30)
    await frontier.deposit(conn, [*deposits, late], now)
    await frontier.assign_deposits(conn, {late.id: owner}, now)
    wishes = [Withdrawal(new_id(), owner, amount) for amount in (10, 20, 30)]
    assert set((await frontier.reserve(conn, wishes, now)).values()) == {"reserved"}
    await frontier.confirm(conn, [wishes[1].id], now)
    await frontier.give_back(conn, [wishes[2].id], now)


async def everything(database: Database, now: datetime) -> None:
    """Every kind of movement, the older ones folded and some after that."""

    async def move(conn: Connection) -> None:
        requester, job, tasks = await tasks_with(conn, now, 7)
        worker, cheat = new_id(), new_id()
        await earned(conn, tasks[0], now, owner=worker)
        await earned(conn, tasks[1], now, owner=worker, kept_until=now + DAY)
        wrong = await earned(conn, tasks[2], now + DAY, owner=worker)
        await earned(conn, tasks[3], now, device=cheat, final_at=now + DAY)
        await repair.reverse_earnings(conn, [wrong], now)
        await repair.forfeit(conn, [cheat], now)
        assert sum((await repair.restitute(conn, [Claim(new_id(), tasks[2], 20)], now)).values())
        await _disputes(conn, tasks[4:6], worker, now)
        await ledger.charge_referee(conn, [RefereeCharge(tasks[0], new_id(), 7)], now)
        await ledger.refund_tasks(conn, [tasks[0]], now)
        await ledger.refund_unmade(conn, [job], now)
        await ledger.vest_due(conn, now, 10, restitution_bps=5_000)
        await _frontier(conn, requester, now)
        for apply in (True, False):
            wish = Correction(new_id(), requester, worker, 5)
            await propose(conn, wish, new_id(), now)
            await decide(conn, wish.id, new_id(), apply=apply, now=now)

    await database.run(move)
    await fold_all(database)
    await database.run(lambda conn: tasks_with(conn, now, 1))
