"""SQL statements per claim and per settled result, one at a time and in batches of 64."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, Database
from gstd.database.migrate import migrate
from gstd.database.provision import DATABASE, OWNER_ROLE, provision
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.kernel.clock import ManualClock, SystemClock
from gstd.protocol.jobs import InputRange
from gstd.protocol.types import Tier
from gstd.protocol.work import Claimed
from tests.world import World, outcome

T = TypeVar("T")

BATCH = 64
PASSWORD = "of-a-benchmark"  # noqa: S105 - the cluster lives for one measurement


class Statements(msgspec.Struct, frozen=True, kw_only=True):
    """What one step costs in SQL statements, BEGIN and COMMIT included."""

    step: str
    single: int
    batch: int
    per_item_in_batch: float


class CountingWorld(World):
    """A world that counts every statement it sends."""

    statements = 0

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def counted(connection: Connection) -> T:
            self.statements += 2  # BEGIN and COMMIT
            with connection.query_logger(self._count):
                return await work(connection)

        return await self.database.run(counted)

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def counted(connection: Connection) -> T:
            with connection.query_logger(self._count):
                return await work(connection)

        return await super().read(counted)

    def _count(self, _: object) -> None:
        self.statements += 1

    async def cost(self, work: Awaitable[object]) -> int:
        """Statements that this work sends."""
        before = self.statements
        await work
        return self.statements - before


async def measure() -> list[Statements]:
    """Each step of a task's life, for one task and for a batch."""
    async with _world() as world:
        await _life(world, 1, 0)  # connections learn the types they meet
        single, batch = await _life(world, 1, 1), await _life(world, BATCH, 2)
    return [
        Statements(
            step=step,
            single=single[step],
            batch=batch[step],
            per_item_in_batch=round(batch[step] / BATCH, 3),
        )
        for step in single
    ]


async def _life(world: CountingWorld, tasks: int, number: int) -> dict[str, int]:
    """Statements of claim and submit on both tiers, for so many tasks at once.

    Every life has inputs of its own, for work that the referee knows is not run again.
    """
    first, second = await world.device(), await world.device()
    full = await _tasks(world, InputRange(count=tasks, start=1_000 * number), Tier.FULL)
    quorum = await _tasks(
        world, InputRange(count=tasks, start=1_000_000 + 1_000 * number), Tier.QUORUM
    )
    before = world.statements
    held = await world.claim_all(first, full)
    costs = {"claim": world.statements - before}
    submits = [
        world.signed(first, claimed, outcome()) for claimed in held if isinstance(claimed, Claimed)
    ]
    costs["submit, referee asked (full)"] = await world.cost(world.submit_all(first, submits))
    costs["referee's verdicts, settled (full)"] = await world.cost(world.referee())
    for device in (first, second):
        claims = await world.claim_all(device, quorum)
        results = [
            world.signed(device, claimed, outcome())
            for claimed in claims
            if isinstance(claimed, Claimed)
        ]
        cost = await world.cost(world.submit_all(device, results))
    costs["submit that agrees, settled (quorum)"] = cost
    return costs


async def _tasks(world: CountingWorld, inputs: InputRange, tier: Tier) -> list[UUID]:
    job = await world.job(range=inputs, tier=tier)
    return [task.id for task in await world.tasks(job.id)]


@asynccontextmanager
async def _world() -> AsyncIterator[CountingWorld]:
    with tempfile.TemporaryDirectory(prefix="gstd-bench-") as folder:
        server = EmbeddedPostgres(Path(folder))
        address = await server.start()
        try:
            await provision(address.dsn(), owner_password=PASSWORD, app_password=PASSWORD)
            await migrate(address.dsn(DATABASE, OWNER_ROLE, PASSWORD))
            database = await Database.connect(address.dsn(DATABASE, "gstd_app", PASSWORD))
            blobs = Blobs.open(f"file://{folder}/blobs")
            yield CountingWorld(database, blobs, ManualClock(SystemClock().now()))
            await database.close()
        finally:
            await server.stop()
