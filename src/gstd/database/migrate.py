"""Migrations: numbered SQL files, each applied once in its own transaction by the owner's role."""

from __future__ import annotations

import contextlib
import hashlib
from importlib.resources import files

import asyncpg
import msgspec

from gstd.database.connection import APP_ROLE, UNREACHABLE, DatabaseUnavailableError
from gstd.kernel.errors import GstdError

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""

_LOCK = 4_721_003
"""Advisory lock key under which one process at a time migrates."""


ROLE_TRIES = 5
"""The lock holds in one database; two of one server may still meet at the role they share."""


_MET_ANOTHER = (
    asyncpg.InternalServerError,  # "tuple concurrently updated"
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateObjectError,
)


class Migration(msgspec.Struct, frozen=True):
    """One file: its number, name and text."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationMismatchError(GstdError):
    """The database was migrated by other files than these."""

    code = "migration_mismatch"
    status = 503
    hint = "Run the version of gstd that made this database, or migrate with the newer one."


class AppRoleError(GstdError):
    """The login may not make or become the role of the running processes."""

    code = "app_role_unusable"
    status = 503
    hint = (
        f"As a superuser: CREATE ROLE {APP_ROLE} (if it is missing) and GRANT {APP_ROLE} TO the "
        "login; or give the processes a login of their own and set GSTD_DATABASE_OWNER_URL."
    )


def migrations() -> list[Migration]:
    """All migrations in order."""
    folder = files("gstd.database").joinpath("migrations")
    found = [
        Migration(int(entry.name[:4]), entry.name, entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.version)


def latest_version() -> int:
    """The schema version that this code expects."""
    return migrations()[-1].version


async def migrate(owner_url: str, *, shared_login: bool = False) -> list[str]:
    """Bring the database to the newest schema; returns the names of the applied files.

    With ``shared_login`` the owner's login may also run as the application's role. Safe to call
    from many processes at once. Raises ``MigrationMismatchError`` when an applied file has changed
    or the database is newer than this code.
    """
    try:
        connection = await asyncpg.connect(owner_url)
    except UNREACHABLE as error:
        raise DatabaseUnavailableError(str(error)) from error
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await _ensure_app_role(connection, shared_login=shared_login)
        await connection.execute(_TABLE)
        return await _apply_missing(connection)
    finally:
        await connection.close()


async def _ensure_app_role(
    connection: asyncpg.Connection[asyncpg.Record], *, shared_login: bool
) -> None:
    """Make the role. All databases of a server share it: another's migration may do the same."""
    for _ in range(ROLE_TRIES - 1):
        with contextlib.suppress(*_MET_ANOTHER):
            await _make_app_role(connection, shared_login=shared_login)
            return
    await _make_app_role(connection, shared_login=shared_login)


async def _make_app_role(
    connection: asyncpg.Connection[asyncpg.Record], *, shared_login: bool
) -> None:
    try:
        exists = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", APP_ROLE)
        if not exists:
            await connection.execute(f"CREATE ROLE {APP_ROLE} NOLOGIN")
        privilege = "SET" if _knows_set(connection) else "MEMBER"
        may_become = await connection.fetchval("SELECT pg_has_role($1, $2)", APP_ROLE, privilege)
        if shared_login and not may_become:
            await connection.execute(f"GRANT {APP_ROLE} TO CURRENT_USER")
    except asyncpg.InsufficientPrivilegeError as error:
        raise AppRoleError(str(error)) from error


def _knows_set(connection: asyncpg.Connection[asyncpg.Record]) -> bool:
    """PostgreSQL 16 split membership: to become a role needs the SET option."""
    return connection.get_server_version().major >= 16


async def _apply_missing(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    rows = await connection.fetch("SELECT version, sha256 FROM schema_migration")
    applied = {row["version"]: row["sha256"] for row in rows}
    known = {migration.version: migration for migration in migrations()}
    for version, sha256 in applied.items():
        if version not in known:
            raise MigrationMismatchError(f"the database has migration {version}, this code not")
        if known[version].sha256 != sha256:
            raise MigrationMismatchError(f"{known[version].name} was changed after it was applied")
    missing = [migration for migration in known.values() if migration.version not in applied]
    for migration in missing:
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '5s'")
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migration (version, name, sha256) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.sha256,
            )
    return [migration.name for migration in missing]
