"""Many connections on one escrow: whatever wins, nothing is paid twice and nothing appears."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import asyncpg
import pytest

from gstd.database.connection import Connection, Database
from gstd.kernel.clock import ManualClock
from gstd.kernel.ids import new_id
from gstd.ledger import service as ledger
from gstd.ledger.service import Funding, RefereeCharge, Settlement
from gstd.protocol.types import Asset

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
ROUNDS = 12 * SCALE
LOCK, REWARD, FEE = 250, 100, 5
Work = Callable[[Connection], Awaitable[object]]


async def funded(
    database: Database, now: datetime, tasks: int = 2
) -> tuple[UUID, UUID, list[UUID]]:
    """A requester, its job and the job's tasks, each of which can pay two results."""
    requester, job = new_id(), new_id()
    ids = sorted(new_id() for _ in range(tasks))

    async def fund(conn: Connection) -> None:
        await ledger.grant_test_credits(conn, new_id(), requester, 10_000, now)
        await ledger.fund_jobs(conn, [Funding(job, requester, Asset.TEST, LOCK * tasks)], now)
        await ledger.allot(conn, job, ids, LOCK)

    await database.run(fund)
    return requester, job, ids


def settlement(task: UUID, attempt: UUID, worker: UUID, now: datetime) -> Settlement:
    return Settlement(task, attempt, worker, new_id(), REWARD, FEE, now)


async def race(database: Database, works: list[Work]) -> list[object]:
    """All at once; a refusal by a constraint is an answer like any other."""
    results = await asyncio.gather(*map(database.run, works), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            assert isinstance(result, asyncpg.CheckViolationError), result
    return results


async def assert_sound(database: Database) -> None:
    check = await database.run(ledger.check)
    assert check.ok, check.invariants
    assert check.sum_nano == "0"


async def test_settle_refund_charge_and_vest_of_the_same_tasks_pay_at_most_once(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    dice = random.Random(1)  # noqa: S311 - a race's order, not a secret
    for _ in range(ROUNDS):
        requester, job, tasks = await funded(database, now)
        worker, run = new_id(), new_id()
        attempts = [new_id() for _ in range(3)]
        works: list[Work] = []
        for number in range(16):
            task, attempt = tasks[number % 2], attempts[number % 3]
            paid = [settlement(task, attempt, worker, now)]
            charge = [RefereeCharge(tasks[0], run, 30)]
            works += [
                lambda conn, paid=paid: ledger.settle(conn, paid, now),  # type: ignore[misc]
                lambda conn, tasks=tasks: ledger.refund_tasks(conn, tasks, now),  # type: ignore[misc]
                lambda conn, charge=charge: ledger.charge_referee(conn, charge, now),  # type: ignore[misc]
                lambda conn: ledger.vest_due(conn, now, 10),
            ]
        dice.shuffle(works)
        results = await race(database, works[:16])
        paid_attempts = [
            attempt for result in results if isinstance(result, set) for attempt in result
        ]
        assert len(paid_attempts) == len(set(paid_attempts))
        money = await database.run(lambda conn, job=job: ledger.job_money(conn, job))  # type: ignore[misc]
        assert int(money.released_nano) == REWARD * len(paid_attempts)
        assert int(money.fee_nano) == FEE * len(paid_attempts)
        assert int(money.referee_nano) in (0, 30)
        [balance] = await database.run(
            lambda conn, who=requester: ledger.balances(conn, who)  # type: ignore[misc]
        )
        spent = int(money.released_nano) + int(money.fee_nano) + int(money.referee_nano)
        assert int(balance.total_nano) == 10_000 - spent
    await assert_sound(database)


async def test_one_attempt_settled_by_sixteen_is_paid_by_one(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    for _ in range(ROUNDS):
        _, job, [task] = await funded(database, now, tasks=1)
        paid = [settlement(task, new_id(), new_id(), now)]
        results = await race(
            database,
            [lambda conn, paid=paid: ledger.settle(conn, paid, now)] * 16,  # type: ignore[misc]
        )
        assert sorted(map(len, results)) == [0] * 15 + [1]  # type: ignore[arg-type]
        money = await database.run(lambda conn, job=job: ledger.job_money(conn, job))  # type: ignore[misc]
        assert money.released_nano == str(REWARD)
    await assert_sound(database)


async def test_more_attempts_than_the_escrow_can_pay_are_refused_not_overpaid(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    for _ in range(ROUNDS):
        _, _, [task] = await funded(database, now, tasks=1)
        works: list[Work] = []
        for _ in range(8):
            paid = [settlement(task, new_id(), new_id(), now)]
            works.append(lambda conn, paid=paid: ledger.settle(conn, paid, now))  # type: ignore[misc]
        results = await race(database, works)
        assert sum(isinstance(result, set) for result in results) == 2
    await assert_sound(database)


async def test_a_due_earning_is_vested_by_one_of_sixteen(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    worker = new_id()
    _, _, tasks = await funded(database, now, tasks=20)
    paid = [settlement(task, new_id(), worker, now) for task in tasks]
    await database.run(lambda conn: ledger.settle(conn, paid, now))
    results = await race(database, [lambda conn: ledger.vest_due(conn, now, 3)] * 16)
    vested = [item.attempt_id for batch in results for item in batch]  # type: ignore[attr-defined]
    assert sorted(vested) == sorted(item.attempt_id for item in paid)
    [balance] = await database.run(lambda conn: ledger.balances(conn, worker))
    assert (balance.available_nano, balance.held_nano) == (str(20 * REWARD), "0")
    await assert_sound(database)


async def test_one_balance_funds_only_as_many_racing_jobs_as_it_covers(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    requester = new_id()
    await database.run(lambda conn: ledger.grant_test_credits(conn, new_id(), requester, 500, now))
    works: list[Work] = []
    for _ in range(16):
        item = [Funding(new_id(), requester, Asset.TEST, 100)]
        works.append(lambda conn, item=item: ledger.fund_jobs(conn, item, now))  # type: ignore[misc]
    results = await race(database, works)
    outcomes = [batch[0].outcome for batch in results]  # type: ignore[index]
    assert sorted(outcomes) == ["funded"] * 5 + ["insufficient"] * 11
    await assert_sound(database)


async def test_one_grant_asked_for_by_sixteen_is_given_once(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    for _ in range(ROUNDS):
        who, ref = new_id(), new_id()
        grant: Work = lambda conn, ref=ref, who=who: ledger.grant_test_credits(  # type: ignore[misc]  # noqa: E731
            conn, ref, who, 7, now
        )
        assert sorted(await race(database, [grant] * 16)) == [False] * 15 + [True]  # type: ignore[type-var]
        [balance] = await database.run(lambda conn, who=who: ledger.balances(conn, who))  # type: ignore[misc]
        assert balance.available_nano == "7"
    await assert_sound(database)


async def test_filling_and_giving_back_what_was_never_made_share_the_money_exactly(
    database: Database, clock: ManualClock
) -> None:
    now = clock.now()
    for _ in range(ROUNDS):
        requester, job = new_id(), new_id()
        await database.run(
            lambda conn, who=requester: ledger.grant_test_credits(conn, new_id(), who, 1_000, now)  # type: ignore[misc]
        )
        item = [Funding(job, requester, Asset.TEST, 1_000)]
        await database.run(lambda conn, item=item: ledger.fund_jobs(conn, item, now))  # type: ignore[misc]
        works: list[Work] = [
            lambda conn, job=job: ledger.allot(conn, job, [new_id()], 100)  # type: ignore[misc]
            for _ in range(6)
        ]
        works += [lambda conn, job=job: ledger.refund_unmade(conn, [job], now)] * 2  # type: ignore[misc]
        results = await race(database, works)
        made = sum(result is None for result in results)
        given_back = sum(sum(result.values()) for result in results if isinstance(result, dict))
        assert given_back == 1_000 - 100 * made
    await assert_sound(database)


@pytest.mark.parametrize("is_committed", [True, False])
async def test_settling_a_task_whose_money_is_not_committed_creates_none(
    database: Database, clock: ManualClock, is_committed: bool
) -> None:
    now = clock.now()
    requester, worker, job, task = (new_id() for _ in range(4))
    paid = [settlement(task, new_id(), worker, now)]
    await database.run(
        lambda conn: ledger.grant_test_credits(conn, new_id(), requester, 1_000, now)
    )
    async with database.connection() as funding:
        transaction = funding.transaction()
        await transaction.start()
        item = [Funding(job, requester, Asset.TEST, LOCK)]
        await ledger.fund_jobs(funding, item, now)
        await ledger.allot(funding, job, [task], LOCK)
        results = await race(database, [lambda conn: ledger.settle(conn, paid, now)] * 8)
        assert results == [set()] * 8
        await (transaction.commit() if is_committed else transaction.rollback())
    assert await database.run(lambda conn: ledger.balances(conn, worker)) == []
    await assert_sound(database)
    after = await database.run(lambda conn: ledger.settle(conn, paid, now))
    assert after == ({paid[0].attempt_id} if is_committed else set())
    await assert_sound(database)
