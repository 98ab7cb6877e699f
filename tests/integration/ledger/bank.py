"""The ledger in plain Python: exact amounts, and the refusals that the database must give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from gstd.ledger.frontier import Deposit, Withdrawal
from gstd.ledger.repair import Claim, Contest, Ruling
from gstd.ledger.service import Funding, RefereeCharge, Settlement
from tests.integration.ledger.scenes import Correction


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
    frozen: int = 0
    restored: int = 0

    @property
    def inside(self) -> int:
        return self.locked - self.released - self.fee - self.referee - self.refunded

    @property
    def left(self) -> int:
        return self.inside - self.frozen


@dataclass
class Earning:
    id: UUID
    attempt: UUID
    task: UUID
    owner: UUID
    device: UUID
    amount: int
    fee: int
    held_at: datetime
    final_at: datetime
    due_at: datetime
    kept: bool = False
    state: str = "held"


@dataclass
class Freeze:
    contest: Contest
    state: str = "open"


@dataclass
class Bank:
    """What the ledger should say."""

    available: dict[UUID, int] = field(default_factory=dict)
    grants: set[UUID] = field(default_factory=set)
    jobs: dict[UUID, Job] = field(default_factory=dict)
    tasks: dict[UUID, Task] = field(default_factory=dict)
    earnings: dict[UUID, Earning] = field(default_factory=dict)
    runs: set[UUID] = field(default_factory=set)
    freezes: dict[UUID, Freeze] = field(default_factory=dict)
    claims: dict[UUID, int] = field(default_factory=dict)
    fund_left: int = 0  # of restitution
    fees: int = 0
    real: dict[UUID, int] = field(default_factory=dict)
    deposits: dict[UUID, Deposit] = field(default_factory=dict)
    withdrawals: dict[UUID, tuple[Withdrawal, str]] = field(default_factory=dict)
    corrections: dict[UUID, tuple[Correction, UUID, str]] = field(default_factory=dict)

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

    def pay(self, earning: Earning) -> None:
        task = self.tasks[earning.task]
        task.released += earning.amount
        task.fee += earning.fee
        self.fees += earning.fee
        self.earnings[earning.id] = earning

    def settle(self, items: Sequence[Settlement], now: datetime, keep: int) -> set[UUID]:
        new: dict[UUID, Earning] = {}
        for item in items:
            if item.attempt_id in {*self.earnings, *new} or item.task_id not in self.tasks:
                continue
            new[item.attempt_id] = Earning(
                item.attempt_id,
                item.attempt_id,
                item.task_id,
                item.owner,
                item.device_id,
                item.amount,
                item.fee,
                now,
                item.final_at,
                max(item.kept_until or item.final_at, item.final_at),
                kept=item.kept_until is not None,
            )
        need: dict[UUID, int] = {}
        for earning in new.values():
            need[earning.task] = need.get(earning.task, 0) + earning.amount + earning.fee
        if any(self.tasks[task].left < amount for task, amount in need.items()):
            raise OverdrawnError
        for earning in new.values():
            self.pay(earning)
        for device in {earning.device for earning in new.values() if earning.kept}:
            kept = [
                item
                for item in self.earnings.values()
                if item.device == device and item.kept and item.state == "held"
            ]
            kept.sort(key=lambda item: (item.held_at, item.id), reverse=True)
            for pushed in kept[keep:]:
                pushed.kept, pushed.due_at = False, pushed.final_at
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

    def refund(self, tasks: Sequence[UUID], most: int | None = None) -> dict[UUID, int]:
        given = {}
        for task_id in set(tasks) & set(self.tasks):
            task = self.tasks[task_id]
            amount = task.left if most is None else min(task.left, most)
            if amount:
                given[task_id] = amount
                self.available[self.jobs[task.job].owner] += amount
                task.refunded += amount
        return given

    def refund_unmade(self, job_id: UUID) -> int:
        job = self.jobs[job_id]
        amount = job.funded - job.allotted - job.returned
        job.returned += amount
        self.available[job.owner] += amount
        return amount

    def vest(self, now: datetime, limit: int, bps: int) -> set[UUID]:
        due = [item for item in self.earnings.values() if item.state == "held"]
        due = sorted(
            (item for item in due if item.due_at <= now), key=lambda item: (item.due_at, item.id)
        )[:limit]
        for item in due:
            item.state, item.kept = "vested", False
            self.available[item.owner] += item.amount
        share = sum(item.fee for item in due) * bps // 10_000
        if share > self.fees:
            raise AssertionError("fees that were taken are there")
        self.fees -= share
        self.fund_left += share
        return {item.id for item in due}

    def take_back(self, item: Earning, amount: int, fee: int) -> None:
        item.amount -= amount
        item.fee -= fee
        self.tasks[item.task].released -= amount
        self.tasks[item.task].fee -= fee
        self.fees -= fee

    def reverse(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        given = {}
        for earning in set(ids) & set(self.earnings):
            item = self.earnings[earning]
            if item.state == "held":
                given[earning] = item.amount + item.fee
                self.take_back(item, item.amount, item.fee)
                item.state, item.kept = "reversed", False
        return given

    def forfeit(self, devices: Sequence[UUID]) -> dict[UUID, int]:
        taken = {}
        for item in self.earnings.values():
            if item.device in devices and item.state == "held":
                item.state, item.kept = "forfeited", False
                self.fund_left += item.amount
                taken[item.id] = item.amount
        return taken

    def restitute(self, claims: Sequence[Claim]) -> dict[UUID, int]:
        answers = {}
        for claim in claims:
            if claim.task_id not in self.tasks:
                continue
            if claim.ref not in self.claims:
                amount = min(claim.amount, self.fund_left)
                answers[claim.ref] = amount
                if amount:
                    self.claims[claim.ref] = amount
                    self.fund_left -= amount
                    self.tasks[claim.task_id].locked += amount
                    self.tasks[claim.task_id].restored += amount
            else:
                answers[claim.ref] = self.claims[claim.ref]
        return answers

    def freeze(self, contest: Contest) -> str:
        if contest.dispute_id in self.freezes:
            return "replayed"
        if contest.task_id not in self.tasks:
            return "unknown"
        if any(
            other.state == "open" and other.contest.attempt_id == contest.attempt_id
            for other in self.freezes.values()
        ):
            return "contested"
        if contest.earning_id is not None:
            item = self.earnings.get(contest.earning_id)
            if item is None or (item.task, item.attempt) != (contest.task_id, contest.attempt_id):
                return "unknown"
            if item.state != "held":
                return "vested"
            item.state = "frozen"
        else:
            if contest.amount > self.tasks[contest.task_id].left:
                return "short"
            self.tasks[contest.task_id].frozen += contest.amount
        self.freezes[contest.dispute_id] = Freeze(contest)
        return "frozen"

    def unfreeze(self, dispute: UUID) -> bool:
        freeze = self.freezes.get(dispute)
        if freeze is None or freeze.state != "open":
            return False
        freeze.state = "withdrawn"
        if freeze.contest.earning_id is not None:
            self.earnings[freeze.contest.earning_id].state = "held"
        self.tasks[freeze.contest.task_id].frozen -= freeze.contest.amount
        return True

    def rule(self, ruling: Ruling, now: datetime) -> str:
        freeze = self.freezes.get(ruling.dispute_id)
        if freeze is None:
            return "unknown"
        if freeze.state != "open":
            return "replayed" if freeze.state == "ruled" else freeze.state
        contest = freeze.contest
        is_fee_only = ruling.award == 0 and ruling.fee > 0
        if contest.earning_id is not None:
            item = self.earnings[contest.earning_id]
            contested = item.amount + item.fee
            is_too_much = ruling.award > item.amount or ruling.fee > item.fee
            if is_too_much or is_fee_only:
                return "excessive"
            self.take_back(item, item.amount - ruling.award, item.fee - ruling.fee)
            item.state = "held" if ruling.award else "reversed"
            item.kept, item.due_at = False, now
        else:
            contested = contest.amount
            if ruling.award + ruling.fee > contest.amount or is_fee_only:
                return "excessive"
            self.tasks[contest.task_id].frozen -= contest.amount
            if ruling.award:
                self.pay(
                    Earning(
                        ruling.dispute_id,
                        contest.attempt_id,
                        contest.task_id,
                        ruling.owner,
                        ruling.device_id,
                        ruling.award,
                        ruling.fee,
                        now,
                        now,
                        now,
                    )
                )
        freeze.state = "ruled"
        self.refund([contest.task_id], contested - ruling.award - ruling.fee)
        return "ruled"

    def deposit(self, item: Deposit) -> bool:
        if item.id in self.deposits:
            return False
        self.deposits[item.id] = item
        if item.owner is not None:
            self.real[item.owner] = self.real.get(item.owner, 0) + item.amount
        return True

    def assign(self, deposit: UUID, owner: UUID) -> bool:
        item = self.deposits.get(deposit)
        if item is None or item.owner is not None:
            return False
        self.deposits[deposit] = Deposit(deposit, owner, item.amount)
        self.real[owner] = self.real.get(owner, 0) + item.amount
        return True

    def reserve(self, item: Withdrawal) -> str:
        if item.id in self.withdrawals:
            return "replayed"
        if self.real.get(item.owner, 0) < item.amount:
            return "insufficient"
        self.real[item.owner] -= item.amount
        self.withdrawals[item.id] = (item, "reserved")
        return "reserved"

    def end(self, withdrawal: UUID, state: str) -> bool:
        if withdrawal not in self.withdrawals or self.withdrawals[withdrawal][1] != "reserved":
            return False
        item, _ = self.withdrawals[withdrawal]
        self.withdrawals[withdrawal] = (item, state)
        if state == "returned":
            self.real[item.owner] += item.amount
        return True

    def propose(self, wish: Correction, admin: UUID) -> str:
        if wish.id in self.corrections:
            return "replayed"
        self.corrections[wish.id] = (wish, admin, "proposed")
        return "proposed"

    def decide(self, correction: UUID, admin: UUID, *, apply: bool) -> str:
        if correction not in self.corrections:
            return "unknown"
        wish, proposer, state = self.corrections[correction]
        if state != "proposed":
            return "replayed"
        if apply and admin == proposer:
            return "same_admin"
        if apply and self.available[wish.debit] < wish.amount:
            return "insufficient"
        answer = "applied" if apply else "rejected"
        self.corrections[correction] = (wish, proposer, answer)
        if apply:
            self.available[wish.debit] -= wish.amount
            self.available[wish.credit] += wish.amount
        return answer

    def held_by(self, owner: UUID) -> int:
        return sum(
            item.amount
            for item in self.earnings.values()
            if item.owner == owner and item.state in ("held", "frozen")
        )

    def reserved_by(self, owner: UUID) -> int:
        return sum(
            item.amount
            for item, state in self.withdrawals.values()
            if item.owner == owner and state == "reserved"
        )

    def escrow_of(self, owner: UUID) -> int:
        unmade = sum(
            job.funded - job.allotted - job.returned
            for job in self.jobs.values()
            if job.owner == owner
        )
        return unmade + sum(
            task.inside for task in self.tasks.values() if self.jobs[task.job].owner == owner
        )
