"""Makes the database and its two logins on a server that we start ourselves."""

from __future__ import annotations

import asyncpg

from gstd.database.connection import APP_ROLE, UNREACHABLE, DatabaseUnavailableError

OWNER_ROLE = "gstd_owner"
DATABASE = "gstd"


async def provision(
    superuser_url: str, *, owner_password: str, app_password: str, database: str = DATABASE
) -> None:
    """Make sure that both roles can log in and that the owner has its database.

    The owner migrates; the application's role can only do what migrations grant it.
    """
    try:
        connection = await asyncpg.connect(superuser_url)
    except UNREACHABLE as error:
        raise DatabaseUnavailableError(str(error)) from error
    try:
        for role, password in ((OWNER_ROLE, owner_password), (APP_ROLE, app_password)):
            await _ensure_login(connection, role, password)
        exists = await connection.fetchval(
            "SELECT true FROM pg_database WHERE datname = $1", database
        )
        if not exists:
            await connection.execute(f'CREATE DATABASE "{database}" OWNER {OWNER_ROLE}')
            await connection.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
            await connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO {APP_ROLE}')
    finally:
        await connection.close()


async def _ensure_login(
    connection: asyncpg.Connection[asyncpg.Record], role: str, password: str
) -> None:
    exists = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if exists else "CREATE"
    # A role's password cannot be a parameter; the server quotes it for us.
    literal = await connection.fetchval("SELECT quote_literal($1)", password)
    await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD {literal}")
