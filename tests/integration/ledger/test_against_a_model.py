"""Random sequences of money movements agree, nano for nano, with a model in plain Python."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gstd.database.connection import Connection, Database
from gstd.kernel.ids import new_id
from gstd.ledger import service as ledger
from gstd.ledger.service import Funding, RefereeCharge, Settlement
from gstd.protocol.types import Asset
from tests.integration.ledger.bank import Bank, OverdrawnError, UnknownError

T = TypeVar("T")
SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
START = datetime(2026, 1, 1, tzinfo=UTC)
small = st.integers(1, 60)
picks = st.integers(0, 9)


class Movements(RuleBasedStateMachine):
    """Every rule does the same to the database and to the model and compares the answers."""

    runner: asyncio.Runner
    database: Database

    def do(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return self.runner.run(self.database.run(work))

    def pick(self, known: list[UUID], number: int) -> UUID:
        """A known thing, or one in a while something nobody has heard of."""
        return known[number % len(known)] if known and number else new_id()

    @initialize()
    def open(self) -> None:
        self.bank = Bank()
        self.owners = [new_id() for _ in range(3)]
        self.bank.available = dict.fromkeys(self.owners, 0)
        self.now = START
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
            st.tuples(picks, picks, st.integers(0, 2), small, st.integers(0, 3), picks),
            min_size=1,
            max_size=4,
        )
    )
    def settle(self, items: list[tuple[int, int, int, int, int, int]]) -> None:
        known = [*self.bank.held, *self.bank.vested]
        settlements = [
            Settlement(
                task_id=self.pick(list(self.bank.tasks), task),
                attempt_id=self.pick(known, max(0, again - 7)),
                owner=self.owners[owner],
                device_id=new_id(),
                amount=amount,
                fee=fee,
                final_at=self.now + timedelta(seconds=delay),
            )
            for task, again, owner, amount, fee, delay in items
        ]
        try:
            paid = self.bank.settle(settlements)
        except OverdrawnError:
            with pytest.raises(asyncpg.CheckViolationError):
                self.do(lambda conn: ledger.settle(conn, settlements, self.now))
            return
        assert self.do(lambda conn: ledger.settle(conn, settlements, self.now)) == paid

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

    @rule(seconds=st.integers(0, 5), limit=st.integers(1, 3))
    def vest(self, seconds: int, limit: int) -> None:
        self.now += timedelta(seconds=seconds)
        due = sorted(
            (item.final_at, attempt)
            for attempt, item in self.bank.held.items()
            if item.final_at <= self.now
        )[:limit]
        answers = self.do(lambda conn: ledger.vest_due(conn, self.now, limit))
        assert {item.attempt_id for item in answers} == {attempt for _, attempt in due}
        self.bank.vest([attempt for _, attempt in due])

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        for owner in self.owners:
            [balance] = self.do(lambda conn, owner=owner: ledger.balances(conn, owner))  # type: ignore[misc]
            expected = (
                self.bank.available[owner],
                self.bank.escrow_of(owner),
                self.bank.held_by(owner),
            )
            found = (balance.available_nano, balance.escrow_nano, balance.held_nano)
            assert found == tuple(map(str, expected))
            assert balance.total_nano == str(sum(expected))

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

    def teardown(self) -> None:
        if hasattr(self, "bank"):
            self.do(lambda conn: ledger.vest_due(conn, START + timedelta(days=1), 1000))
            check = self.do(ledger.check)
            assert check.ok, check.invariants
            assert check.sum_nano == "0"


def test_every_sequence_of_movements_agrees_with_the_model(database_urls: dict[str, str]) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(Database.connect(database_urls["app"], size=1))

        class Here(Movements):
            pass

        Here.runner, Here.database = runner, database
        try:
            run_state_machine_as_test(
                Here,
                settings=settings(max_examples=30 * SCALE, stateful_step_count=25, deadline=None),
            )
        finally:
            runner.run(database.close())
