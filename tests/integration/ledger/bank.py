"""The ledger in plain Python: exact amounts, and the refusals that the database must give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from gstd.ledger.service import Funding, RefereeCharge, Settlement


class OverdrawnError(Exception):
    """More would leave than is there; the whole call changes nothing."""


class UnknownError(Exception):
    """There is no such escrow."""


@dataclass
class Job:
    owner: UUID
    funded: int
    allotted: int = 0
    returned: int = 0


@dataclass
class Task:
    job: UUID
    locked: int
    released: int = 0
    fee: int = 0
    referee: int = 0
    refunded: int = 0

    @property
    def left(self) -> int:
        return self.locked - self.released - self.fee - self.referee - self.refunded


@dataclass
class Bank:
    """What the ledger should say."""

    available: dict[UUID, int] = field(default_factory=dict)
    grants: set[UUID] = field(default_factory=set)
    jobs: dict[UUID, Job] = field(default_factory=dict)
    tasks: dict[UUID, Task] = field(default_factory=dict)
    held: dict[UUID, Settlement] = field(default_factory=dict)
    vested: dict[UUID, Settlement] = field(default_factory=dict)
    runs: set[UUID] = field(default_factory=set)

    def grant(self, ref: UUID, owner: UUID, amount: int) -> bool:
        if ref in self.grants:
            return False
        self.grants.add(ref)
        self.available[owner] += amount
        return True

    def fund(self, fundings: Sequence[Funding]) -> list[str]:
        outcomes = []
        for item in fundings:
            if item.job_id in self.jobs:
                outcomes.append("replayed")
            elif self.available[item.owner] < item.total:
                outcomes.append("insufficient")
            else:
                self.available[item.owner] -= item.total
                self.jobs[item.job_id] = Job(item.owner, item.total)
                outcomes.append("funded")
        return outcomes

    def allot(self, job_id: UUID, tasks: Sequence[UUID], each: int) -> None:
        if job_id not in self.jobs:
            raise UnknownError
        job = self.jobs[job_id]
        if job.allotted + job.returned + each * len(tasks) > job.funded:
            raise OverdrawnError
        job.allotted += each * len(tasks)
        self.tasks.update({task: Task(job_id, each) for task in tasks})

    def settle(self, items: Sequence[Settlement]) -> set[UUID]:
        new: dict[UUID, Settlement] = {}
        for item in items:
            is_known = item.attempt_id in {*self.held, *self.vested, *new}
            if item.task_id in self.tasks and not is_known:
                new[item.attempt_id] = item
        need: dict[UUID, int] = {}
        for item in new.values():
            need[item.task_id] = need.get(item.task_id, 0) + item.amount + item.fee
        if any(self.tasks[task].left < amount for task, amount in need.items()):
            raise OverdrawnError
        for item in new.values():
            self.tasks[item.task_id].released += item.amount
            self.tasks[item.task_id].fee += item.fee
        self.held.update(new)
        return set(new)

    def charge(self, charges: Sequence[RefereeCharge]) -> None:
        for item in charges:
            if item.run_id in self.runs or item.task_id not in self.tasks:
                continue
            task = self.tasks[item.task_id]
            amount = min(item.amount, task.left)
            if amount > 0:
                self.runs.add(item.run_id)
                task.referee += amount

    def refund(self, tasks: Sequence[UUID]) -> dict[UUID, int]:
        given = {}
        for task_id in set(tasks) & set(self.tasks):
            task = self.tasks[task_id]
            if task.left:
                given[task_id] = task.left
                self.available[self.jobs[task.job].owner] += task.left
                task.refunded += task.left
        return given

    def refund_unmade(self, job_id: UUID) -> int:
        job = self.jobs[job_id]
        amount = job.funded - job.allotted - job.returned
        job.returned += amount
        self.available[job.owner] += amount
        return amount

    def vest(self, due: Sequence[UUID]) -> None:
        for attempt in due:
            item = self.held.pop(attempt)
            self.vested[attempt] = item
            self.available[item.owner] += item.amount

    def held_by(self, owner: UUID) -> int:
        return sum(item.amount for item in self.held.values() if item.owner == owner)

    def escrow_of(self, owner: UUID) -> int:
        unmade = sum(
            job.funded - job.allotted - job.returned
            for job in self.jobs.values()
            if job.owner == owner
        )
        return unmade + sum(
            task.left for task in self.tasks.values() if self.jobs[task.job].owner == owner
        )
