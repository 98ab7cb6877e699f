"""The walls behind the functions: who may write what, and which lie the check would name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from gstd.database.connection import Connection, Database
from gstd.kernel.clock import ManualClock
from gstd.kernel.ids import new_id
from gstd.ledger import service as ledger
from gstd.ledger.service import INVARIANTS, Funding, RefereeCharge, Settlement
from gstd.protocol.types import Asset

TABLES = ["account", "transfer", "job_escrow", "escrow", "earning"]
if TYPE_CHECKING:
    Raw = asyncpg.Connection[asyncpg.Record]
else:
    Raw = asyncpg.Connection


@pytest_asyncio.fixture
async def used(database: Database, clock: ManualClock) -> Database:
    """A ledger with every kind of movement in it."""
    now = clock.now()
    requester, worker, job, task, other = (new_id() for _ in range(5))

    async def move(conn: Connection) -> None:
        await ledger.grant_test_credits(conn, new_id(), requester, 1_000, now)
        await ledger.fund_jobs(conn, [Funding(job, requester, Asset.TEST, 300)], now)
        await ledger.allot(conn, job, [task, other], 100)
        for attempt_task, final_at in ((task, now), (other, now + timedelta(days=1))):
            await ledger.settle(
                conn,
                [Settlement(attempt_task, new_id(), worker, new_id(), 50, 3, final_at)],
                now,
            )
        await ledger.charge_referee(conn, [RefereeCharge(task, new_id(), 7)], now)
        await ledger.refund_tasks(conn, [task], now)
        await ledger.refund_unmade(conn, [job], now)
        await ledger.vest_due(conn, now, 10)

    await database.run(move)
    return database


async def connected(url: str) -> AsyncIterator[Raw]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def app(database_urls: dict[str, str]) -> AsyncIterator[Raw]:
    async for connection in connected(database_urls["app"]):
        yield connection


@pytest_asyncio.fixture
async def owner(database_urls: dict[str, str]) -> AsyncIterator[Raw]:
    async for connection in connected(database_urls["owner"]):
        yield connection


@pytest_asyncio.fixture
async def superuser(database_urls: dict[str, str]) -> AsyncIterator[Raw]:
    async for connection in connected(database_urls["superuser"]):
        yield connection


async def broken(database: Database) -> set[str]:
    check = await database.run(ledger.check)
    names = {item.name for item in check.invariants if not item.holds}
    assert check.ok == (not names)
    return names


async def test_a_used_ledger_keeps_every_promise(used: Database) -> None:
    check = await used.run(ledger.check)
    assert check.ok
    assert check.sum_nano == "0"
    assert [item.name for item in check.invariants] == list(INVARIANTS)
    assert check.transfers > 8


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO ledger.{} DEFAULT VALUES",
        "DELETE FROM ledger.{}",
        "TRUNCATE ledger.{} CASCADE",
        "ALTER TABLE ledger.{} DISABLE TRIGGER ALL",
    ],
)
async def test_the_application_cannot_write_the_tables(
    app: Raw, table: str, statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement.format(table))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.account SET balance = 1",
        "UPDATE ledger.transfer SET amount = 1",
        "UPDATE ledger.job_escrow SET funded = 1",
        "UPDATE ledger.escrow SET released = 0",
        "UPDATE ledger.earning SET state = 'vested'",
        "SELECT ledger.post(ARRAY[]::ledger.posting[], now())",
        (
            "SELECT ledger.open_accounts(ARRAY[]::uuid[], ARRAY[]::ledger.account_kind[], "
            "ARRAY[]::ledger.asset[])"
        ),
        "SELECT ledger.account_id(NULL, 'fee', 'TEST')",
        "SET session_replication_role = replica",
        "CREATE TABLE ledger.mine (id integer)",
        "SET ROLE gstd_owner",
    ],
)
async def test_the_application_cannot_go_around_the_functions(app: Raw, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.transfer SET amount = amount",
        "DELETE FROM ledger.transfer",
        "TRUNCATE ledger.transfer",
    ],
)
async def test_transfers_are_final_even_for_the_owner(
    used: Database, owner: Raw, statement: str
) -> None:
    with pytest.raises(asyncpg.RaiseError, match="transfers are never changed"):
        await owner.execute(statement)
    assert await broken(used) == set()


SUM, NEGATIVE, FOLD, ESCROW, TASK, HELD = INVARIANTS
TAMPERED = [
    ("UPDATE ledger.account SET balance = balance + 1 WHERE kind = 'available'", {SUM, FOLD}),
    (
        (
            "UPDATE ledger.account SET balance = balance + CASE WHEN id = (SELECT max(id) FROM "
            "ledger.account WHERE kind = 'available') THEN 1 ELSE -1 END WHERE kind = 'available'"
        ),
        {FOLD},
    ),
    ("DELETE FROM ledger.transfer WHERE kind = 'vest'", {SUM, FOLD, HELD}),
    ("DELETE FROM ledger.transfer WHERE kind = 'reward'", {NEGATIVE, ESCROW, HELD}),
    ("DELETE FROM ledger.transfer WHERE kind = 'fee'", {ESCROW}),
    ("UPDATE ledger.transfer SET amount = amount + 1 WHERE kind = 'fund'", {SUM, FOLD, ESCROW}),
    ("UPDATE ledger.transfer SET amount = amount - 1 WHERE kind = 'referee'", {ESCROW}),
    (
        (
            "INSERT INTO ledger.transfer (kind, ref, asset, debit, credit, amount, at) "
            "SELECT 'referee', gen_random_uuid(), 'TEST', f.id, i.id, 100, now() "
            "FROM ledger.account f, ledger.account i WHERE f.kind = 'fee' AND i.kind = 'issued'"
        ),
        {NEGATIVE},
    ),
    ("UPDATE ledger.job_escrow SET funded = funded + 1", {ESCROW}),
    ("UPDATE ledger.job_escrow SET returned = returned - 1", {ESCROW}),
    ("UPDATE ledger.job_escrow SET allotted = allotted - 1", {ESCROW}),
    ("UPDATE ledger.escrow SET locked = locked + 1", {ESCROW}),
    ("UPDATE ledger.escrow SET released = released + 1 WHERE refunded = 0", {ESCROW, TASK}),
    ("UPDATE ledger.escrow SET fee = fee + 1, released = released - 1", {TASK}),
    ("UPDATE ledger.escrow SET refunded = refunded - 1 WHERE refunded > 0", {ESCROW}),
    ("DELETE FROM ledger.escrow WHERE refunded = 0", {ESCROW}),
    ("UPDATE ledger.earning SET amount = amount + 1 WHERE state = 'held'", {TASK, HELD}),
    ("UPDATE ledger.earning SET fee = fee + 1", {TASK}),
    ("UPDATE ledger.earning SET state = 'vested', vested_at = now()", {HELD}),
    ("UPDATE ledger.earning SET state = 'held', vested_at = NULL", {HELD}),
    ("DELETE FROM ledger.earning WHERE state = 'held'", {TASK, HELD}),
]


@pytest.mark.parametrize(("statement", "named"), TAMPERED)
async def test_a_forged_row_is_named_by_the_check(
    used: Database, superuser: Raw, statement: str, named: set[str]
) -> None:
    await superuser.execute("SET session_replication_role = replica")
    changed = await superuser.execute(statement)
    assert not changed.endswith(" 0")
    assert await broken(used) == named


def test_every_invariant_has_a_forgery_that_it_names() -> None:
    assert set().union(*(named for _, named in TAMPERED)) == set(INVARIANTS)
