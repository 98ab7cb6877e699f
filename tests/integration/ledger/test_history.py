"""The history of money equals what a plain loop over all transfers says, and stays fast."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from gstd.database.connection import Connection, Database
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.ids import new_id
from gstd.ledger import frontier, history, repair, statements
from gstd.ledger import service as ledger
from gstd.ledger.filters import Filters
from gstd.ledger.frontier import Deposit, Withdrawal
from gstd.ledger.repair import Contest, Ruling
from gstd.ledger.service import Funding, RefereeCharge, Settlement
from gstd.ledger.statements import BadCursorError
from gstd.protocol.money import Direction, Part, StatementRow, Total, TransferKind
from gstd.protocol.types import Asset
from tests.integration.ledger.scenes import everything

START = datetime(2026, 3, 1, 22, tzinfo=UTC)
MOVES = (
    "job settle settle settle referee refund vest reverse forfeit dispute withdraw".split()  # noqa: SIM905
)


class Ledger(msgspec.Struct):
    """Everything there is, read plainly."""

    accounts: dict[int, dict[str, Any]]
    transfers: list[dict[str, Any]]
    tasks: dict[UUID, UUID]
    """By any reference of a movement: the task it is about."""

    attempts: dict[UUID, UUID]
    jobs: dict[UUID, UUID]

    @classmethod
    async def read(cls, database: Database) -> Ledger:
        async with database.connection() as conn:
            tasks = {
                row["ref"]: row["task_id"]
                for row in await conn.fetch(
                    "SELECT id AS ref, task_id FROM ledger.earning UNION ALL "
                    "SELECT run_id, task_id FROM ledger.referee_charge UNION ALL "
                    "SELECT dispute_id, task_id FROM ledger.freeze UNION ALL "
                    "SELECT task_id, task_id FROM ledger.escrow"
                )
            }
            return cls(
                accounts={
                    row["id"]: dict(row) for row in await conn.fetch("SELECT * FROM ledger.account")
                },
                transfers=[
                    dict(row)
                    for row in await conn.fetch("SELECT * FROM ledger.transfer ORDER BY id")
                ],
                tasks=tasks,
                attempts={
                    row["id"]: row["attempt_id"]
                    for row in await conn.fetch("SELECT id, attempt_id FROM ledger.earning")
                },
                jobs={
                    row["task_id"]: row["job_id"]
                    for row in await conn.fetch("SELECT task_id, job_id FROM ledger.escrow")
                },
            )

    def owners(self) -> list[UUID]:
        return sorted({a["owner"] for a in self.accounts.values() if a["owner"] is not None})

    def legs(self, owner: UUID) -> list[tuple[dict[str, Any], StatementRow]]:
        """All rows of an owner, newest first."""
        found = []
        for transfer in self.transfers:
            for leg, mine, other in ((0, "debit", "credit"), (1, "credit", "debit")):
                account, party = (self.accounts[transfer[side]] for side in (mine, other))
                if account["owner"] == owner:
                    row = self._row(transfer, leg, account, party)
                    found.append(((transfer["at"], transfer["id"], leg), transfer, row))
        found.sort(key=lambda item: item[0], reverse=True)
        return [(transfer, row) for _, transfer, row in found]

    def _row(
        self, transfer: dict[str, Any], leg: int, own: dict[str, Any], other: dict[str, Any]
    ) -> StatementRow:
        after = transfer["credit_after" if leg else "debit_after"]
        task = self.tasks.get(transfer["ref"])
        return StatementRow(
            transfer_id=transfer["id"],
            at=transfer["at"],
            kind=TransferKind(transfer["kind"]),
            part=Part(own["kind"]),
            direction=Direction.IN if leg else Direction.OUT,
            amount_nano=str(transfer["amount"] if leg else -transfer["amount"]),
            balance_after_nano=None if after is None else str(after),
            asset=Asset(transfer["asset"]),
            counterparty="",
            job_id=own["job_id"] or other["job_id"] or (task and self.jobs[task]),
            task_id=task,
            attempt_id=self.attempts.get(transfer["ref"]),
        )

    def rows(self, owner: UUID, filters: Filters) -> list[StatementRow]:
        return [
            row for transfer, row in self.legs(owner) if self._is_wanted(transfer, row, filters)
        ]

    def _is_wanted(self, transfer: dict[str, Any], row: StatementRow, filters: Filters) -> bool:
        if filters.job_id is not None:
            sides = {self.accounts[transfer[side]]["job_id"] for side in ("debit", "credit")}
            if filters.job_id not in sides or row.part not in (Part.ESCROW, Part.AVAILABLE):
                return False
        return (
            filters.asset in (None, row.asset)
            and filters.part in (None, row.part)
            and (not filters.kinds or row.kind in filters.kinds)
            and filters.direction in (None, row.direction)
            and (filters.since is None or row.at >= filters.since)
            and (filters.until is None or row.at < filters.until)
            and filters.task_id in (None, row.task_id)
        )

    def totals(self, owner: UUID, filters: Filters) -> list[Total]:
        sums: dict[tuple[Asset, Part, TransferKind], list[int]] = {}
        for row in self.rows(owner, filters):
            entry = sums.setdefault((row.asset, row.part, row.kind), [0, 0, 0])
            entry[row.direction is Direction.OUT] += abs(int(row.amount_nano))
            entry[2] += 1
        return [
            Total(
                asset=asset,
                part=part,
                kind=kind,
                in_nano=str(entry[0]),
                out_nano=str(entry[1]),
                transfers=entry[2],
            )
            for (asset, part, kind), entry in sums.items()
        ]

    def balances(self, owner: UUID, at: datetime) -> dict[tuple[Asset, Part], int]:
        sums: Counter[tuple[Asset, Part]] = Counter()
        for _, row in self.legs(owner):
            if row.at <= at:
                sums[row.asset, row.part] += int(row.amount_nano)
        return {key: nano for key, nano in sums.items() if nano}


class Story:
    """A random history over several days; at times clocks stand still or step back a little."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self.random = random.Random(seed)  # noqa: S311 - a test's story, told again by its seed
        self.now = START
        self.people = [new_id() for _ in range(3)]
        self.jobs: list[UUID] = []
        self.tasks: list[UUID] = []
        self.earnings: list[UUID] = []
        self.devices = [new_id() for _ in range(3)]

    async def tell(self, steps: int) -> None:
        for person in self.people:
            await self._do(ledger.grant_test_credits, new_id(), person, 10_000)
            await self._do(frontier.deposit, [Deposit(new_id(), person, 10_000)])
        for _ in range(steps):
            hours = self.random.choice([0, 0, 1, 7, 26, -0.001])
            self.now += timedelta(hours=hours, microseconds=self.random.randrange(3))
            if self.random.random() < 0.2:
                self.now = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
            await self._step()
            if self.random.random() < 0.3:
                limit = self.random.choice([1, 3, 1000])
                await self.database.run(
                    lambda conn, limit=limit: ledger.fold(conn, limit)  # type: ignore[misc]
                )

    async def _do(self, use_case: Any, *arguments: Any) -> Any:
        return await self.database.run(lambda conn: use_case(conn, *arguments, self.now))

    async def _step(self) -> None:
        pick = self.random.choice
        move = pick(MOVES)
        if move == "job" or not self.jobs:
            await self._post_job()
        elif move == "settle":
            await self._settle()
        elif move == "referee":
            await self._do(ledger.charge_referee, [RefereeCharge(pick(self.tasks), new_id(), 3)])
        elif move == "refund":
            await self._do(ledger.refund_tasks, self.random.sample(self.tasks, 2))
            await self._do(ledger.refund_unmade, [pick(self.jobs)])
        elif move == "vest":
            await self.database.run(
                lambda conn: ledger.vest_due(conn, self.now, 3, restitution_bps=5_000)
            )
        elif move == "reverse" and self.earnings:
            await self._do(repair.reverse_earnings, [pick(self.earnings)])
        elif move == "forfeit" and self.random.random() < 0.3:
            await self._do(repair.forfeit, [pick(self.devices)])
        elif move == "dispute":
            await self._dispute()
        elif move == "withdraw":
            wish = Withdrawal(new_id(), pick(self.people), 10)
            await self._do(frontier.reserve, [wish])
            await self._do(pick([frontier.confirm, frontier.give_back]), [wish.id])

    async def _post_job(self) -> None:
        job, tasks = new_id(), [new_id() for _ in range(3)]
        funding = Funding(
            job, self.random.choice(self.people), self.random.choice(list(Asset)), 400
        )
        await self._do(ledger.fund_jobs, [funding])
        await self.database.run(lambda conn: ledger.allot(conn, job, tasks, 100))
        self.jobs.append(job)
        self.tasks += tasks

    async def _settle(self) -> None:
        item = Settlement(
            self.random.choice(self.tasks),
            new_id(),
            self.random.choice(self.people),
            self.random.choice(self.devices),
            self.random.randrange(1, 9),
            self.random.randrange(2),
            self.now + timedelta(hours=self.random.choice([0, 30])),
        )
        try:
            await self._do(ledger.settle, [item])
        except asyncpg.CheckViolationError:
            return  # the task has nothing left
        self.earnings.append(item.attempt_id)

    async def _dispute(self) -> None:
        task, dispute = self.random.choice(self.tasks), new_id()
        await self._do(repair.freeze, [Contest(dispute, task, new_id(), None, 10)])
        worker = self.random.choice(self.people)
        await self._do(repair.rule, [Ruling(dispute, 6, 1, worker, new_id())])


def plain(rows: Sequence[StatementRow]) -> list[StatementRow]:
    return [msgspec.structs.replace(row, counterparty="") for row in rows]


async def walk(database: Database, owner: UUID, filters: Filters, limit: int) -> list[StatementRow]:
    """All pages, each in a transaction of its own."""
    found: list[StatementRow] = []
    cursor: str | None = None
    while True:
        page = await database.run(
            lambda conn, cursor=cursor: statements.page(  # type: ignore[misc]
                conn, owner, filters, cursor=cursor, limit=limit
            )
        )
        assert len(page.items) <= limit
        found += page.items
        cursor = page.next
        if cursor is None:
            return found
        assert len(page.items) == limit


async def streamed(conn: Connection, owner: UUID, filters: Filters) -> list[StatementRow]:
    return [row async for batch in statements.stream(conn, owner, filters) for row in batch]


def some_filters(story: Story, truth: Ledger, owner: UUID) -> list[Filters]:
    """Each filter alone, times at and beside transfers, and mixtures."""
    pick = story.random.choice
    times = [transfer["at"] for transfer in truth.transfers]
    own_jobs = [a["job_id"] for a in truth.accounts.values() if a["owner"] == owner and a["job_id"]]

    def a_time() -> datetime:
        at: datetime = pick(times) + timedelta(microseconds=pick([-1, 0, 1]))
        return pick([at, at.replace(hour=0, minute=0, second=0, microsecond=0)])

    since, until = sorted([a_time(), a_time() + timedelta(microseconds=1)])
    filters = [Filters(), Filters(since=since), Filters(until=until)]
    filters += [Filters(asset=asset) for asset in Asset]
    filters += [Filters(part=part) for part in Part]
    filters += [Filters(kinds=(kind,)) for kind in TransferKind]
    filters += [Filters(direction=direction) for direction in Direction]
    filters += [Filters(task_id=task) for task in story.random.sample(story.tasks, 4)]
    filters += [Filters(job_id=job) for job in own_jobs[:3]]
    for _ in range(12):
        filters.append(
            Filters(
                asset=pick([None, *Asset]),
                part=pick([None, *Part]),
                kinds=tuple(story.random.sample(list(TransferKind), pick([0, 0, 2, 5]))),
                direction=pick([None, *Direction]),
                since=pick([None, since]),
                until=pick([None, until]),
                task_id=pick([None, None, pick(story.tasks)]),
            )
        )
    return [f for f in filters if f.since is None or f.until is None or f.since < f.until]


@pytest.mark.parametrize("seed", range(3))
async def test_statements_and_totals_equal_a_plain_loop(database: Database, seed: int) -> None:
    story = Story(database, seed)
    await story.tell(120)
    truth = await Ledger.read(database)
    assert len(truth.transfers) > 80
    for owner in truth.owners():
        for filters in some_filters(story, truth, owner):
            expected = truth.rows(owner, filters)
            limit = story.random.choice([1, 2, 7, 50, 500]) if len(expected) < 60 else 40
            assert plain(await walk(database, owner, filters, limit)) == expected, filters
            found = await database.run(
                lambda conn, owner=owner, filters=filters: streamed(conn, owner, filters)  # type: ignore[misc]
            )
            assert plain(found) == expected, filters
            if not (filters.task_id or filters.job_id or filters.direction):
                totals = await database.run(
                    lambda conn, owner=owner, filters=filters: history.totals(conn, owner, filters)  # type: ignore[misc]
                )
                wanted = truth.totals(owner, filters)
                assert sorted(totals, key=repr) == sorted(wanted, key=repr), filters


@pytest.mark.parametrize("seed", range(3))
async def test_balances_of_the_past_are_sums(database: Database, seed: int) -> None:
    story = Story(database, 100 + seed)
    for _ in range(4):
        await story.tell(20)
        truth = await Ledger.read(database)
        times = [transfer["at"] for transfer in truth.transfers]
        for owner in story.people:
            for _ in range(12):
                at = story.random.choice(times) + timedelta(
                    microseconds=story.random.choice([-1, 0, 1, 3_600_000_000])
                )
                found = await database.run(
                    lambda conn, owner=owner, at=at: history.balances_at(conn, owner, at)  # type: ignore[misc]
                )
                parts = {
                    (item.asset, part): int(getattr(item, f"{part.value}_nano"))
                    for item in found
                    for part in Part
                    if getattr(item, f"{part.value}_nano") != "0"
                }
                assert parts == truth.balances(owner, at)
                for item in found:
                    each = [int(getattr(item, f"{part.value}_nano")) for part in Part]
                    assert int(item.total_nano) == sum(each)


async def test_everything_that_can_happen_is_told(database: Database) -> None:
    await everything(database, START)
    truth = await Ledger.read(database)
    words = set()
    for owner in truth.owners():
        found = await walk(database, owner, Filters(), 3)
        assert plain(found) == truth.rows(owner, Filters())
        words |= {row.counterparty.split(" of job ")[0] for row in found}
    assert words == {
        "escrow",
        "platform fee",
        "re-execution",
        "restitution",
        "deposits without an owner",
        "test credits",
        "the chain",
        "own available",
        "own held",
        "own reserved",
        "a worker's earnings",
        "another account",
    }


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_pages_give_every_row_once_while_new_ones_arrive(
    database: Database, limit: int
) -> None:
    story = Story(database, 7)
    await story.tell(25)
    owner = story.people[0]
    before = (await Ledger.read(database)).rows(owner, Filters())
    found: list[StatementRow] = []
    cursor = None
    while True:
        page = await database.run(
            lambda conn, cursor=cursor: statements.page(  # type: ignore[misc]
                conn, owner, Filters(), cursor=cursor, limit=limit
            )
        )
        found += page.items
        cursor = page.next
        if cursor is None:
            break
        story.now += timedelta(days=2)  # what arrives is newer, even if a step goes back a day
        await story.tell(1)
    assert plain(found) == before


async def test_many_jobs_are_merged_in_order(database: Database) -> None:
    """More streams than a page has rows: the first probe must not lose any."""
    owner, now = new_id(), START
    await database.run(lambda conn: ledger.grant_test_credits(conn, new_id(), owner, 10**6, now))
    for number in range(40):
        at = now + timedelta(minutes=number % 7)
        await database.run(
            lambda conn, at=at: ledger.fund_jobs(  # type: ignore[misc]
                conn, [Funding(new_id(), owner, Asset.TEST, 10)], at
            )
        )
    truth = await Ledger.read(database)
    for limit in (1, 2, 5, 100):
        for filters in (Filters(), Filters(part=Part.ESCROW)):
            found = await walk(database, owner, filters, limit)
            assert plain(found) == truth.rows(owner, filters)


@pytest.mark.parametrize(
    "cursor", ["", "x", "ä", "A" * 22, "A" * 23, "_" * 23, "=" * 8, "f" * 1000, "AAAA AAAA"]
)
async def test_a_forged_cursor_is_refused(database: Database, cursor: str) -> None:
    try:
        page = await database.run(
            lambda conn: statements.page(conn, new_id(), Filters(), cursor=cursor)
        )
    except BadCursorError:
        return
    assert page.items == []  # it happens to be a position


@pytest.mark.parametrize(
    "filters",
    [
        Filters(since=datetime(2026, 1, 1)),  # noqa: DTZ001 - that is what is refused
        Filters(until=datetime.max.replace(tzinfo=UTC)),
        Filters(since=datetime.min.replace(tzinfo=UTC)),
        Filters(since=START, until=START),
        Filters(task_id=new_id(), job_id=new_id()),
        Filters(job_id=new_id()),
    ],
)
async def test_filters_that_cannot_be_meant_are_refused(
    database: Database, filters: Filters
) -> None:
    with pytest.raises(InvalidInputError):
        await database.run(lambda conn: statements.page(conn, new_id(), filters))


# How much a page reads

BULK = """
INSERT INTO ledger.transfer
    (kind, ref, asset, debit, credit, amount, at, credit_after, credit_version)
OVERRIDING USER VALUE
SELECT CASE WHEN n % 1000 = 0 THEN 'deposit' ELSE 'vest' END::ledger.transfer_kind,
    gen_random_uuid(), 'TEST', $1, $2, 1, $3::timestamptz + n * interval '1 second', n, n
FROM generate_series(1, $4) AS n
"""


async def big_account(superuser: str, owner: UUID, rows: int) -> None:
    connection = await asyncpg.connect(superuser)
    try:
        await connection.execute("SET session_replication_role = replica")
        held, free = [
            await connection.fetchval(
                "INSERT INTO ledger.account (owner, kind, asset) "
                "VALUES ($1, $2::text::ledger.account_kind, 'TEST') RETURNING id",
                owner,
                kind,
            )
            for kind in ("held", "available")
        ]
        await connection.execute(BULK, held, free, START, rows)
        await connection.execute("ANALYZE ledger.transfer")
        await connection.execute("ANALYZE ledger.account")
    finally:
        await connection.close()


async def buffers(connection: Connection, name: str, *arguments: object) -> int:
    statement = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + history._sql[name]
    text = await connection.fetchval(statement, *arguments)
    plan = json.loads(text) if isinstance(text, str) else text
    top = plan[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


async def pages_read(database: Database, owner: UUID, rows: int) -> list[int]:
    """What pages of 50 read: the newest, one in the middle, a rare kind, a filter nothing meets."""
    at, number = START + timedelta(seconds=rows // 2), rows // 2
    newest, middle = (None, None, 0, 0), (at, None, number, 1)
    cases: list[tuple[object, ...]] = [
        (None, None, None, None, None, *newest),
        (None, None, None, None, None, *middle),
        (None, None, ["deposit"], None, None, *middle),
        (None, None, ["reward"], None, None, *newest),
        (None, "available", None, 1, None, at, None, 0, 0),
        (None, "available", None, None, START + timedelta(seconds=3), *middle),
    ]
    found = []
    async with database.connection() as connection:
        for case in cases:
            found.append(await buffers(connection, "history_legs", owner, *case, 51))  # noqa: PERF401
        task = (None, None, None, None, None, None, new_id(), 0, 0, 51)
        found.append(await buffers(connection, "history_legs_of_task", owner, *task))
    return found


async def test_a_page_reads_as_much_of_a_big_account_as_of_a_small_one(
    database: Database, database_urls: dict[str, str]
) -> None:
    owner, small = new_id(), 2_000
    await big_account(database_urls["superuser"], owner, small)
    few = await pages_read(database, owner, small)
    other, big = new_id(), 40_000
    await big_account(database_urls["superuser"], other, big)
    many = await pages_read(database, other, big)
    assert max(many) < 600, (few, many)
    assert all(b <= 2 * a + 100 for a, b in zip(few, many, strict=True)), (few, many)
