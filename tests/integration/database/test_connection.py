"""The pool: roles, transactions, retries, and a server that comes and goes."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from gstd.database.connection import (
    APP_ROLE,
    FROZEN_AFTER,
    Connection,
    Database,
    DatabaseUnavailableError,
)
from gstd.database.provision import OWNER_ROLE
from tests.servers import Wire, until

FORBIDDEN = [
    "CREATE TABLE mine ()",
    "CREATE SCHEMA mine",
    "INSERT INTO ledger.account (owner, kind, asset) VALUES (NULL, 'issued', 'GSTD')",
    "UPDATE ledger.account SET balance = balance + 1",
    "DELETE FROM ledger.transfer",
    "TRUNCATE ledger.transfer",
    "UPDATE ledger.escrow SET released = 0",
    "UPDATE ledger.earning SET state = 'vested'",
    "UPDATE ledger.job_escrow SET returned = 0",
    "SELECT ledger.post(NULL, now())",
    "SELECT ledger.open_accounts(NULL, NULL, NULL)",
    "ALTER TABLE account ADD COLUMN more text",
    "DROP TABLE account",
    "DELETE FROM task",
    "DELETE FROM event_log",
    "UPDATE event_log SET kind = 'x'",
    "UPDATE schema_migration SET sha256 = 'x'",
    f"SET ROLE {OWNER_ROLE}",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_applications_role_may_not(database: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction() as connection:
            await connection.execute(statement)


async def test_the_applications_role_reads_the_ledger_and_calls_its_functions(
    database: Database,
) -> None:
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT current_user") == APP_ROLE
        assert await connection.fetchval("SELECT count(*) FROM ledger.transfer") == 0
        granted = "SELECT ledger.grant_test_credits($1, $2, 5, now())"
        assert await connection.fetchval(granted, uuid4(), uuid4()) is True
        assert await connection.fetchval("SELECT count(*) FROM ledger.transfer") == 1


async def test_a_shared_login_runs_as_the_applications_role(
    database_urls: dict[str, str],
) -> None:
    shared = await Database.connect(database_urls["superuser"], role=APP_ROLE)
    try:
        for _ in range(2):  # the pool resets a session between two uses
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with shared.transaction() as connection:
                    await connection.execute("CREATE TABLE mine ()")
    finally:
        await shared.close()


async def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    async def half(connection: Connection) -> None:
        await _add_account(connection)
        raise LookupError

    with pytest.raises(LookupError):
        await database.run(half)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM account") == 0


async def _add_account(connection: Connection) -> None:
    insert = "INSERT INTO account VALUES (gen_random_uuid(), 'n', '{worker}', 0, now())"
    await connection.execute(insert)


async def test_a_deadlock_is_run_again_and_both_succeed(database: Database) -> None:
    async with database.transaction() as connection:
        await _add_account(connection)
        await _add_account(connection)
        rows = await connection.fetch("SELECT id FROM account ORDER BY id")
    first, second = (row["id"] for row in rows)
    both_hold_one = asyncio.Barrier(2)
    runs: list[str] = []

    async def cross(connection: Connection, name: str, one: object, other: object) -> None:
        runs.append(name)
        lock = "UPDATE account SET name = name || $2 WHERE id = $1"
        await connection.execute(lock, one, name)
        if runs.count(name) == 1:
            await both_hold_one.wait()
        await connection.execute(lock, other, name)

    await asyncio.gather(
        database.run(lambda conn: cross(conn, "a", first, second)),
        database.run(lambda conn: cross(conn, "b", second, first)),
    )
    assert len(runs) == 3
    async with database.connection() as connection:
        names = [row[0] for row in await connection.fetch("SELECT name FROM account")]
    assert [sorted(name) for name in names] == [["a", "b", "n"]] * 2


async def test_what_never_stops_failing_is_raised_after_its_tries(database: Database) -> None:
    tries = 0

    async def fail(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(asyncpg.SerializationError):
        await database.run(fail, tries=3)
    assert tries == 3


async def test_other_errors_are_not_tried_again(database: Database) -> None:
    tries = 0

    async def fail(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await database.run(fail)
    assert tries == 1


async def test_a_server_that_goes_is_unavailable_and_works_again_when_it_is_back(
    database_urls: dict[str, str],
) -> None:
    async with Wire.to(database_urls["app"]) as (wire, url):
        database = await Database.connect(url, size=4)
        await wire.cut()
        for _ in range(3):
            with pytest.raises(DatabaseUnavailableError) as gone:
                await database.run(lambda conn: conn.fetchval("SELECT 1"))
            assert gone.value.status == 503
        await wire.mend()

        async def works() -> bool:
            return bool(await database.run(lambda conn: conn.fetchval("SELECT 1")))

        assert await until(works)
        await database.close()


async def test_a_connection_that_dies_inside_a_transaction_is_unavailable(
    database_urls: dict[str, str],
) -> None:
    async with Wire.to(database_urls["app"]) as (wire, url):
        database = await Database.connect(url, size=2)

        async def cut_off(connection: Connection) -> None:
            await _add_account(connection)
            wire.drop()
            await connection.execute("SELECT 1")

        with pytest.raises(DatabaseUnavailableError):
            await database.run(cut_off)

        async def count() -> int:
            try:
                async with database.connection() as connection:
                    found: int = await connection.fetchval("SELECT 1 + count(*) FROM account")
                    return found
            except DatabaseUnavailableError:
                return 0

        assert await until(count) == 1
        await database.close()


async def test_a_backend_that_an_admin_ends_is_unavailable_once(
    database: Database, database_urls: dict[str, str]
) -> None:
    admin = await asyncpg.connect(database_urls["superuser"])
    ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1"

    async def cut_off(connection: Connection) -> None:
        await connection.execute("SELECT 1")
        assert await admin.fetchval(ended + " AND datname = current_database()", APP_ROLE) >= 1
        await connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailableError):
        await database.run(cut_off)
    await admin.close()
    assert await database.run(lambda conn: conn.fetchval("SELECT 7")) == 7


async def test_who_is_silent_in_a_transaction_loses_it_and_its_locks(database: Database) -> None:
    async with database.connection() as connection:
        setting = await connection.fetchval("SHOW idle_in_transaction_session_timeout")
    assert setting == FROZEN_AFTER

    async def fall_silent(connection: Connection) -> None:
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
        await connection.execute("INSERT INTO leader VALUES ('x', 'silent', 1, now())")
        await until(connection.is_closed)
        await connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailableError):
        await database.run(fall_silent)
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM leader") == 0
