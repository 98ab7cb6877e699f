"""Claims and submits of 200 waiting devices: each in its own transaction, or all together.

Both ways run in turns on one PostgreSQL with fsync on, over the same pool of connections; a ratio
is the median of its rounds' ratios, for the machine is shared and its load changes. HTTP and the
blobs are left out, proofs of work and signatures are checked.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from uuid import UUID

import msgspec

from gstd.api.desk import Desk
from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus
from gstd.cli.output import out, table
from gstd.database.connection import Database
from gstd.database.migrate import migrate
from gstd.database.provision import DATABASE, OWNER_ROLE, provision
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.kernel.clock import ManualClock, SystemClock
from gstd.kernel.errors import Refusal
from gstd.kernel.settings import Policy, Settings
from gstd.protocol.jobs import InputRange
from gstd.protocol.work import Claimed, ClaimItem, SubmitItem, Submitted
from tests.world import Device, World, outcome

PASSWORD = "of-a-benchmark"  # noqa: S105 - the cluster lives for one measurement
DEVICES = 200
CONNECTIONS = 16
EACH = 8
"""Tasks of each device in each round."""

ROUNDS = 3
GOAL = 4.0
"""What the evidence asks of coalesced claims, against direct ones."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One step done one way: medians over the rounds."""

    step: str
    way: str
    per_second: int
    p50_ms: float
    p99_ms: float
    ratio: float | None = None
    goal: float | None = None


class Sample(msgspec.Struct, frozen=True):
    """One round: what was done in a second, and how long each call took."""

    per_second: float
    times_s: list[float]


Serve = Callable[[Device, int], Awaitable[Sequence[object]]]
"""Does the n-th thing that a device wants done."""


class Bench:
    """Devices with tasks of their own to claim."""

    def __init__(self, world: World, desk: Desk, devices: Sequence[Device]) -> None:
        self.world = world
        self.desk = desk
        self.devices = devices
        self._start = 0

    async def round(self, *, together: bool) -> tuple[Sample, Sample]:
        """All devices claim and then submit, each one thing after the other."""
        tasks = iter(await self._tasks())
        solved = {
            device: [self.world.solved(device, next(tasks)) for _ in range(EACH)]
            for device in self.devices
        }
        held: dict[Device, list[Claimed]] = {device: [] for device in self.devices}

        async def claim(device: Device, n: int) -> None:
            item = solved[device][n]
            way = self.desk.claim(device.actor, [item]) if together else self._claim(device, item)
            [claimed] = await way
            assert isinstance(claimed, Claimed), claimed
            held[device].append(claimed)

        claims = await self._timed(claim)
        results = {
            device: [self.world.signed(device, claimed, outcome()) for claimed in held[device]]
            for device in self.devices
        }

        async def submit(device: Device, n: int) -> None:
            item = results[device][n]
            way = self.desk.submit(device.actor, [item]) if together else self._submit(device, item)
            [submitted] = await way
            assert isinstance(submitted, Submitted), submitted

        return claims, await self._timed(submit)

    async def _claim(self, device: Device, item: ClaimItem) -> list[Claimed | Refusal]:
        return await self.world.claim_items(device, [item])

    async def _submit(self, device: Device, item: SubmitItem) -> list[Submitted | Refusal]:
        return await self.world.submit_all(device, [item])

    async def _tasks(self) -> list[UUID]:
        job = await self.world.job(range=InputRange(count=DEVICES * EACH, start=self._start))
        self._start += DEVICES * EACH
        async with self.world.database.connection() as connection:
            rows = await connection.fetch("SELECT id FROM task WHERE job_id = $1", job.id)
        return [row["id"] for row in rows]

    async def _timed(self, do: Callable[[Device, int], Awaitable[None]]) -> Sample:
        async def live(device: Device) -> list[float]:
            times = []
            for n in range(EACH):
                start = time.perf_counter()
                await do(device, n)
                times.append(time.perf_counter() - start)
            return times

        start = time.perf_counter()
        times = await asyncio.gather(*map(live, self.devices))
        return Sample(DEVICES * EACH / (time.perf_counter() - start), list(chain(*times)))


class NoBlobs(Blobs):
    """A store that keeps nothing: the disk is PostgreSQL's here."""

    def __init__(self) -> None: ...

    async def put(self, data: bytes) -> bytes:
        return data


async def measure() -> list[Figure]:
    """Both steps, both ways."""
    async with _bench() as bench:
        await bench.round(together=False)  # connections learn the statements
        apart, together = [], []
        for _ in range(ROUNDS):
            apart.append(await bench.round(together=False))
            together.append(await bench.round(together=True))
    figures = []
    for step, place in (("claim", 0), ("submit", 1)):
        direct, coalesced = ([pair[place] for pair in way] for way in (apart, together))
        ratios = [b.per_second / a.per_second for a, b in zip(direct, coalesced, strict=True)]
        figures.append(_figure(step, "one transaction each", direct))
        figures.append(_figure(step, "coalesced", coalesced, round(median(ratios), 1)))
    return figures


def _figure(step: str, way: str, samples: Sequence[Sample], ratio: float | None = None) -> Figure:
    times = [quantiles(sample.times_s, n=100) for sample in samples]
    return Figure(
        step=step,
        way=way,
        per_second=round(median(sample.per_second for sample in samples)),
        p50_ms=round(1000 * median(time[49] for time in times), 1),
        p99_ms=round(1000 * median(time[98] for time in times), 1),
        ratio=ratio,
        goal=GOAL if ratio and step == "claim" else None,
    )


def show(figures: Sequence[Figure]) -> None:
    """Print the figures as a table."""
    title = f"{DEVICES} waiting devices, PostgreSQL with fsync, medians of {ROUNDS} rounds"
    rows = table(title, "step", "way", "#per second", "#p50 ms", "#p99 ms", "#ratio", "#goal")
    for item in figures:
        ends = ("" if value is None else f"{value:.1f}" for value in (item.ratio, item.goal))
        rows.add_row(
            item.step, item.way, f"{item.per_second:,}", str(item.p50_ms), str(item.p99_ms), *ends
        )
    out.print(rows)


@asynccontextmanager
async def _bench() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="gstd-bench-") as folder:
        server = EmbeddedPostgres(Path(folder))
        address = await server.start()
        try:
            await provision(address.dsn(), owner_password=PASSWORD, app_password=PASSWORD)
            await migrate(address.dsn(DATABASE, OWNER_ROLE, PASSWORD))
            url = address.dsn(DATABASE, "gstd_app", PASSWORD)
            database = await Database.connect(url, size=CONNECTIONS)
            policy = Policy(chunk_tasks=DEVICES * EACH)
            world = World(database, NoBlobs(), ManualClock(SystemClock().now()), policy)
            async with Bus.open(None) as bus:
                desk = Desk(
                    database,
                    bus,
                    world.blobs,
                    policy,
                    world.clock,
                    world.pow_key,
                    Settings().batch_items,
                )
                yield Bench(world, desk, [await world.device() for _ in range(DEVICES)])
                await desk.close()
            await database.close()
        finally:
            await server.stop()


async def main() -> None:
    """Measure and print this part alone."""
    figures = await measure()
    if "--json" in sys.argv:
        print(msgspec.json.encode(figures).decode())
    else:
        show(figures)


if __name__ == "__main__":
    asyncio.run(main())
