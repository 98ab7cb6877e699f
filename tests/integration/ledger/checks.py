"""Short checks, each of one promise: they hold on a sound ledger and name a broken one."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg
import pytest

from gstd.database.connection import Connection, Database
from gstd.kernel.ids import new_id
from gstd.ledger import frontier, repair
from gstd.ledger import service as ledger
from gstd.ledger.frontier import Deposit, Withdrawal
from gstd.ledger.repair import Claim, Contest, Ruling
from gstd.ledger.service import RefereeCharge, Settlement
from gstd.protocol.types import Asset
from tests.integration.ledger.scenes import (
    DAY,
    Correction,
    assert_sound,
    available,
    decide,
    earned,
    everything,
    fold_all,
    platform,
    propose,
    tasks_with,
)


async def _one(database: Database, now: datetime) -> tuple[UUID, UUID]:
    """A requester and its only task, with 100 nano."""
    requester, _, [task] = await database.run(lambda conn: tasks_with(conn, now, 1))
    return requester, task


async def every_promise_holds(database: Database, now: datetime) -> None:
    await everything(database, now)
    await assert_sound(database)


async def a_fee_is_taken(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    await database.run(lambda conn: earned(conn, task, now, fee=4))
    assert await platform(database, "fee") == 4


async def a_refund_leaves_what_is_frozen(database: Database, now: datetime) -> None:
    requester, task = await _one(database, now)
    before = await available(database, requester)

    async def move(conn: Connection) -> None:
        await repair.freeze(conn, [Contest(new_id(), task, new_id(), None, 30)], now)
        await ledger.refund_tasks(conn, [task], now)

    await database.run(move)
    assert await available(database, requester) == before + 70


async def a_charge_is_capped_by_the_escrow(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    charge = [RefereeCharge(task, new_id(), 500)]
    await database.run(lambda conn: ledger.charge_referee(conn, charge, now))
    assert await platform(database, "referee") == 100


async def an_attempt_is_paid_once(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    item = Settlement(task, new_id(), new_id(), new_id(), 30, 1, now)
    paid = [await database.run(lambda conn: ledger.settle(conn, [item], now)) for _ in range(2)]
    assert paid == [{item.attempt_id}, set()]


async def nothing_vests_before_it_is_due(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    await database.run(lambda conn: earned(conn, task, now, final_at=now + DAY))
    assert await database.run(lambda conn: ledger.vest_due(conn, now, 10)) == []


async def kept_earnings_wait_for_newer_ones(database: Database, now: datetime) -> None:
    _, _, tasks = await database.run(lambda conn: tasks_with(conn, now, 3))
    device = new_id()
    ids = [
        await database.run(
            lambda conn, task=task: earned(  # type: ignore[misc]
                conn, task, now, device=device, kept_until=now + DAY, holdback=2
            )
        )
        for task in tasks
    ]
    vested = await database.run(lambda conn: ledger.vest_due(conn, now, 10))
    assert [item.earning_id for item in vested] == ids[:1]


async def a_ruling_gives_the_rest_to_the_requester(database: Database, now: datetime) -> None:
    requester, task = await _one(database, now)
    before = await available(database, requester)
    worker, dispute = new_id(), new_id()

    async def move(conn: Connection) -> None:
        earning = await earned(conn, task, now, owner=worker, final_at=now + DAY)
        await repair.freeze(conn, [Contest(dispute, task, earning, earning)], now)
        await repair.rule(conn, [Ruling(dispute, 20, 1, worker, new_id())], now)
        await ledger.vest_due(conn, now, 10)

    await database.run(move)
    assert await available(database, worker) == 20
    assert await available(database, requester) == before + 33


async def an_unfrozen_escrow_is_free_again(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    dispute = new_id()

    async def move(conn: Connection) -> None:
        await repair.freeze(conn, [Contest(dispute, task, new_id(), None, 30)], now)
        await repair.unfreeze(conn, [dispute], now)
        [refund] = await ledger.refund_tasks(conn, [task], now)
        assert refund.amount == 100

    await database.run(move)


async def a_frozen_earning_is_neither_forfeited_nor_reversed(
    database: Database, now: datetime
) -> None:
    _, task = await _one(database, now)
    device = new_id()

    async def move(conn: Connection) -> None:
        earning = await earned(conn, task, now, device=device)
        await repair.freeze(conn, [Contest(new_id(), task, earning, earning)], now)
        assert await repair.forfeit(conn, [device], now) == []
        assert await repair.reverse_earnings(conn, [earning], now) == []
        assert await ledger.vest_due(conn, now, 10) == []

    await database.run(move)


async def restitution_ends_with_its_fund(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    device = new_id()

    async def move(conn: Connection) -> None:
        early, late = Claim(new_id(), task, 10), Claim(new_id(), task, 80)
        assert await repair.restitute(conn, [early], now) == {early.ref: 0}
        await earned(conn, task, now, device=device, amount=50)
        await repair.forfeit(conn, [device], now)
        for _ in range(2):
            assert await repair.restitute(conn, [late], now) == {late.ref: 50}

    await database.run(move)
    assert await platform(database, "restitution") == 0


async def restitution_never_takes(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    claims = [Claim(new_id(), task, 10), Claim(new_id(), task, -1)]
    with pytest.raises(asyncpg.CheckViolationError, match="asks for -1 nano"):
        await database.run(lambda conn: repair.restitute(conn, claims, now))


async def a_reward_is_held(database: Database, now: datetime) -> None:
    """For a worker who never had a held account, so that there is none to look at."""
    _, task = await _one(database, now)
    await database.run(lambda conn: earned(conn, task, now))
    await assert_sound(database)


async def nobody_withdraws_more_than_they_have(database: Database, now: datetime) -> None:
    owner = new_id()

    async def move(conn: Connection) -> None:
        await frontier.deposit(conn, [Deposit(new_id(), owner, 50)], now)
        wishes = [Withdrawal(new_id(), owner, 40), Withdrawal(new_id(), owner, 20)]
        answers = await frontier.reserve(conn, wishes, now)
        assert list(answers.values()) == ["reserved", "insufficient"]
        for _ in range(2):
            await frontier.give_back(conn, [wishes[0].id], now)

    await database.run(move)
    assert await available(database, owner, Asset.GSTD) == 50


async def a_deposit_is_given_once(database: Database, now: datetime) -> None:
    deposit, first, second = Deposit(new_id(), None, 50), new_id(), new_id()

    async def move(conn: Connection) -> None:
        await frontier.deposit(conn, [deposit], now)
        assert await frontier.assign_deposits(conn, {deposit.id: first}, now) == {deposit.id}
        assert await frontier.assign_deposits(conn, {deposit.id: second}, now) == set()

    await database.run(move)


async def a_correction_needs_two_admins(database: Database, now: datetime) -> None:
    rich, poor, admin = new_id(), new_id(), new_id()
    wish = Correction(new_id(), rich, poor, 5)

    async def move(conn: Connection) -> None:
        await ledger.grant_test_credits(conn, new_id(), rich, 10, now)
        await propose(conn, wish, admin, now)
        assert await decide(conn, wish.id, admin, apply=True, now=now) == "same_admin"
        assert await decide(conn, wish.id, new_id(), apply=True, now=now) == "applied"

    await database.run(move)


async def folding_changes_no_balance(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)
    await database.run(lambda conn: earned(conn, task, now, fee=4))
    assert await fold_all(database) > 0
    assert await platform(database, "fee") == 4
    await assert_sound(database)


async def restitution_gets_a_share_of_fees_only(database: Database, now: datetime) -> None:
    _, task = await _one(database, now)

    async def move(conn: Connection) -> None:
        await earned(conn, task, now, amount=50, fee=4)
        await ledger.vest_due(conn, now, 10, restitution_bps=5_000)

    await database.run(move)
    assert await platform(database, "restitution") == 2
    assert await platform(database, "fee") == 2
