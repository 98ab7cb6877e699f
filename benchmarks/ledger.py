"""Transfers per second of the ledger, against what the same PostgreSQL commits at best.

Every figure is taken with fsync on, in several short rounds that run all cases one after another;
a ratio is the median of its rounds' ratios, for the machine is shared and its load changes. Calls
that failed are counted and shown.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import msgspec

from gstd.cli.output import out, table
from gstd.database.connection import APP_ROLE, Connection, Database
from gstd.database.migrate import migrate
from gstd.database.provision import DATABASE, OWNER_ROLE, provision
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.events import service as events
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy

if TYPE_CHECKING:
    Session = asyncpg.Connection[asyncpg.Record]
else:
    Session = asyncpg.Connection
Call = Callable[[], Awaitable[int]]
"""One call of a client; returns how many rows or transfers it committed."""

Maker = Callable[[Session, int], Awaitable[Call]]
"""Prepares what the client of that number does."""

PASSWORD = "of-a-benchmark"  # noqa: S105 - the cluster lives for one measurement
ROUNDS = 5
WINDOW_S = 0.65
WARM_UP_S = 0.1
ACCOUNTS = 1_000
TASKS = 20_000
BALANCE = 1_000_000_000_000_000
AUDITED_WINDOW_S = 3.0
"""Long enough for the numbering to work and rest several times, as it does all day."""
SEAL_EVERY_S = 1.0

_COLUMNS = """kind, ref, seq, asset, debit, credit, amount,
    debit_after, credit_after, debit_version, credit_version, at"""
_BARE = f"""
INSERT INTO bare ({_COLUMNS}) VALUES ('correction', $1, 0, 'TEST', $2, $3, $4, $4, $4, 1, 1, $5)
"""  # noqa: S608 - our own names
_BARE_ROWS = f"""
INSERT INTO bare ({_COLUMNS})
SELECT 'correction', p.ref, 0, 'TEST', p.debit, p.credit, p.amount, p.amount, p.amount, 1, 1, $5
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) AS p (ref, debit, credit, amount)
"""  # noqa: S608
_POST = """
SELECT ledger.post(ARRAY[ROW('correction', $1, 0, 'TEST', $2, $3, $4)::ledger.posting], $5)
"""
_POST_ROWS = """
SELECT ledger.post(array_agg(
    ROW('correction', p.ref, 0, 'TEST', p.debit, p.credit, p.amount)::ledger.posting
), $5) FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) AS p (
    ref, debit, credit, amount
)
"""
_SETTLE = """
SELECT count(*) FROM ledger.settle(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[],
    array_fill($7::timestamptz, ARRAY[cardinality($1::uuid[])]),
    array_fill(NULL::timestamptz, ARRAY[cardinality($1::uuid[])]), 19, $8
)
"""
_OPEN = """
INSERT INTO ledger.account (owner, kind, asset)
SELECT owner, $2::text::ledger.account_kind, 'TEST' FROM unnest($1::uuid[]) AS owner RETURNING id
"""

_BROKEN = """
SELECT invariant, what FROM ledger.broken
WHERE what <> ALL (ARRAY(SELECT 'job ' || job_id FROM ledger.account WHERE id = ANY ($1))) LIMIT 10
"""
_OPEN_ESCROWS = """
INSERT INTO ledger.account (owner, kind, asset, job_id)
SELECT owner, 'escrow', 'TEST', gen_random_uuid() FROM unnest($1::uuid[]) AS owner RETURNING id
"""


def _sealer() -> Callable[[Connection], Awaitable[int]] | None:
    """What seals the numbered log, if this version has it."""
    if importlib.util.find_spec("gstd.events.audit") is None:
        return None
    audit = importlib.import_module("gstd.events.audit")
    key = audit.log_key(b"\x01" * 32)

    async def seal(connection: Connection) -> int:
        sealed: int = await audit.seal(connection, key, _now(), events.NUMBERED_AT_ONCE)
        return sealed

    return seal


_SEAL = _sealer()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured case: its median speed, and its median ratio to what it is compared with."""

    case: str
    connections: int
    per_second: int
    compared_with: str | None = None
    ratio: float | None = None
    lowest_ratio: float | None = None
    highest_ratio: float | None = None
    goal: float | None = None
    failed_calls: int = 0
    client_cpu: float
    """Share of one processor that the measuring process itself took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load: how many clients do what, and the case of the same round it is measured by."""

    name: str
    connections: int
    maker: Maker
    against: str | None = None
    goal: float | None = None
    window_s: float = WINDOW_S
    as_application: bool = False
    is_audited: bool = False


@dataclass(slots=True)
class Samples:
    """What the rounds of one case gave."""

    speeds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    failed: int = 0


@dataclass(slots=True)
class Bench:
    """The cluster under measurement."""

    owner: list[Session]
    application: list[Session]
    database: Database
    spendable: list[int] = field(default_factory=list)
    escrows: list[int] = field(default_factory=list)
    fee: int = 0
    tasks: list[UUID] = field(default_factory=list)
    numbered: int = 0
    backlog: int = 0
    """The most events that were not numbered yet when the load ended."""
    sealed_at: float = 0.0

    async def fill(self) -> None:
        """Accounts with money, and a job whose tasks can be settled."""
        head = self.owner[0]
        await head.execute("CREATE TABLE bare (LIKE ledger.transfer INCLUDING IDENTITY)")
        await head.execute("ALTER TABLE bare ADD PRIMARY KEY (id)")
        owners = [new_id() for _ in range(ACCOUNTS)]
        self.spendable = [row[0] for row in await head.fetch(_OPEN, owners, "available")]
        self.escrows = [row[0] for row in await head.fetch(_OPEN_ESCROWS, owners)]
        self.fee = (await head.fetch(_OPEN, [None], "fee"))[0][0]
        issued = (await head.fetch(_OPEN, [None], "issued"))[0][0]
        accounts = self.spendable
        await head.execute(
            _POST_ROWS,
            [new_id() for _ in accounts],
            [issued] * len(accounts),
            accounts,
            [BALANCE] * len(accounts),
            _now(),
        )
        job = new_id()
        self.tasks = [new_id() for _ in range(TASKS)]
        await head.fetch(
            "SELECT ledger.fund_jobs(ARRAY[$1::uuid], ARRAY[$2::uuid],"
            " ARRAY['TEST']::ledger.asset[], ARRAY[$3::bigint], $4)",
            job,
            owners[0],
            TASKS * 1_000_000_000,
            _now(),
        )
        await head.execute("SELECT ledger.allot($1, $2, 1000000000)", job, self.tasks)
        await head.execute("VACUUM ANALYZE")
        await head.execute("TRUNCATE public.event_outbox")

    def cases(self) -> list[Case]:
        """Everything that is measured, in the order of one round."""
        found: list[Case] = []
        for count in (16, 64):
            bare = f"one row per commit, {count} connections"
            found.append(Case(name=bare, connections=count, maker=self._bare))
            single = f"one transfer per call, {count} connections"
            found.append(
                Case(name=single, connections=count, maker=self._single, against=bare, goal=0.7)
            )
        for size, goal in ((100, None), (1000, 0.35)):
            for count in (1, 2):
                bare = f"{size} rows per statement, {count} connections"
                found.append(Case(name=bare, connections=count, maker=self._bare_rows(size)))
                batch = f"{size} transfers per call, {count} connections"
                found.append(
                    Case(
                        name=batch,
                        connections=count,
                        maker=self._batch(size),
                        against=bare,
                        goal=goal,
                    )
                )
        found += [
            Case(
                name="settle of 1000 attempts",
                connections=1,
                maker=self._settle,
                as_application=True,
                against="1000 rows per statement, 1 connections",
            ),
            Case(
                name="credits to 1000 escrow accounts",
                connections=16,
                maker=self._credit(is_hot=False),
            ),
            Case(
                name="credits to the one fee account",
                connections=16,
                maker=self._credit(is_hot=True),
                against="credits to 1000 escrow accounts",
                goal=0.95,
            ),
            Case(
                name="one transfer per call, not numbered",
                connections=16,
                maker=self._single,
                window_s=AUDITED_WINDOW_S,
            ),
            Case(
                name="one transfer per call, numbered",
                connections=16,
                maker=self._single,
                window_s=AUDITED_WINDOW_S,
                is_audited=True,
                against="one transfer per call, not numbered",
                goal=0.95,
            ),
        ]
        return found

    async def window(self, case: Case, samples: Samples) -> None:
        """Load the cluster with one case for a moment."""
        sessions = (self.application if case.as_application else self.owner)[: case.connections]
        calls = [await case.maker(session, n) for n, session in enumerate(sessions)]
        audit = (
            [asyncio.create_task(self._audit(time.perf_counter() + WARM_UP_S + case.window_s))]
            if case.is_audited
            else []
        )
        start = time.perf_counter() + WARM_UP_S
        end = start + case.window_s
        cpu = time.process_time()
        results = await asyncio.gather(*(_client(call, start, end) for call in calls))
        took = time.perf_counter() - start
        samples.cpu.append((time.process_time() - cpu) / (took + WARM_UP_S))
        samples.speeds.append(sum(speed for speed, _ in results))
        samples.failed += sum(failed for _, failed in results)
        for task in audit:
            await task  # had it failed, this would say so
        await self.owner[0].execute("TRUNCATE public.event_outbox")

    async def broken(self) -> list[str]:
        """The ledger's promises that do not hold after all this.

        The escrow accounts of the uncontended case belong to no job, which is one.
        """
        rows = await self.owner[0].fetch(_BROKEN, self.escrows)
        return [f"{row[0]}: {row[1]}" for row in rows]

    async def _audit(self, end: float) -> None:
        """What the scheduler does beside the transfers."""
        while time.perf_counter() < end:
            began = time.perf_counter()
            moved = await self.database.run(events.number)
            worked_s = time.perf_counter() - began
            if _SEAL is not None and time.monotonic() - self.sealed_at >= SEAL_EVERY_S:
                self.sealed_at = time.monotonic()
                await self.database.run(_SEAL)
            self.numbered += moved
            if moved < events.NUMBERED_AT_ONCE:
                await asyncio.sleep(events.rest_after(worked_s, Policy().background_percent))
        self.backlog = max(self.backlog, await self.database.run(_waiting))

    def _pair(self) -> tuple[int, int]:
        debit, credit = random.sample(self.spendable, 2)
        return debit, credit

    async def _one(self, session: Session, sql: str, pick: Callable[[], tuple[int, int]]) -> Call:
        statement = await session.prepare(sql)

        async def call() -> int:
            amount = random.randint(1, 1_000)  # noqa: S311
            await statement.fetchval(new_id(), *pick(), amount, _now())
            return 1

        return call

    async def _bare(self, session: Session, _: int) -> Call:
        return await self._one(session, _BARE, self._pair)

    async def _single(self, session: Session, _: int) -> Call:
        return await self._one(session, _POST, self._pair)

    def _credit(self, *, is_hot: bool) -> Maker:
        def pick() -> tuple[int, int]:
            credit = self.fee if is_hot else random.choice(self.escrows)  # noqa: S311
            return random.choice(self.spendable), credit  # noqa: S311

        async def make(session: Session, _: int) -> Call:
            return await self._one(session, _POST, pick)

        return make

    async def _many(self, session: Session, sql: str, size: int) -> Call:
        statement = await session.prepare(sql)

        async def call() -> int:
            pairs = [self._pair() for _ in range(size)]
            await statement.fetchval(
                [new_id() for _ in range(size)],
                [debit for debit, _ in pairs],
                [credit for _, credit in pairs],
                [random.randint(1, 1_000) for _ in range(size)],  # noqa: S311
                _now(),
            )
            return size

        return call

    def _bare_rows(self, size: int) -> Maker:
        return lambda session, _: self._many(session, _BARE_ROWS, size)

    def _batch(self, size: int) -> Maker:
        return lambda session, _: self._many(session, _POST_ROWS, size)

    async def _settle(self, session: Session, _: int) -> Call:
        statement = await session.prepare(_SETTLE)
        workers = [new_id() for _ in range(100)]
        size = 1_000

        async def call() -> int:
            start = random.randrange(0, TASKS - size)  # noqa: S311
            settled: int = await statement.fetchval(
                self.tasks[start : start + size],
                [new_id() for _ in range(size)],
                [workers[n % 100] for n in range(size)],
                [workers[n % 100] for n in range(size)],
                [95_000] * size,
                [5_000] * size,
                _now() + timedelta(days=1),
                _now(),
            )
            return 2 * settled  # a reward and a fee each

        return call


async def measure() -> list[Figure]:
    """Every case of the ledger."""
    async with _bench() as bench:
        cases = bench.cases()
        samples = {case.name: Samples() for case in cases}
        for _ in range(ROUNDS):
            for case in cases:
                await bench.window(case, samples[case.name])
        broken = await bench.broken()
        assert not broken, broken
        assert bench.numbered > 0, "the numbering ran"
        assert bench.backlog < 2 * events.NUMBERED_AT_ONCE, "the numbering keeps up"
    return [_figure(case, samples) for case in cases]


def show(figures: Sequence[Figure]) -> None:
    """Print the figures as a table."""
    rows = table(
        f"Ledger, PostgreSQL with fsync, medians of {ROUNDS} rounds",
        "",
        "#per second",
        "#ratio",
        "#lowest",
        "#highest",
        "#goal",
        "#failed",
        "#client CPU",
    )
    for item in figures:
        rows.add_row(
            item.case,
            f"{item.per_second:,}",
            *(
                "" if value is None else f"{value:.2f}"
                for value in (item.ratio, item.lowest_ratio, item.highest_ratio, item.goal)
            ),
            str(item.failed_calls),
            f"{item.client_cpu:.0%}",
        )
    out.print(rows)


def _figure(case: Case, samples: dict[str, Samples]) -> Figure:
    own = samples[case.name]
    ratios: list[float] = []
    if case.against is not None:
        others = samples[case.against].speeds
        ratios = [mine / other for mine, other in zip(own.speeds, others, strict=True)]
    return Figure(
        case=case.name,
        connections=case.connections,
        per_second=round(median(own.speeds)),
        compared_with=case.against,
        ratio=round(median(ratios), 3) if ratios else None,
        lowest_ratio=round(min(ratios), 3) if ratios else None,
        highest_ratio=round(max(ratios), 3) if ratios else None,
        goal=case.goal,
        failed_calls=own.failed,
        client_cpu=round(median(own.cpu), 2),
    )


async def _client(call: Call, start: float, end: float) -> tuple[float, int]:
    """Call until the end; the rate of what was committed after the start, and failed calls."""
    done = failed = 0
    begin = now = time.perf_counter()
    while now < end:
        try:
            count = await call()
        except (asyncpg.PostgresError, OSError):
            failed, count = failed + 1, 0
        now = time.perf_counter()
        if begin >= start:
            done += count
        elif now >= start:
            begin = now
    return done / (now - begin) if now > begin else 0.0, failed


async def _waiting(connection: Connection) -> int:
    rows: int = await connection.fetchval("SELECT count(*) FROM public.event_outbox")
    return rows


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def _bench() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="gstd-bench-") as folder:
        server = EmbeddedPostgres(Path(folder))
        address = await server.start()
        try:
            await provision(address.dsn(), owner_password=PASSWORD, app_password=PASSWORD)
            owner = address.dsn(DATABASE, OWNER_ROLE, PASSWORD)
            application = address.dsn(DATABASE, APP_ROLE, PASSWORD)
            await migrate(owner)
            settings = {"jit": "off", "timezone": "UTC"}
            bench = Bench(
                [await asyncpg.connect(owner, server_settings=settings) for _ in range(64)],
                [await asyncpg.connect(application, server_settings=settings) for _ in range(2)],
                await Database.connect(application, size=2),
            )
            await bench.fill()
            yield bench
            for session in (*bench.owner, *bench.application):
                await session.close()
            await bench.database.close()
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
