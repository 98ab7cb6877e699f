"""Sixteen connections settle, dispute, repair and refund the same escrow; a reader watches."""

from __future__ import annotations

import asyncio
import functools
import os
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import asyncpg

from gstd.database.connection import Connection, Database
from gstd.kernel.clock import ManualClock
from gstd.kernel.ids import new_id
from gstd.ledger import frontier, repair
from gstd.ledger import service as ledger
from gstd.ledger.frontier import Deposit
from gstd.ledger.repair import Claim, Contest, Ruling
from gstd.ledger.service import Funding, RefereeCharge, Settlement
from gstd.protocol.types import Asset
from tests.integration.ledger.scenes import assert_sound, earned, fold_all, tasks_with
from tests.servers import until

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
ROUNDS = 8 * SCALE
Work = Callable[[Connection], Awaitable[object]]


async def once(database: Database, work: Work) -> object:
    """Without the retries of ``Database.run``: a deadlock would be seen."""
    try:
        async with database.transaction() as conn:
            return await work(conn)
    except asyncpg.CheckViolationError as error:
        return error


async def watch(database: Database, is_over: asyncio.Event) -> int:
    """In every snapshot all money adds up to zero. Returns how many were looked at."""
    looks = 0
    async with database.connection() as conn:
        while not is_over.is_set():
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                total = "SELECT coalesce(sum(balance), 0) FROM ledger.balance"
                assert await conn.fetchval(total) == 0
                assert await conn.fetch("SELECT * FROM ledger.broken") == []
            looks += 1
    return looks


async def fold(database: Database, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        await once(database, lambda conn: ledger.fold(conn, 7))
        await asyncio.sleep(0.005)


def works(
    tasks: list[UUID], earning: UUID, device: UUID, disputes: list[UUID], now: datetime
) -> list[Work]:
    """Everything that can happen to these tasks, each with its own client."""
    first, worker, run = tasks[0], new_id(), new_id()
    paid = [Settlement(task, new_id(), worker, device, 20, 1, now) for task in tasks]
    contests = [
        Contest(disputes[0], first, earning, earning),
        Contest(disputes[1], first, new_id(), None, 15),
    ]
    rulings = [Ruling(dispute, 10, 1, worker, device) for dispute in disputes]
    claims = [Claim(new_id(), first, 5)]
    charges = [RefereeCharge(first, run, 9)]
    return [
        lambda conn: ledger.settle(conn, paid, now),
        lambda conn: ledger.settle(conn, paid, now),
        lambda conn: ledger.settle(conn, paid[:1], now),
        lambda conn: ledger.refund_tasks(conn, tasks, now),
        lambda conn: ledger.refund_tasks(conn, tasks[:1], now),
        lambda conn: ledger.charge_referee(conn, charges, now),
        lambda conn: ledger.charge_referee(conn, charges, now),
        lambda conn: repair.freeze(conn, contests, now),
        lambda conn: repair.freeze(conn, contests, now),
        lambda conn: repair.rule(conn, rulings, now),
        lambda conn: repair.rule(conn, rulings[::-1], now),
        lambda conn: repair.unfreeze(conn, disputes, now),
        lambda conn: ledger.vest_due(conn, now, 10, restitution_bps=5_000),
        lambda conn: repair.reverse_earnings(conn, [earning, paid[0].attempt_id], now),
        lambda conn: repair.forfeit(conn, [device], now),
        lambda conn: repair.restitute(conn, claims, now),
    ]


async def test_everything_at_once_keeps_every_promise_without_a_deadlock(
    database: Database, clock: ManualClock
) -> None:
    now, dice = clock.now(), random.Random(1)  # noqa: S311 - a race's order, not a secret
    is_over = asyncio.Event()
    background = [
        asyncio.create_task(watch(database, is_over)),
        asyncio.create_task(fold(database, is_over)),
    ]
    try:
        for _ in range(ROUNDS):
            _, _, tasks = await database.run(lambda conn: tasks_with(conn, now, 2))
            device = new_id()
            earning = await database.run(
                lambda conn, tasks=tasks, device=device: earned(  # type: ignore[misc]
                    conn, tasks[0], now, device=device
                )
            )
            clients = works(tasks, earning, device, [new_id(), new_id()], now)
            dice.shuffle(clients)
            await asyncio.gather(*(once(database, client) for client in clients))
            await assert_sound(database)
    finally:
        is_over.set()
    looks, _ = await asyncio.gather(*background)
    assert looks
    await fold_all(database)
    await assert_sound(database)
    async with database.connection() as conn:
        twice = await conn.fetch(
            "SELECT ref FROM ledger.transfer WHERE kind IN ('reward', 'vest') "
            "GROUP BY ref, kind HAVING count(*) > 1"
        )
    assert twice == []


async def funded_task(conn: Connection, asset: Asset, now: datetime) -> UUID:
    """A task whose escrow is in this asset."""
    owner, job, task = new_id(), new_id(), new_id()
    if asset is Asset.GSTD:
        await frontier.deposit(conn, [Deposit(new_id(), owner, 100)], now)
    else:
        await ledger.grant_test_credits(conn, new_id(), owner, 100, now)
    await ledger.fund_jobs(conn, [Funding(job, owner, asset, 100)], now)
    await ledger.allot(conn, job, [task], 100)
    return task


async def test_claims_in_two_assets_never_wait_in_a_circle(
    database: Database, database_urls: dict[str, str], clock: ManualClock
) -> None:
    now = clock.now()

    async def claims(*assets: Asset) -> list[Claim]:
        """Claims of tasks of their own: between two calls are only the funds."""
        tasks = [
            await database.run(lambda conn, each=each: funded_task(conn, each, now))  # type: ignore[misc]
            for each in assets
        ]
        return [Claim(new_id(), task, 1) for task in tasks]

    calls = [await claims(Asset.TEST, Asset.GSTD), await claims(Asset.GSTD, Asset.TEST)]
    await database.run(lambda conn: repair.restitute(conn, calls[0], now))  # opens the funds
    holder = await asyncpg.connect(database_urls["superuser"])

    async def waiting(number: int) -> bool:
        async with database.connection() as conn:
            found = await conn.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        return bool(found == number)

    async with asyncio.TaskGroup() as group, holder.transaction():
        await holder.execute(
            "SELECT FROM ledger.account WHERE kind = 'restitution' AND asset = 'TEST' FOR UPDATE"
        )
        for number, call in enumerate(calls, 1):
            group.create_task(
                once(database, lambda conn, call=call: repair.restitute(conn, call, now))  # type: ignore[misc]
            )
            await until(functools.partial(waiting, number))
    await holder.close()
    await assert_sound(database)


async def test_nothing_frozen_moves_until_it_is_ruled(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    for _ in range(ROUNDS):
        _, _, tasks = await database.run(lambda conn: tasks_with(conn, now, 2))
        device, disputes = new_id(), [new_id(), new_id()]

        async def freeze(
            conn: Connection,
            task: UUID = tasks[0],
            device: UUID = device,
            disputes: list[UUID] = disputes,
        ) -> UUID:
            earning = await earned(conn, task, now, device=device)
            contests = [
                Contest(disputes[0], task, earning, earning),
                Contest(disputes[1], task, new_id(), None, 30),
            ]
            assert set((await repair.freeze(conn, contests, now)).values()) == {"frozen"}
            return earning

        earning = await database.run(freeze)
        clients = works(tasks, earning, device, disputes, now)
        others = [client for number, client in enumerate(clients) if number not in (9, 10, 11)]
        await asyncio.gather(*(once(database, client) for client in others))
        async with database.connection() as conn:
            moved = await conn.fetch(
                "SELECT kind FROM ledger.transfer WHERE ref = $1 AND kind NOT IN ('reward', 'fee')",
                earning,
            )
            row = await conn.fetchrow(
                "SELECT frozen, locked - released - fee - referee - refunded AS inside "
                "FROM ledger.escrow WHERE task_id = $1",
                tasks[0],
            )
        assert moved == []
        assert row is not None
        assert row["frozen"] == 30 <= row["inside"]
        await asyncio.gather(*(once(database, client) for client in clients[9:12]))
        async with database.connection() as conn:
            left = "SELECT frozen FROM ledger.escrow WHERE task_id = $1"
            assert await conn.fetchval(left, tasks[0]) == 0
        await assert_sound(database)
