"""Stores and a world for measurements: PostgreSQL with fsync on, Valkey, the real API process."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import msgspec

from gstd.blobs.store import Blobs
from gstd.cli.stack import free_port, gstd_command
from gstd.database.connection import APP_ROLE, Database
from gstd.database.migrate import migrate
from gstd.database.provision import OWNER_ROLE, provision
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.embedded.process import ManagedProcess
from gstd.embedded.state import private_folder
from gstd.embedded.valkey import EmbeddedValkey
from gstd.kernel.clock import ManualClock, SystemClock
from gstd.kernel.settings import Policy, Settings
from gstd.sdk.errors import SdkError
from gstd.sdk.transport import Call, Transport
from tests.world import SECRET, World

PASSWORD = "of-a-benchmark"  # noqa: S105 - the cluster lives for one measurement


class BenchWorld(World):
    """A world whose clock is as late as it is."""

    settings: Settings

    def to_present(self) -> None:
        """Its clock stands still between two calls."""
        self.clock = ManualClock(SystemClock().now())


@dataclass(slots=True)
class Cluster:
    """The running servers."""

    state: Path
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    stack: AsyncExitStack

    async def world(self, name: str, policy: Policy) -> BenchWorld:
        """A new migrated database with a world in it."""
        address = self.postgres.address()
        await provision(
            address.dsn(), owner_password=PASSWORD, app_password=PASSWORD, database=name
        )
        await migrate(address.dsn(name, OWNER_ROLE, PASSWORD))
        url = address.dsn(name, APP_ROLE, PASSWORD)
        database = await Database.connect(url, size=20)
        self.stack.push_async_callback(database.close)
        blobs_url = f"file://{self.state}/{name}/blobs"
        private_folder(private_folder(self.state / name) / "logs")
        clock = ManualClock(SystemClock().now())
        world = BenchWorld(database, Blobs.open(blobs_url), clock, policy)
        world.settings = Settings(
            database_url=url,
            database_owner_url=address.dsn(name, OWNER_ROLE, PASSWORD),
            valkey_url=self.valkey.address().url(),
            blobs_url=blobs_url,
            secret=SECRET.hex(),
            state=str(self.state / name),
            policy=policy,
        )
        return world

    async def owner(self, world: BenchWorld) -> asyncpg.Connection[asyncpg.Record]:
        """A session that may write rows directly."""
        session = await asyncpg.connect(world.settings.database_owner_url)
        self.stack.push_async_callback(session.close)
        return session

    async def api(self, world: BenchWorld) -> tuple[int, ManagedProcess]:
        """The API in a process of its own, as ``gstd up`` starts it; its port."""
        settings = msgspec.structs.replace(world.settings, port=0)
        settings = msgspec.structs.replace(settings, port=free_port(settings))
        url = f"http://{settings.host}:{settings.port}"

        async def is_ready() -> bool:
            try:
                async with Transport(url, None) as transport:
                    await transport.send(Call(method="GET", path="/health"))
            except SdkError:
                return False
            return True

        process = ManagedProcess(gstd_command(settings, "api", "api"), ready=is_ready)
        self.stack.push_async_callback(process.stop)
        await process.start()
        return settings.port, process

    async def scheduler(self, world: BenchWorld) -> ManagedProcess:
        """The scheduler in a process of its own."""
        process = ManagedProcess(gstd_command(world.settings, "scheduler", "scheduler"))
        self.stack.push_async_callback(process.stop)
        await process.start()
        return process


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """Both servers on an empty folder."""
    with tempfile.TemporaryDirectory(prefix="gstd-bench-") as folder:
        state = Path(folder)
        async with AsyncExitStack() as stack:
            postgres, valkey = EmbeddedPostgres(state), EmbeddedValkey(state)
            for server in (postgres, valkey):
                stack.push_async_callback(server.stop)
                await server.start()
            yield Cluster(state, postgres, valkey, stack)
