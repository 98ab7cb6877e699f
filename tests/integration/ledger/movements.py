"""A machine whose every rule does the same to the database and to the model in plain Python."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gstd.database.connection import Connection, Database
from gstd.kernel.ids import new_id
from gstd.ledger import service as ledger
from gstd.ledger.service import Funding, RefereeCharge, Settlement
from gstd.protocol.types import Asset
from tests.integration.ledger.bank import Bank, OverdrawnError, UnknownError

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)
KEEP = 2
small = st.integers(1, 60)
picks = st.integers(0, 9)
kept = st.sampled_from((None, None, 0, 2, 20))


class Movements(RuleBasedStateMachine):
    """Every rule does the same to the database and to the model and compares the answers."""

    runner: asyncio.Runner
    database: Database

    def do(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return self.runner.run(self.database.run(work))

    def platform(self) -> dict[str, int]:
        """What the platform's own accounts have; earlier examples left something there."""
        rows = self.do(
            lambda conn: conn.fetch(
                "SELECT kind::text AS kind, balance FROM ledger.balance "
                "WHERE owner IS NULL AND asset = 'TEST'"
            )
        )
        return {row["kind"]: row["balance"] for row in rows}

    def pick(self, known: list[UUID], number: int) -> UUID:
        """A known thing, or one in a while something nobody has heard of."""
        return known[number % len(known)] if known and number else new_id()

    @initialize()
    def open(self) -> None:
        self.bank = Bank()
        self.owners = [new_id() for _ in range(3)]
        self.bank.available = dict.fromkeys(self.owners, 0)
        self.now = START
        self.devices = [new_id(), new_id()]
        self.before = self.platform()
        self.bank.fund_left = self.before.get("restitution", 0)
        for owner in self.owners:
            self.grant(self.owners.index(owner), 200, 0)
        self.fund([(0, 130, 0), (1, 130, 0)])
        self.allot(1, 2, 40)
        self.allot(2, 2, 30)

    @rule(owner=st.integers(0, 2), amount=small, again=picks)
    def grant(self, owner: int, amount: int, again: int) -> None:
        ref = self.pick(list(self.bank.grants), again)
        who = self.owners[owner]
        answer = self.do(lambda conn: ledger.grant_test_credits(conn, ref, who, amount, self.now))
        assert answer == self.bank.grant(ref, who, amount)

    @rule(
        items=st.lists(
            st.tuples(st.integers(0, 2), st.integers(1, 130), st.integers(0, 3)),
            min_size=1,
            max_size=3,
        )
    )
    def fund(self, items: list[tuple[int, int, int]]) -> None:
        fundings = [
            Funding(
                self.pick(list(self.bank.jobs), 0 if again < 3 else 1),
                self.owners[owner],
                Asset.TEST,
                total,
            )
            for owner, total, again in items
        ]
        answers = self.do(lambda conn: ledger.fund_jobs(conn, fundings, self.now))
        assert [item.outcome for item in answers] == self.bank.fund(fundings)

    @rule(job=picks, count=st.integers(1, 3), each=small)
    def allot(self, job: int, count: int, each: int) -> None:
        job_id = self.pick(list(self.bank.jobs), job)
        tasks = [new_id() for _ in range(count)]
        try:
            self.bank.allot(job_id, tasks, each)
        except OverdrawnError:
            error: type[Exception] = asyncpg.CheckViolationError
        except UnknownError:
            error = asyncpg.NoDataFoundError
        else:
            self.do(lambda conn: ledger.allot(conn, job_id, tasks, each))
            return
        with pytest.raises(error):
            self.do(lambda conn: ledger.allot(conn, job_id, tasks, each))

    @precondition(lambda self: self.bank.tasks)
    @rule(
        items=st.lists(
            st.tuples(picks, picks, st.integers(0, 2), small, st.integers(0, 3), picks, kept),
            min_size=1,
            max_size=4,
        )
    )
    def settle(self, items: list[tuple[int, int, int, int, int, int, int | None]]) -> None:
        known = list(self.bank.earnings)
        settlements = [
            Settlement(
                task_id=self.pick(list(self.bank.tasks), task),
                attempt_id=self.pick(known, max(0, again - 7)),
                owner=self.owners[owner],
                device_id=self.devices[amount % 2],
                amount=amount,
                fee=fee,
                final_at=self.now + timedelta(seconds=delay),
                kept_until=None if wait is None else self.now + timedelta(seconds=wait),
            )
            for task, again, owner, amount, fee, delay, wait in items
        ]
        try:
            paid = self.bank.settle(settlements, self.now, KEEP)
        except OverdrawnError:
            with pytest.raises(asyncpg.CheckViolationError):
                self.do(lambda conn: ledger.settle(conn, settlements, self.now, holdback=KEEP))
            return
        assert (
            self.do(lambda conn: ledger.settle(conn, settlements, self.now, holdback=KEEP)) == paid
        )

    @precondition(lambda self: self.bank.tasks)
    @rule(items=st.lists(st.tuples(picks, picks, st.integers(0, 40)), max_size=3))
    def charge(self, items: list[tuple[int, int, int]]) -> None:
        charges: dict[UUID, RefereeCharge] = {}
        for task, run, amount in items:
            item = RefereeCharge(
                self.pick(list(self.bank.tasks), task),
                self.pick(list(self.bank.runs), max(0, run - 7)),
                amount,
            )
            if item.run_id not in {other.run_id for other in charges.values()}:
                charges[item.task_id] = item
        batch = list(charges.values())
        self.do(lambda conn: ledger.charge_referee(conn, batch, self.now))
        self.bank.charge(batch)

    @precondition(lambda self: self.bank.tasks)
    @rule(numbers=st.lists(picks, min_size=1, max_size=3))
    def refund(self, numbers: list[int]) -> None:
        tasks = [self.pick(list(self.bank.tasks), number) for number in numbers]
        answers = self.do(lambda conn: ledger.refund_tasks(conn, tasks, self.now))
        assert {item.task_id: item.amount for item in answers} == self.bank.refund(tasks)

    @precondition(lambda self: self.bank.jobs)
    @rule(job=st.integers(1, 9))
    def refund_unmade(self, job: int) -> None:
        job_id = self.pick(list(self.bank.jobs), job)
        answer = self.do(lambda conn: ledger.refund_unmade(conn, [job_id], self.now))
        amount = self.bank.refund_unmade(job_id)
        assert answer == ({job_id: amount} if amount else {})

    @rule(
        seconds=st.integers(0, 5),
        limit=st.integers(1, 3),
        bps=st.sampled_from((0, 3_333, 5_000, 10_000)),
    )
    def vest(self, seconds: int, limit: int, bps: int) -> None:
        self.now += timedelta(seconds=seconds)
        answers = self.do(lambda conn: ledger.vest_due(conn, self.now, limit, restitution_bps=bps))
        assert {item.earning_id for item in answers} == self.bank.vest(self.now, limit, bps)

    @rule(limit=st.integers(1, 50))
    def fold(self, limit: int) -> None:
        assert self.do(lambda conn: ledger.fold(conn, limit)) <= limit

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        for owner in self.owners:
            answers = self.do(lambda conn, owner=owner: ledger.balances(conn, owner))  # type: ignore[misc]
            found = {item.asset: item for item in answers}
            mine = found.get(Asset.GSTD)
            real = (int(mine.available_nano), int(mine.reserved_nano)) if mine else (0, 0)
            assert real == (self.bank.real.get(owner, 0), self.bank.reserved_by(owner))
            balance = found[Asset.TEST]
            expected = (
                self.bank.available[owner],
                self.bank.escrow_of(owner),
                self.bank.held_by(owner),
            )
            amounts = (balance.available_nano, balance.escrow_nano, balance.held_nano)
            assert amounts == tuple(map(str, expected))
            assert balance.total_nano == str(sum(expected))

    @invariant()
    def the_platform_has_what_the_model_says(self) -> None:
        found = self.platform()
        before = self.before
        assert found.get("fee", 0) - before.get("fee", 0) == self.bank.fees
        assert found.get("restitution", 0) == self.bank.fund_left

    @invariant()
    def jobs_say_where_their_money_is(self) -> None:
        for job_id, job in list(self.bank.jobs.items())[:2]:
            money = self.do(lambda conn, job_id=job_id: ledger.job_money(conn, job_id))  # type: ignore[misc]
            tasks = [task for task in self.bank.tasks.values() if task.job == job_id]
            assert money.funded_nano == str(job.funded)
            assert money.released_nano == str(sum(task.released for task in tasks))
            assert money.fee_nano == str(sum(task.fee for task in tasks))
            assert money.referee_nano == str(sum(task.referee for task in tasks))
            refunded = job.returned + sum(task.refunded for task in tasks)
            assert money.refunded_nano == str(refunded)
            assert money.frozen_nano == str(sum(task.frozen for task in tasks))
            assert money.restored_nano == str(sum(task.restored for task in tasks))

    def teardown(self) -> None:
        if hasattr(self, "bank"):
            self.do(lambda conn: ledger.vest_due(conn, START + timedelta(days=1), 1000))
            check = self.do(ledger.check)
            assert check.ok, check.invariants
            assert check.sum_nano == "0"
