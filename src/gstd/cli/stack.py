"""The whole platform as one process tree: what ``gstd up`` and ``gstd demo`` start."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import msgspec

from gstd.cli.credentials import Credentials, load_credentials, save_credentials
from gstd.cli.processes import patiently
from gstd.embedded.errors import BinariesMissingError
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.embedded.process import Command, ManagedProcess, State, Supervisor
from gstd.embedded.state import kept_secret, private_folder, write_private
from gstd.embedded.valkey import EmbeddedValkey
from gstd.kernel.clock import SystemClock
from gstd.kernel.errors import GstdError
from gstd.kernel.ids import new_id
from gstd.kernel.money import NANO_PER_GSTD
from gstd.kernel.settings import Mode, Policy, Settings
from gstd.protocol.types import Role

FIRST_CREDITS_NANO = 1_000 * NANO_PER_GSTD
"""Test credits of the local account that development mode makes."""

PORTS_TRIED = 50

Tell = Callable[[str], None]


class PortTakenError(GstdError):
    """The port is in use."""

    code = "port_taken"
    hint = "Set another one with --port, or 0 for any free one."


class Stack(msgspec.Struct, frozen=True):
    """A running platform: its settings as every process got them, and who watches them."""

    settings: Settings
    supervisor: Supervisor
    url: str

    def command(self, name: str, *arguments: str, env: dict[str, str] | None = None) -> Command:
        """A ``gstd`` process of this platform that dies with us."""
        return gstd_command(self.settings, name, *arguments, env=env)


def gstd_command(
    settings: Settings, name: str, *arguments: str, env: dict[str, str] | None = None
) -> Command:
    """``gstd`` with these arguments, logging into the state folder."""
    return Command(
        name=name,
        argv=(sys.executable, "-m", "gstd.cli.main", *arguments),
        log=settings.state_dir / "logs" / f"{name}.log",
        env={**os.environ, **environment(settings), **(env or {})},
        calls_hold_leash=True,
    )


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, from which a process reads the same settings."""
    plain = {
        name: value
        for name in Settings.__struct_fields__
        if name != "policy" and (value := getattr(settings, name)) is not None
    }
    policy = {
        f"policy_{name}": msgspec.json.encode(getattr(settings.policy, name)).decode()
        for name in Policy.__struct_fields__
    }
    return {f"GSTD_{name.upper()}": str(value) for name, value in (plain | policy).items()}


@asynccontextmanager
async def open_stack(
    settings: Settings, tell: Tell, *, on_state: Callable[[str, State], None] | None = None
) -> AsyncIterator[Stack]:
    """Start everything that the settings do not say runs elsewhere; stop it at the end.

    ``tell`` hears one line per step, ``on_state`` every change of a process.
    """
    async with Supervisor() as supervisor:
        settings = await _with_stores(settings, supervisor, tell, on_state)
        await _migrate(settings, tell)
        await bootstrap(settings, tell)
        settings = msgspec.structs.replace(settings, port=free_port(settings))
        url = f"http://{settings.host}:{settings.port}"
        stack = Stack(settings, supervisor, url)
        await supervisor.start(
            ManagedProcess(stack.command("api", "api"), ready=_health(url), on_state=on_state),
            ManagedProcess(stack.command("scheduler", "scheduler"), on_state=on_state),
            ManagedProcess(stack.command("referee", "referee"), on_state=on_state),
        )
        _remember_url(settings, url)
        tell(f"API, scheduler and referee run: {url}")
        yield stack


async def _with_stores(
    settings: Settings,
    supervisor: Supervisor,
    tell: Tell,
    on_state: Callable[[str, State], None] | None,
) -> Settings:
    state = private_folder(settings.state_dir)
    private_folder(state / "logs")
    changes: dict[str, str | None] = {}
    if settings.database_url is None:
        changes |= await _embedded_postgres(state, supervisor, on_state)
        tell("PostgreSQL runs (embedded)")
    if settings.valkey_url is None:
        valkey = EmbeddedValkey(state, on_state=on_state)
        try:
            await supervisor.start(valkey)
            changes["valkey_url"] = valkey.address().url()
            tell("Valkey runs (embedded)")
        except BinariesMissingError:
            tell("Valkey is not installed: work goes on with PostgreSQL alone")
    if settings.secret is None and settings.mode is Mode.DEVELOPMENT:
        changes["secret"] = _kept_hex(state / "secret.key")
    elif settings.secret is None:
        settings.secret_bytes()  # production has no defaults: say so before anything starts
    if settings.blobs_url is None:
        changes["blobs_url"] = f"file://{state}/blobs"
    return msgspec.structs.replace(settings, **changes)


async def _embedded_postgres(
    state: Path, supervisor: Supervisor, on_state: Callable[[str, State], None] | None
) -> dict[str, str | None]:
    from gstd.database.connection import APP_ROLE
    from gstd.database.provision import DATABASE, OWNER_ROLE, provision

    server = EmbeddedPostgres(state, on_state=on_state)
    await supervisor.start(server)
    address = server.address()
    owner = kept_secret(state / "postgres-owner.key")
    application = kept_secret(state / "postgres-app.key")
    await patiently(
        lambda: provision(address.dsn(), owner_password=owner, app_password=application)
    )
    return {
        "database_url": address.dsn(DATABASE, APP_ROLE, application),
        "database_owner_url": address.dsn(DATABASE, OWNER_ROLE, owner),
    }


def _kept_hex(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text(encoding="ascii").strip()


async def _migrate(settings: Settings, tell: Tell) -> None:
    applied = await migrate_database(settings)
    tell(f"database migrated: {len(applied)} steps" if applied else "database is up to date")


async def migrate_database(settings: Settings) -> list[str]:
    """Bring the database of the settings to the newest schema."""
    from gstd.database.migrate import migrate

    owner = settings.database_owner_url or settings.database_url
    assert owner is not None
    return await patiently(lambda: migrate(owner, shared_login=settings.database_owner_url is None))


async def bootstrap(settings: Settings, tell: Tell) -> Credentials | None:
    """The first account, once: an admin, in development with every role and test credits.

    Its key is written to the state folder, mode 0600, and nowhere else.
    """
    from gstd.accounts import service as accounts
    from gstd.api.platform import app_role
    from gstd.database.connection import Connection, Database
    from gstd.ledger import service as ledger

    is_local = settings.mode is Mode.DEVELOPMENT
    roles = [Role.ADMIN, Role.REQUESTER, Role.WORKER] if is_local else [Role.ADMIN]

    async def first(connection: Connection) -> Credentials | None:
        if await accounts.has_accounts(connection):
            return None
        now = SystemClock().now()
        made = await accounts.create_account(connection, "operator", roles, now)
        if is_local:
            await ledger.grant_test_credits(
                connection, new_id(), made.account.id, FIRST_CREDITS_NANO, now
            )
        credentials = Credentials(api_key=made.api_key)
        save_credentials(settings.state_dir, credentials)
        return credentials

    assert settings.database_url is not None
    database = await Database.connect(settings.database_url, role=app_role(settings), size=1)
    try:
        credentials = await database.run(first)
    finally:
        await database.close()
    if credentials is not None:
        tell(f"made the first account; its key is in {settings.state_dir}/credentials.json")
    return credentials


def _remember_url(settings: Settings, url: str) -> None:
    known = load_credentials(settings.state_dir)
    if known is not None and known.url != url:
        save_credentials(settings.state_dir, msgspec.structs.replace(known, url=url))


def free_port(settings: Settings) -> int:
    """The wanted port, or when the default is taken the next free one."""
    wanted = settings.port
    tries = PORTS_TRIED if wanted == Settings().port else 1
    for port in [0] if wanted == 0 else range(wanted, wanted + tries):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise PortTakenError(f"port {wanted} is taken")


def _health(url: str) -> Callable[[], Awaitable[bool]]:
    async def is_healthy() -> bool:
        try:
            async with httpx2.AsyncClient(timeout=2) as client:
                return (await client.get(f"{url}/api/v1/health")).status_code == 200
        except httpx2.HTTPError:
            return False

    return is_healthy
