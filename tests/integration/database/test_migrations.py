"""Migrations: each file once, in order, by whoever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from gstd.database import migrate as migrating
from gstd.database.connection import APP_ROLE, Database, DatabaseUnavailableError
from gstd.database.migrate import (
    AppRoleError,
    Migration,
    MigrationMismatchError,
    latest_version,
    migrate,
    migrations,
)
from gstd.database.provision import OWNER_ROLE, provision
from gstd.embedded.postgres import PostgresAddress
from tests.conftest import PASSWORD

NAMES = [migration.name for migration in migrations()]
NEWEST = latest_version()


@pytest_asyncio.fixture(loop_scope="session")
async def owner_url(cluster: PostgresAddress) -> AsyncIterator[str]:
    """An empty database of the owner."""
    name = f"empty_{uuid4().hex}"
    await provision(cluster.dsn(), owner_password=PASSWORD, app_password=PASSWORD, database=name)
    yield cluster.dsn(name, OWNER_ROLE, PASSWORD)
    admin = await asyncpg.connect(cluster.dsn())
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def applied(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT name FROM schema_migration ORDER BY version")
    await connection.close()
    return [row["name"] for row in rows]


async def test_an_empty_database_gets_every_file_in_order(owner_url: str) -> None:
    assert await migrate(owner_url) == NAMES
    assert await applied(owner_url) == NAMES


async def test_migrating_twice_changes_nothing(owner_url: str) -> None:
    await migrate(owner_url)
    assert await migrate(owner_url) == []
    assert await applied(owner_url) == NAMES


async def test_of_many_at_once_one_migrates_and_the_others_wait(owner_url: str) -> None:
    results = await asyncio.gather(*(migrate(owner_url) for _ in range(4)))
    assert sorted(results) == [[], [], [], NAMES]
    assert await applied(owner_url) == NAMES


async def test_a_file_that_changed_after_it_was_applied_is_refused(
    owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(owner_url)
    first, *rest = migrations()
    other = Migration(first.version, first.name, first.sql + "\n-- changed")
    monkeypatch.setattr(migrating, "migrations", lambda: [other, *rest])
    with pytest.raises(MigrationMismatchError, match="changed"):
        await migrate(owner_url)


async def test_a_database_newer_than_this_code_is_refused(
    owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(owner_url)
    older = migrations()[:-1]
    monkeypatch.setattr(migrating, "migrations", lambda: older)
    with pytest.raises(MigrationMismatchError, match=f"migration {NEWEST},"):
        await migrate(owner_url)


async def test_a_file_that_fails_leaves_what_was_before_it_and_nothing_of_itself(
    owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Migration(1, "0001_good.sql", "CREATE TABLE good ();")
    bad = Migration(2, "0002_bad.sql", "CREATE TABLE half (); SELECT 1 / 0;")
    with monkeypatch.context() as patch:
        patch.setattr(migrating, "migrations", lambda: [good, bad])
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(owner_url)
    assert await applied(owner_url) == ["0001_good.sql"]
    connection = await asyncpg.connect(owner_url)
    assert await connection.fetchval("SELECT to_regclass('good') IS NOT NULL")
    assert await connection.fetchval("SELECT to_regclass('half') IS NULL")
    await connection.close()


async def test_a_server_that_is_away_is_said_to_be_unavailable(owner_url: str) -> None:
    nowhere = owner_url.partition("?")[0] + "?host=%2Fnowhere&port=5432"
    with pytest.raises(DatabaseUnavailableError):
        await migrate(nowhere)
    with pytest.raises(DatabaseUnavailableError):
        await Database.connect(nowhere)


async def test_provisioning_twice_changes_only_the_passwords(
    cluster: PostgresAddress, owner_url: str
) -> None:
    await migrate(owner_url)
    name = owner_url.partition("?")[0].rpartition("/")[2]
    await provision(cluster.dsn(), owner_password=PASSWORD, app_password=PASSWORD, database=name)
    assert await applied(owner_url) == NAMES
    app = await Database.connect(cluster.dsn(name, APP_ROLE, PASSWORD))
    await app.close()


@pytest_asyncio.fixture(loop_scope="session")
async def shared_url(cluster: PostgresAddress) -> AsyncIterator[str]:
    """An empty database whose one login both migrates and runs."""
    name = f"shared_{uuid4().hex}"
    admin = await asyncpg.connect(cluster.dsn())
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    await admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    yield cluster.dsn(name, name, PASSWORD)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.execute(f"DROP ROLE {name}")
    await admin.close()


async def test_one_login_that_may_become_the_app_role_migrates_and_then_writes_no_ledger(
    cluster: PostgresAddress, shared_url: str
) -> None:
    name = shared_url.partition("?")[0].rpartition("/")[2]
    with pytest.raises(AppRoleError) as refused:
        await migrate(shared_url, shared_login=True)
    assert f"GRANT {APP_ROLE}" in refused.value.advice
    admin = await asyncpg.connect(cluster.dsn())
    await admin.execute(f"GRANT {APP_ROLE} TO {name}")
    await admin.close()
    assert await migrate(shared_url, shared_login=True) == NAMES
    app = await Database.connect(shared_url, role=APP_ROLE)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction() as connection:
            await connection.execute("UPDATE ledger.account SET balance = 1")
    await app.close()


FIRST_SLICE = """
DO $$
DECLARE
    asker uuid := gen_random_uuid(); worker uuid := gen_random_uuid();
    job uuid := gen_random_uuid(); tasks uuid[] := ARRAY[gen_random_uuid(), gen_random_uuid()];
BEGIN
    PERFORM ledger.grant_test_credits(gen_random_uuid(), asker, 1000, now());
    PERFORM ledger.fund_jobs(ARRAY[job], ARRAY[asker], ARRAY['TEST']::ledger.asset[],
        ARRAY[300]::bigint[], now());
    PERFORM ledger.allot(job, tasks, 100);
    PERFORM ledger.settle(tasks, ARRAY[gen_random_uuid(), gen_random_uuid()],
        ARRAY[worker, worker], ARRAY[gen_random_uuid(), gen_random_uuid()],
        ARRAY[50, 60]::bigint[], ARRAY[3, 4]::bigint[],
        ARRAY[now(), now() + interval '1 day'], now());
    PERFORM ledger.vest_due(now(), 10);
    PERFORM ledger.refund_tasks(tasks[1:1], now());
    PERFORM ledger.refund_unmade(ARRAY[job], now());
END $$
"""


async def test_a_ledger_of_the_first_slice_is_sound_after_the_upgrade(
    owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = migrations()
    with monkeypatch.context() as past:
        past.setattr(migrating, "migrations", lambda: everything[:5])
        await migrate(owner_url)
    connection = await asyncpg.connect(owner_url)
    await connection.execute(FIRST_SLICE)
    before = await connection.fetch("SELECT id, balance FROM ledger.balance ORDER BY id")
    await connection.close()
    assert len(await migrate(owner_url)) == len(everything) - 5
    connection = await asyncpg.connect(owner_url)
    assert await connection.fetch("SELECT id, balance FROM ledger.balance ORDER BY id") == before
    assert await connection.fetch("SELECT * FROM ledger.broken") == []
    for _ in range(3):
        await connection.execute("SELECT ledger.fold(1000)")
    assert await connection.fetch("SELECT * FROM ledger.broken") == []
    [announced] = await connection.fetch("SELECT transfers FROM event_outbox")
    transfers = await connection.fetchval("SELECT count(*) FROM ledger.transfer")
    assert len(announced["transfers"]) == transfers > 8
    await connection.close()
