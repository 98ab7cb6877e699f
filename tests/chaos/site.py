"""A platform of real processes that can be killed: a durable PostgreSQL and an API."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import asyncpg
import msgspec

from gstd.cli.stack import bootstrap, free_port, gstd_command, migrate_database
from gstd.database.connection import APP_ROLE
from gstd.database.provision import DATABASE, OWNER_ROLE, provision
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.embedded.process import ManagedProcess, Supervisor
from gstd.embedded.state import private_folder
from gstd.kernel.settings import Settings
from gstd.protocol.jobs import InputRange, JobRequest
from gstd.protocol.people import AccountRequest, NewAccount
from gstd.protocol.types import Asset, Role
from gstd.sdk import Client
from tests.e2e.processes import descendants, is_well, kill
from tests.servers import until
from tests.world import MODULE

BACK_WITHIN_S = 60.0
PASSWORD = "of-a-test-site"  # noqa: S105 - the site lives for one test run


class Site:
    """The processes, who may kill them, and what tests need before they begin."""

    def __init__(self, settings: Settings, postgres: EmbeddedPostgres, admin_key: str) -> None:
        self.settings = settings
        self.url = f"http://{settings.host}:{settings.port}"
        self.admin_key = admin_key
        self.module_id = ""
        self._postgres = postgres
        self._api = ManagedProcess(gstd_command(settings, "api", "api"), ready=self.is_well)

    @classmethod
    @asynccontextmanager
    async def open(cls, state: Path) -> AsyncIterator[Self]:
        """A new platform; all of it ends with the block."""
        private_folder(state / "logs")
        async with Supervisor() as supervisor:
            postgres = EmbeddedPostgres(state, durable=True)
            await supervisor.start(postgres)
            settings = await prepare(state, postgres)
            made = await bootstrap(settings, lambda _: None)
            assert made is not None
            site = cls(settings, postgres, made.api_key)
            await supervisor.start(site._api)
            async with Client(site.url, site.admin_key) as admin:
                module = await admin.upload_module(MODULE.read_bytes(), "mandelbrot")
            site.module_id = module.id
            yield site

    async def is_well(self) -> bool:
        """Whether the API answers and reaches its database."""
        return await is_well(self.url)

    def kill_postgres(self) -> None:
        """SIGKILL for the server and all its backends, as when the machine goes down."""
        kill_server(self._postgres)

    def kill_api(self) -> None:
        """SIGKILL for the API process."""
        assert self._api.pid is not None
        kill(self._api.pid)

    async def back(self, restarts_before: int) -> None:
        """Wait until what was killed was started again and the platform is well."""
        await until(lambda: self.restarts > restarts_before, BACK_WITHIN_S)
        await until(self.is_well, BACK_WITHIN_S)

    @property
    def restarts(self) -> int:
        """How often anything was started again."""
        assert self._postgres.process is not None
        return self._postgres.process.restarts + self._api.restarts

    async def account(self, credit: int = 0) -> NewAccount:
        """A new requester, with test credits if asked."""
        async with Client(self.url, self.admin_key) as admin:
            made = await admin.create_account(AccountRequest(name="n", roles=[Role.REQUESTER]))
            if credit:
                await admin.credit(made.account.id, credit)
            return made

    def job(self, tasks: int = 1) -> JobRequest:
        """A small job."""
        return JobRequest(
            module=self.module_id,
            reward_nano="1000000",
            range=InputRange(count=tasks),
            asset=Asset.TEST,
        )

    async def count(self, query: str, *values: object) -> int:
        """One number from the database, asked behind the platform's back."""
        owner = await asyncpg.connect(self.settings.database_owner_url)
        try:
            number: int = await owner.fetchval(query, *values)
            return number
        finally:
            await owner.close()


def kill_server(postgres: EmbeddedPostgres) -> None:
    """SIGKILL for a server and all its backends, as when the machine goes down."""
    postmaster = postgres.pid
    assert postmaster is not None
    backends = descendants(postmaster)
    for pid in (postmaster, *backends):
        kill(pid)


async def prepare(state: Path, postgres: EmbeddedPostgres) -> Settings:
    """The settings of a new platform on this server, its database migrated, and a free port."""
    address = postgres.address()
    await provision(address.dsn(), owner_password=PASSWORD, app_password=PASSWORD)
    settings = Settings(
        database_url=address.dsn(DATABASE, APP_ROLE, PASSWORD),
        database_owner_url=address.dsn(DATABASE, OWNER_ROLE, PASSWORD),
        blobs_url=f"file://{state}/blobs",
        secret=secrets.token_hex(32),
        state=str(state),
        port=0,
    )
    await migrate_database(settings)
    return msgspec.structs.replace(settings, port=free_port(settings))
