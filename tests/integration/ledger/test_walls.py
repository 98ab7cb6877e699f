"""The walls behind the functions: who may write what, and which lie the check would name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from gstd.database.connection import Database
from gstd.kernel.clock import ManualClock
from gstd.ledger import service as ledger
from gstd.ledger.service import INVARIANTS
from tests.integration.ledger.scenes import broken, everything

TABLES = [
    "account",
    "transfer",
    "job_escrow",
    "escrow",
    "earning",
    "referee_charge",
    "freeze",
    "deposit",
    "withdrawal",
    "correction",
    "day",
    "sweep",
]
if TYPE_CHECKING:
    Raw = asyncpg.Connection[asyncpg.Record]
else:
    Raw = asyncpg.Connection


@pytest_asyncio.fixture
async def used(database: Database, clock: ManualClock) -> Database:
    """A ledger with every kind of movement in it."""
    await everything(database, clock.now())
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


async def test_a_used_ledger_keeps_every_promise(used: Database) -> None:
    check = await used.run(ledger.check)
    assert check.ok
    assert check.sum_nano == "0"
    assert [item.name for item in check.invariants] == list(INVARIANTS)
    async with used.connection() as conn:
        unused = await conn.fetch(
            "SELECT unnest(enum_range(NULL::ledger.transfer_kind)) "
            "EXCEPT SELECT kind FROM ledger.transfer"
        )
    assert unused == []


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
        "UPDATE ledger.freeze SET state = 'ruled'",
        "UPDATE ledger.withdrawal SET state = 'returned'",
        "UPDATE ledger.correction SET proposed_by = gen_random_uuid()",
        "UPDATE ledger.sweep SET through = 0",
        "SELECT ledger.pay_earnings(ARRAY[]::uuid[], now())",
        "SELECT ledger.take_back(ARRAY[]::uuid[], ARRAY[]::bigint[], ARRAY[]::bigint[], now())",
        "SELECT ledger.opened_account(gen_random_uuid(), 'available', 'GSTD')",
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
        "TRUNCATE ledger.transfer CASCADE",
    ],
)
async def test_transfers_are_final_even_for_the_owner(
    used: Database, owner: Raw, statement: str
) -> None:
    with pytest.raises(asyncpg.RaiseError, match="transfers are never changed"):
        await owner.execute(statement)
    assert await broken(used) == set()


@pytest.mark.parametrize("session", ["origin", "replica"])
@pytest.mark.parametrize(
    ("account", "wall"),
    [
        ("(NULL, 'available', 'TEST', NULL)", "account_platform"),
        ("(gen_random_uuid(), 'fee', 'TEST', NULL)", "account_platform"),
        ("(gen_random_uuid(), 'escrow', 'TEST', NULL)", "account_of_job"),
        ("(gen_random_uuid(), 'held', 'TEST', gen_random_uuid())", "account_of_job"),
        ("(NULL, 'issued', 'GSTD', NULL)", "account_test_asset"),
        ("(NULL, 'chain', 'TEST', NULL)", "account_real_asset"),
        ("(gen_random_uuid(), 'reserved', 'TEST', NULL)", "account_real_asset"),
    ],
)
async def test_no_account_is_made_that_cannot_be(
    superuser: Raw, account: str, wall: str, session: str
) -> None:
    await superuser.execute(f"SET session_replication_role = {session}")
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await superuser.execute(
            f"INSERT INTO ledger.account (owner, kind, asset, job_id) VALUES {account}"  # noqa: S608
        )
    assert refused.value.constraint_name == wall


@pytest.mark.usefixtures("used")
async def test_only_what_keeps_a_balance_is_spendable(superuser: Raw) -> None:
    await superuser.execute(
        "INSERT INTO ledger.account (owner, kind, asset, spendable) "
        "VALUES (gen_random_uuid(), 'held', 'TEST', true)"
    )
    kinds = await superuser.fetch(
        "SELECT kind::text, bool_and(spendable) AS every, bool_or(spendable) AS any "
        "FROM ledger.account GROUP BY kind"
    )
    assert {row["kind"] for row in kinds if row["every"]} == {"available", "restitution"}
    assert {row["kind"] for row in kinds if row["any"]} == {"available", "restitution"}
    with pytest.raises(asyncpg.CheckViolationError):
        await superuser.execute("UPDATE ledger.account SET balance = -1 WHERE kind = 'restitution'")


@pytest.mark.parametrize(
    "change",
    ["owner = owner", "kind = 'fee'", "asset = 'GSTD'", "job_id = NULL", "spendable = false"],
)
async def test_what_an_account_is_never_changes(superuser: Raw, change: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match="what an account is never changes"):
        await superuser.execute(f"UPDATE ledger.account SET {change}")  # noqa: S608


(
    SUM,
    NEGATIVE,
    BALANCE,
    CHAIN,
    ASSET,
    ESCROW,
    TASK,
    REFEREE,
    FROZEN,
    CONTEST,
    HELD,
    RESERVED,
    SUSPENSE,
    DAYS,
) = INVARIANTS
TAMPERED = [
    ("UPDATE ledger.account SET balance = balance + 1 WHERE kind = 'available'", {SUM, BALANCE}),
    ("UPDATE ledger.account SET balance = balance - 1 WHERE kind = 'fee'", {SUM, BALANCE}),
    (
        (
            "UPDATE ledger.account SET balance = balance + CASE kind WHEN 'fee' THEN 1 ELSE -1 END "
            "WHERE kind IN ('fee', 'referee')"
        ),
        {BALANCE},
    ),
    ("UPDATE ledger.account SET head = sha256(head) WHERE kind = 'available'", {CHAIN}),
    ("UPDATE ledger.account SET head = sha256(head) WHERE kind = 'restitution'", {CHAIN}),
    ("UPDATE ledger.account SET version = version + 1 WHERE kind = 'restitution'", {CHAIN}),
    (
        (
            "UPDATE ledger.account SET head = decode(repeat('00', 32), 'hex'), version = 0 "
            "WHERE kind = 'available'"
        ),
        {CHAIN},
    ),
    ("UPDATE ledger.transfer SET debit_version = debit_version + 1 WHERE kind = 'fund'", {CHAIN}),
    ("UPDATE ledger.transfer SET credit_version = 1 WHERE kind = 'return'", {CHAIN}),
    ("UPDATE ledger.transfer SET credit_after = credit_after + 1 WHERE kind = 'vest'", {CHAIN}),
    ("UPDATE ledger.transfer SET ref = gen_random_uuid() WHERE kind = 'correction'", {CHAIN}),
    ("UPDATE ledger.transfer SET asset = 'GSTD' WHERE kind = 'reward'", {ASSET}),
    ("UPDATE ledger.transfer SET debit = -1 WHERE kind = 'fee'", {ASSET, BALANCE, DAYS}),
    (
        (
            "DELETE FROM ledger.transfer WHERE kind = 'fund' "
            "AND id > (SELECT through FROM ledger.sweep)"
        ),
        {SUM, BALANCE, CHAIN, ESCROW},
    ),
    (
        (
            "DELETE FROM ledger.transfer WHERE kind = 'grant' "
            "AND id > (SELECT through FROM ledger.sweep)"
        ),
        {SUM, BALANCE, CHAIN},
    ),
    ("DELETE FROM ledger.transfer WHERE kind = 'vest'", {BALANCE, CHAIN, DAYS}),
    ("DELETE FROM ledger.transfer WHERE kind = 'reward'", {BALANCE, DAYS}),
    ("DELETE FROM ledger.transfer WHERE kind = 'fee'", {BALANCE, DAYS}),
    (
        "UPDATE ledger.transfer SET amount = amount + 1 WHERE kind = 'fund'",
        {SUM, BALANCE, CHAIN, ESCROW, DAYS},
    ),
    ("UPDATE ledger.transfer SET amount = amount - 1 WHERE kind = 'referee'", {BALANCE, DAYS}),
    (
        (
            "INSERT INTO ledger.transfer (kind, ref, asset, debit, credit, amount, at) "
            "SELECT 'referee', gen_random_uuid(), 'TEST', f.id, i.id, 100, now() "
            "FROM ledger.account f, ledger.account i WHERE f.kind = 'fee' AND i.kind = 'issued'"
        ),
        {NEGATIVE},
    ),
    ("UPDATE ledger.job_escrow SET funded = funded + 1", {ESCROW}),
    ("UPDATE ledger.job_escrow SET returned = returned - 1 WHERE returned > 0", {ESCROW}),
    ("UPDATE ledger.job_escrow SET allotted = allotted - 1", {ESCROW}),
    ("UPDATE ledger.escrow SET locked = locked + 1", {ESCROW}),
    ("UPDATE ledger.escrow SET restored = restored - 1 WHERE restored > 0", {ESCROW}),
    ("UPDATE ledger.escrow SET released = released + 1 WHERE refunded = 0", {ESCROW, TASK}),
    ("UPDATE ledger.escrow SET fee = fee + 1, released = released - 1 WHERE released > 0", {TASK}),
    ("UPDATE ledger.escrow SET refunded = refunded - 1 WHERE refunded > 0", {ESCROW}),
    ("UPDATE ledger.escrow SET referee = referee - 1 WHERE referee > 0", {ESCROW, REFEREE}),
    ("UPDATE ledger.escrow SET frozen = frozen - 1 WHERE frozen > 0", {FROZEN}),
    ("UPDATE ledger.escrow SET frozen = frozen + 1 WHERE released = 0", {FROZEN}),
    ("DELETE FROM ledger.escrow WHERE refunded = 0", {ESCROW}),
    ("UPDATE ledger.referee_charge SET amount = amount + 1", {REFEREE}),
    ("DELETE FROM ledger.referee_charge", {REFEREE}),
    (
        "UPDATE ledger.freeze SET amount = amount + 1 WHERE state = 'open' AND amount > 0",
        {FROZEN},
    ),
    (
        (
            "UPDATE ledger.freeze SET state = 'withdrawn', closed_at = now() "
            "WHERE state = 'open' AND amount > 0"
        ),
        {FROZEN},
    ),
    (
        (
            "UPDATE ledger.freeze SET state = 'withdrawn', closed_at = now() "
            "WHERE state = 'open' AND amount = 0"
        ),
        {CONTEST},
    ),
    ("UPDATE ledger.earning SET state = 'held' WHERE state = 'frozen'", {CONTEST}),
    ("UPDATE ledger.earning SET state = 'frozen' WHERE state = 'held'", {CONTEST}),
    ("UPDATE ledger.earning SET amount = amount + 1 WHERE state = 'held'", {TASK, HELD}),
    ("UPDATE ledger.earning SET taken = taken - 1 WHERE state = 'vested' AND taken > 0", {TASK}),
    ("UPDATE ledger.earning SET fee = fee + 1", {TASK}),
    ("UPDATE ledger.earning SET fee_taken = fee_taken - 1 WHERE fee_taken > 0", {TASK}),
    (
        (
            "UPDATE ledger.earning SET state = 'vested', vested_at = now(), kept = false "
            "WHERE state = 'held'"
        ),
        {HELD},
    ),
    ("UPDATE ledger.earning SET state = 'held' WHERE state = 'forfeited'", {HELD}),
    ("DELETE FROM ledger.earning WHERE state = 'held'", {TASK, HELD}),
    ("UPDATE ledger.withdrawal SET amount = amount + 1 WHERE state = 'reserved'", {RESERVED}),
    (
        "UPDATE ledger.withdrawal SET state = 'reserved', ended_at = NULL WHERE state = 'returned'",
        {RESERVED},
    ),
    ("DELETE FROM ledger.withdrawal", {RESERVED}),
    (
        (
            "INSERT INTO ledger.withdrawal (id, owner, amount, reserved_at) "
            "VALUES (gen_random_uuid(), gen_random_uuid(), 5, now())"
        ),
        {RESERVED},
    ),
    ("DELETE FROM ledger.job_escrow", {ESCROW}),
    ("DELETE FROM ledger.account WHERE kind = 'escrow'", {SUM, ASSET, ESCROW}),
    ("DELETE FROM ledger.account WHERE kind = 'held'", {SUM, ASSET, HELD}),
    ("DELETE FROM ledger.account WHERE kind = 'reserved'", {SUM, ASSET, RESERVED}),
    ("DELETE FROM ledger.account WHERE kind = 'suspense'", {SUM, ASSET, SUSPENSE}),
    ("UPDATE ledger.deposit SET owner = gen_random_uuid() WHERE owner IS NULL", {SUSPENSE}),
    ("UPDATE ledger.deposit SET owner = NULL", {SUSPENSE}),
    ("UPDATE ledger.deposit SET amount = amount + 1 WHERE owner IS NULL", {SUSPENSE}),
    ("UPDATE ledger.day SET paid_in = paid_in + 1 WHERE kind = 'fee' AND paid_in > 0", {DAYS}),
    ("UPDATE ledger.day SET transfers = transfers + 1", {DAYS}),
    ("DELETE FROM ledger.day WHERE kind = 'grant'", {DAYS}),
    ("UPDATE ledger.sweep SET through = through - 1", {DAYS}),
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
