"""Tasks per second and CPU per task, against other task queues; the queue's latency by its size.

A task here is the whole of it: claimed with a proof of work, its result signed and submitted,
accepted, settled, and every transaction committed with fsync. Accepting needs neither a quorum nor
a run by the referee: all tasks have the same input, which the referee has run once, so each result
is compared with what is known (tier ``full``). That is the cheapest honest way, one attempt per
task. Devices solve and sign on their own time: proofs are made before, and signing is not counted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median, quantiles
from uuid import UUID

import asyncpg
import msgspec

from benchmarks import peers
from benchmarks.cluster import BenchWorld, Cluster, cluster
from benchmarks.cpu import cpu_s
from benchmarks.devices import AnswerError, Wire
from gstd.accounts import service as accounts
from gstd.bus.bus import Bus
from gstd.cli.output import out, table
from gstd.database.connection import Connection
from gstd.dispatch.queue import SqlQueue, met_before, running_on
from gstd.embedded.process import ManagedProcess
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.proof_of_work.challenge import Challenge
from gstd.proof_of_work.solver import solve
from gstd.protocol.execution import TaskInput
from gstd.protocol.jobs import InputRange, JobRequest, JobView
from gstd.protocol.types import Role
from gstd.protocol.work import Claimed, ClaimItem, SubmitItem, Submitted
from tests.servers import until
from tests.world import Device, outcome

ROUNDS = 3
WINDOW_S = 1.5
SETTLE_S = 0.3
WARM_CYCLES = 12
"""Tasks per device after which statements keep their plans."""

DEVICES = 8
BATCHES = (1, 16, 64)
GOALS_MS = {1: 10.0, 64: 3.0}
RATIO_GOAL = 1.0
"""At least the jobs per second of Celery."""

ROOM = {1: 500, 16: 1_200, 64: 1_800}
"""Tasks made per second of load. A window ends early when a device has done its share."""

CREDITS = 10**17
PROOFS_LIVE_S = 900

SIZES = (1_000, 100_000, 1_000_000)
JOBS = 1_000
CLASSES = 20
CALLS = 150
CALLS_WITHIN_S = 4.0
MANY = 16
FLATNESS_GOAL = 1.2
SUBMIT_GOAL_MS = 1_000.0
POSTS = 5
JOB_SIZES = (1_000, 1_000_000)


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of one way of doing tasks. CPU in milliseconds per task."""

    case: str
    batch: int
    devices: int
    tasks: int
    per_second: int
    ratio_to_celery: float | None = None
    cpu_ms: float
    """Of everything of ours: Python processes, PostgreSQL and Valkey."""

    goal_ms: float | None = None
    python_cpu_ms: float
    postgres_cpu_ms: float
    valkey_cpu_ms: float
    failed: int
    """Tasks that were not accepted, and requests that failed."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long one call takes with so many tasks in the queue."""

    step: str
    queued: int
    calls: int
    p50_ms: float
    p99_ms: float
    ratio_to_smallest: float
    goal: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that this part measures."""

    rates: list[Rate]
    peers: list[peers.Peer]
    latencies: list[Latency]


@dataclass(slots=True)
class Cpu:
    """Processor seconds at one moment."""

    python: float
    postgres: float
    valkey: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one window gave. CPU in milliseconds per task."""

    batch: int
    tasks: int
    failed: int
    per_second: float
    python_ms: float
    postgres_ms: float
    valkey_ms: float


@dataclass(slots=True)
class Samples:
    """All windows of one case, and their ratios to the peer of the same round."""

    batch: int
    all: list[Sample] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def add(self, sample: Sample, base: float | None) -> None:
        """One more window."""
        self.all.append(sample)
        if base:
            self.ratios.append(sample.per_second / base)


Cycle = Callable[[Device, list[ClaimItem]], Awaitable[int]]
"""Claims a batch and submits its results; returns how many were accepted."""


class Throughput:
    """Devices that do tasks for a moment, through use cases or over HTTP."""

    def __init__(self, servers: Cluster, world: BenchWorld) -> None:
        self.servers = servers
        self.world = world
        self.devices: list[Device] = []
        self.wires: dict[UUID, Wire] = {}
        self.owner = UUID(int=0)
        self.signing_s = 0.0
        """What devices computed inside this process."""

        self.failed = 0
        self.session: asyncpg.Connection[asyncpg.Record]

    async def prepare(self) -> None:
        """Devices, money, and one run by the referee that all results are compared with."""
        self.session = await self.servers.owner(self.world)
        self.owner = await self.world.account(Role.REQUESTER, credits=CREDITS)
        self.devices = [await self.world.device() for _ in range(DEVICES)]
        [task] = await self.tasks(1)
        claimed = await self.world.claim(self.devices[0], task)
        await self.world.submit(self.devices[0], claimed)
        await self.world.referee()

    async def tasks(self, count: int) -> list[UUID]:
        """Tasks of the one input."""
        job = await self.world.job(self.owner, range=None, inputs=[TaskInput()] * count)
        async with self.world.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id FROM task WHERE job_id = $1 ORDER BY index", job.id
            )
        return [row["id"] for row in rows]

    async def warm_up(self, cycle: Cycle) -> None:
        """Connections open, and have made the plans that they will keep."""
        loads = await self._loads(1, DEVICES * WARM_CYCLES)
        await self._together(cycle, loads, 60.0)

    async def window(self, cycle: Cycle, batch: int, python: Callable[[], float]) -> Sample:
        """Keep all devices busy for a moment."""
        room = int(ROOM[batch] * (SETTLE_S + WINDOW_S))
        loads = await self._loads(batch, max(room, DEVICES * batch))
        await self._together(cycle, loads, SETTLE_S)
        self.failed = 0
        before = self._cpu(python)
        start = time.perf_counter()
        count = await self._together(cycle, loads, WINDOW_S)
        took = time.perf_counter() - start
        after = self._cpu(python)
        assert count, "tasks are accepted"
        return Sample(
            batch=batch,
            tasks=count,
            failed=self.failed,
            per_second=count / took,
            python_ms=1000 * (after.python - before.python) / count,
            postgres_ms=1000 * (after.postgres - before.postgres) / count,
            valkey_ms=1000 * (after.valkey - before.valkey) / count,
        )

    async def _loads(self, batch: int, count: int) -> list[deque[list[ClaimItem]]]:
        """New tasks in batches for every device, with their proofs."""
        self.world.to_present()
        tasks = await self.tasks(count)
        loads = [
            deque(
                [
                    proved(self.world, device, task)
                    for task in tasks[number * batch : (number + 1) * batch]
                ]
                for number in range(place, len(tasks) // batch, DEVICES)
            )
            for place, device in enumerate(self.devices)
        ]
        await self.session.execute("VACUUM ANALYZE")
        self.world.to_present()
        return loads

    async def _together(
        self, cycle: Cycle, loads: Sequence[deque[list[ClaimItem]]], for_s: float
    ) -> int:
        """Until the time is over, or the first device has nothing left."""
        end = time.perf_counter() + for_s
        done = await asyncio.gather(
            *(self._busy(cycle, place, loads, end) for place in range(len(self.devices)))
        )
        return sum(done)

    async def _busy(
        self, cycle: Cycle, place: int, loads: Sequence[deque[list[ClaimItem]]], end: float
    ) -> int:
        done = 0
        while all(loads) and time.perf_counter() < end:
            items = loads[place].popleft()
            try:
                accepted = await cycle(self.devices[place], items)
            except (AnswerError, OSError, EOFError):
                accepted = 0
            self.failed += len(items) - accepted
            done += accepted
        return done

    def _cpu(self, python: Callable[[], float]) -> Cpu:
        return Cpu(python(), cpu_s(self.servers.postgres.pid), cpu_s(self.servers.valkey.pid))

    def own_cpu(self) -> float:
        """Of this process, without what devices do in it."""
        return time.process_time() - self.signing_s

    def _signed(self, device: Device, outcomes: Sequence[object]) -> list[SubmitItem]:
        start = time.process_time()
        results = [
            self.world.signed(device, claimed, outcome())
            for claimed in outcomes
            if isinstance(claimed, Claimed)
        ]
        self.signing_s += time.process_time() - start
        return results

    async def by_use_case(self, device: Device, items: list[ClaimItem]) -> int:
        """One transaction that claims, one that submits."""
        claimed = await self.world.claim_items(device, items)
        results = self._signed(device, claimed)
        return _accepted(await self.world.submit_all(device, results)) if results else 0

    async def by_http(self, device: Device, items: list[ClaimItem]) -> int:
        """Two signed requests."""
        wire = self.wires[device.actor.device_id]
        claimed = await wire.claims(items)
        results = self._signed(device, claimed.outcomes)
        return _accepted((await wire.submits(results)).outcomes) if results else 0


def _accepted(outcomes: Sequence[object]) -> int:
    return sum(isinstance(item, Submitted) and item.state == "accepted" for item in outcomes)


def proved(world: BenchWorld, device: Device, task: UUID) -> ClaimItem:
    """An offer with its proof: as many nonces as any offer asks for, but easy ones."""
    bits, count = 4, 16
    expires_at = int(world.clock.now().timestamp()) + PROOFS_LIVE_S
    challenge = Challenge(
        offer_id=new_id(),
        task_id=task,
        worker=device.key.public,
        bits=bits,
        count=count,
        expires_at=expires_at,
    )
    return ClaimItem(
        offer_id=challenge.offer_id,
        task_id=task,
        bits=bits,
        count=count,
        expires_at=expires_at,
        nonces=solve(challenge.prefix(world.pow_key), bits, count),
    )


async def rates(servers: Cluster) -> tuple[list[Rate], list[peers.Peer]]:
    """Every batch size through use cases and over HTTP, and all peers, round by round."""
    world = await servers.world("engine", Policy(chunk_tasks=100_000))
    load = Throughput(servers, world)
    await load.prepare()
    port, api = await servers.api(world)
    for device in load.devices:
        wire = Wire.of_device(port, device.key)
        load.wires[device.actor.device_id] = await servers.stack.enter_async_context(wire)
    for cycle in (load.by_use_case, load.by_http):
        await load.warm_up(cycle)
    rivals = peers.Peers(servers.postgres, servers.valkey)
    found: dict[str, Samples] = {}
    for _ in range(ROUNDS):
        own = [await load.window(load.by_use_case, batch, load.own_cpu) for batch in BATCHES]
        api_cpu = _cpu_of(api)
        http = [await load.window(load.by_http, batch, api_cpu) for batch in BATCHES]
        scheduler = await servers.scheduler(world)
        await _numbered(world)
        whole = await load.window(load.by_http, BATCHES[-1], _cpu_of(api, scheduler))
        await scheduler.stop()
        base = await rivals.round()
        names = [
            *(f"use cases, batches of {batch}" for batch in BATCHES),
            *(f"HTTP, batches of {batch}" for batch in BATCHES),
            f"HTTP, batches of {BATCHES[-1]}, with the scheduler",
        ]
        for name, sample in zip(names, [*own, *http, whole], strict=True):
            samples = found.setdefault(name, Samples(sample.batch))
            samples.add(sample, base)
    await api.stop()
    await world.assert_sound()
    return [_rate(name, samples) for name, samples in found.items()], rivals.figures()


def _cpu_of(*processes: ManagedProcess) -> Callable[[], float]:
    return lambda: sum(cpu_s(process.pid) for process in processes)


async def _numbered(world: BenchWorld) -> None:
    """Wait until the scheduler has caught up."""

    async def is_numbered() -> bool:
        async with world.database.connection() as connection:
            return not await connection.fetchval("SELECT EXISTS (SELECT FROM event_outbox)")

    await until(is_numbered, within_s=60)


def _rate(name: str, samples: Samples) -> Rate:
    python = median(sample.python_ms for sample in samples.all)
    postgres = median(sample.postgres_ms for sample in samples.all)
    valkey = median(sample.valkey_ms for sample in samples.all)
    return Rate(
        case=name,
        batch=samples.batch,
        devices=DEVICES,
        tasks=sum(sample.tasks for sample in samples.all),
        per_second=round(median(sample.per_second for sample in samples.all)),
        ratio_to_celery=round(median(samples.ratios), 2) if samples.ratios else None,
        cpu_ms=round(python + postgres + valkey, 2),
        goal_ms=GOALS_MS.get(samples.batch),
        python_cpu_ms=round(python, 3),
        postgres_cpu_ms=round(postgres, 3),
        valkey_cpu_ms=round(valkey, 3),
        failed=sum(sample.failed for sample in samples.all),
    )


# The queue by its size. These two are what to change when the queue does.

_QUEUED_JOBS = """
INSERT INTO job SELECT r.* FROM job j CROSS JOIN generate_series(1, $2::integer) AS n
CROSS JOIN LATERAL jsonb_populate_record(j, jsonb_build_object(
    'id', gen_random_uuid(),
    'class_id', (SELECT array_agg(id) FROM task_class) [1 + n % (SELECT count(*) FROM task_class)],
    'task_count', 10000000, 'made', 0
)) AS r
WHERE j.id = $1
"""
_CLASSES = """
INSERT INTO task_class (
    profile, module_hash, memory_bytes, fuel, wall_ms, min_trust, reward, asset, pool_id
)
SELECT profile, module_hash, memory_bytes, fuel, wall_ms - n, min_trust, reward, asset, pool_id
FROM task_class CROSS JOIN generate_series(1, $1::integer) AS n
"""
_COLUMNS = """
SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = 'task' AND is_generated = 'NEVER'
"""
_QUEUED_TASKS = """
INSERT INTO task ({columns}) SELECT {columns} FROM (
    SELECT r.* FROM task t CROSS JOIN generate_series($2::integer, $3::integer) AS n
JOIN (
    SELECT id, class_id, row_number() OVER (ORDER BY id) - 1 AS place FROM job WHERE id <> $1
) AS j ON j.place = n % (SELECT count(*) - 1 FROM job)
CROSS JOIN LATERAL jsonb_populate_record(t, jsonb_build_object(
    'id', gen_random_uuid(),
    'job_id', j.id,
    'class_id', j.class_id,
    'index', n,
    'order_key', t.order_key + 1024 * (n * 7919::bigint % 1000003),
    'deadline', t.deadline - interval '1 s' * (n * 31::bigint % 100000),
    'input_hash', '\\x' || encode(sha256(n::text::bytea), 'hex')
)) AS r
WHERE t.job_id = $1) AS copied
"""


async def fill(
    session: asyncpg.Connection[asyncpg.Record], job: UUID, first: int, last: int
) -> None:
    """Queue rows with these numbers, spread over 1000 jobs, copied from the one task of ``job``."""
    if first == 1:
        await session.execute(_CLASSES, CLASSES - 1)
        await session.execute(_QUEUED_JOBS, job, JOBS)
    columns = await session.fetchval(_COLUMNS)
    await session.execute(_QUEUED_TASKS.replace("{columns}", columns), job, first, last)
    assert await session.fetchval("SELECT count(*) FROM task") > last, "the rows are there"
    await session.execute("VACUUM ANALYZE")


async def heads(connection: Connection, world: BenchWorld, depth: int) -> list[UUID]:
    """The first tasks of every class and level, as the rows have them."""
    queue = SqlQueue(Bus(None))
    classes = [needs.id for needs in await queue.classes(connection)]
    found = await queue.heads(connection, classes, depth, world.clock.now())
    return [task.task_id for task in found.tasks]


async def look(connection: Connection, world: BenchWorld, devices: Sequence[Device]) -> list[UUID]:
    """What the matchmaker reads for so many waiting devices with one free slot each."""
    now = world.clock.now()
    ids = [device.actor.device_id for device in devices]
    await running_on(connection, ids, world.policy, now)
    tasks = await heads(connection, world, len(devices))
    since = now - timedelta(milliseconds=world.policy.same_device_after_ms)
    await met_before(connection, tasks, [device.actor.account_id for device in devices], since)
    return tasks


class QueueBySize:
    """Looks, claims and posted jobs against a queue that grows."""

    def __init__(self, servers: Cluster, world: BenchWorld) -> None:
        self.servers = servers
        self.world = world
        self.devices: list[Device] = []
        self.owner = UUID(int=0)
        self.api_key = ""
        self.found: list[Latency] = []

    async def measure(self) -> list[Latency]:
        """Everything, at each size."""
        self.devices = [await self.world.device() for _ in range(MANY)]
        await self._person()
        job = await self.world.job(self.owner)
        session = await self.servers.owner(self.world)
        port, api = await self.servers.api(self.world)
        async with Wire.of_person(port, self.api_key) as wire:
            filled = 0
            for size in SIZES:
                await fill(session, job.id, filled + 1, size)
                filled = size
                self.world.to_present()
                await self._looks(size)
                await self._claims(size)
                await self._posts(size, wire)
        await api.stop()
        return self.found

    async def _person(self) -> None:
        now = self.world.clock.now()
        made = await self.world.run(
            lambda conn: accounts.create_account(conn, "requester", [Role.REQUESTER], now)
        )
        self.owner, self.api_key = made.account.id, made.api_key
        await self.world.run(
            lambda conn: ledger.grant_test_credits(conn, new_id(), self.owner, CREDITS, now)
        )

    async def _looks(self, size: int) -> None:
        for count in (1, MANY):
            devices = self.devices[:count]

            async def once(devices: list[Device] = devices) -> None:
                async with self.world.database.connection() as connection:
                    assert await look(connection, self.world, devices)

            await self._timed(f"look for {_devices(count)}", size, once)

    async def _claims(self, size: int) -> None:
        async with self.world.database.connection() as connection:
            tasks = deque(await heads(connection, self.world, CLASSES * 3 * CALLS))
        alone = self.devices[0]
        proofs = deque(proved(self.world, alone, tasks.popleft()) for _ in range(CALLS + 2))

        async def claim_one() -> None:
            [claimed] = await self.world.claim_items(alone, [proofs.popleft()])
            assert isinstance(claimed, Claimed), claimed

        await self._timed("claim by 1 device", size, claim_one)
        times: list[float] = []
        for _ in range(CALLS // MANY):
            items = [proved(self.world, device, tasks.popleft()) for device in self.devices]
            times += await asyncio.gather(
                *(
                    self._seconds(device, item)
                    for device, item in zip(self.devices, items, strict=True)
                )
            )
        self._note(f"claim by {MANY} devices at once", size, times)

    async def _seconds(self, device: Device, item: ClaimItem) -> float:
        start = time.perf_counter()
        [claimed] = await self.world.claim_items(device, [item])
        assert isinstance(claimed, Claimed), claimed
        return time.perf_counter() - start

    async def _posts(self, size: int, wire: Wire) -> None:
        for tasks in JOB_SIZES:
            request = await self.world.request(range=InputRange(count=tasks))

            async def by_use_case(tasks: int = tasks) -> None:
                await self.world.job(self.owner, range=InputRange(count=tasks))

            async def by_http(request: JobRequest = request) -> None:
                key = {"Idempotency-Key": str(new_id())}
                await wire.post("/jobs", request, JobView, **key)

            name = f"post a job of {tasks:,} tasks"
            await self._timed(f"{name}, use case", size, by_use_case, POSTS, SUBMIT_GOAL_MS)
            await self._timed(f"{name}, HTTP", size, by_http, POSTS, SUBMIT_GOAL_MS)

    async def _timed(
        self,
        step: str,
        size: int,
        call: Callable[[], Awaitable[None]],
        calls: int = CALLS,
        goal_ms: float | None = None,
    ) -> None:
        """Time calls one after another; the first two only warm up."""
        times: list[float] = []
        end = time.perf_counter() + CALLS_WITHIN_S
        while len(times) < calls + 2 and (len(times) < 5 or time.perf_counter() < end):
            start = time.perf_counter()
            await call()
            times.append(time.perf_counter() - start)
        self._note(step, size, times[2:], goal_ms)

    def _note(self, step: str, size: int, times: list[float], goal_ms: float | None = None) -> None:
        p50 = 1000 * median(times)
        base = next((item.p50_ms for item in self.found if item.step == step), p50)
        self.found.append(
            Latency(
                step=step,
                queued=size,
                calls=len(times),
                p50_ms=round(p50, 2),
                p99_ms=round(1000 * quantiles(times, n=100, method="inclusive")[98], 2),
                ratio_to_smallest=round(p50 / base, 2),
                goal=goal_ms or FLATNESS_GOAL,
            )
        )


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


async def measure() -> Report:
    """Tasks, peers and the queue, on one cluster."""
    async with cluster() as servers:
        ours, others = await rates(servers)
        world = await servers.world("queue", Policy())
        latencies = await QueueBySize(servers, world).measure()
    return Report(rates=ours, peers=others, latencies=latencies)


def show(report: Report) -> None:
    """Print everything as tables."""
    _show_rates(report.rates)
    peers.show(report.peers)
    _show_latencies(report.latencies)


def _show_rates(found: Sequence[Rate]) -> None:
    rows = table(
        f"Whole tasks, {DEVICES} devices, PostgreSQL with fsync, medians of {ROUNDS} rounds",
        "",
        "#per second",
        "#ratio to Celery",
        "#goal",
        "#CPU ms",
        "#goal",
        "#Python",
        "#PostgreSQL",
        "#Valkey",
        "#failed",
    )
    for item in found:
        rows.add_row(
            item.case,
            f"{item.per_second:,}",
            "" if item.ratio_to_celery is None else f"{item.ratio_to_celery:.2f}",
            f"{RATIO_GOAL:.0f}",
            f"{item.cpu_ms:.2f}",
            "" if item.goal_ms is None else f"{item.goal_ms:.0f}",
            f"{item.python_cpu_ms:.2f}",
            f"{item.postgres_cpu_ms:.2f}",
            f"{item.valkey_cpu_ms:.2f}",
            str(item.failed),
        )
    out.print(rows)


def _show_latencies(found: Sequence[Latency]) -> None:
    rows = table(
        f"By queued tasks over {JOBS:,} jobs, milliseconds",
        "",
        "#queued",
        "#calls",
        "#p50",
        "#p99",
        "#ratio",
        "#goal",
    )
    for item in sorted(found, key=lambda item: item.step):
        rows.add_row(
            item.step,
            f"{item.queued:,}",
            str(item.calls),
            f"{item.p50_ms:.2f}",
            f"{item.p99_ms:.2f}",
            f"{item.ratio_to_smallest:.2f}",
            "" if item.goal is None else f"{item.goal:g}",
        )
    out.print(rows)


async def main() -> None:
    """Measure and print this part alone."""
    report = await measure()
    if "--json" in sys.argv:
        print(msgspec.json.encode(report).decode())
    else:
        show(report)


if __name__ == "__main__":
    asyncio.run(main())
