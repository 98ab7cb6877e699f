"""``advance``: the one function that moves tasks, and the money and trust that follow from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.accounts.judging import Judgement, judge_devices
from gstd.database.connection import Connection
from gstd.database.notebook import note_queued
from gstd.events.service import Event, append
from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.tasks import store
from gstd.tasks.model import (
    Attempt,
    AttemptState,
    Decision,
    RefereeRun,
    RunState,
    Step,
    Task,
    TaskState,
    Verdict,
    next_state,
)

FUEL_PER_GFUEL = 1_000_000_000

ADMITTED_AT_ONCE = 5_000


class Move(msgspec.Struct, frozen=True):
    """A task, what becomes of it, and the referee run that its work has, if any."""

    task: Task
    step: Step
    run: RefereeRun | None


async def advance(
    connection: Connection,
    task_ids: Iterable[UUID],
    policy: Policy,
    now: datetime,
    *,
    locked: bool = False,
) -> dict[UUID, Step]:
    """Bring tasks to the state that follows from their attempts; returns what moved.

    Locks the tasks in order of id, unless the caller has ``locked`` them, and writes states,
    verdicts, money, trust and events set-wise in the running transaction. Calling it again changes
    nothing.
    """
    wanted = sorted(set(task_ids))
    find = store.locked_tasks if locked else store.lock_tasks
    tasks = await find(connection, wanted) if wanted else []
    if not tasks:
        return {}
    attempts = await store.attempts_of(connection, [task.id for task in tasks])
    moves = await _decide(connection, tasks, attempts, policy, now)
    asking = [move.task.id for move in moves if move.step.needs_referee and move.run is None]
    if asking and await store.ask_referee(connection, asking, now):
        moves = await _decide(connection, tasks, attempts, policy, now)
    if moves:
        await write_moves(connection, moves, policy, now)
    return {move.task.id: move.step for move in moves}


async def _decide(
    connection: Connection,
    tasks: Sequence[Task],
    attempts: Mapping[UUID, Sequence[Attempt]],
    policy: Policy,
    now: datetime,
) -> list[Move]:
    runs = await store.runs_of(connection, [task.id for task in tasks])
    moves = []
    for task in tasks:
        run = runs.get(task.id)
        step = next_state(task, attempts.get(task.id, []), run, policy, now)
        if step is not None and _changes(task, step, run):
            moves.append(Move(task, step, run))
    return moves


def _changes(task: Task, step: Step, run: RefereeRun | None) -> bool:
    """Whether the step differs from what the row says."""
    if step.decisions or (step.needs_referee and run is None):
        return True
    same_time = step.available_at in (None, task.available_at)
    present = (task.state, task.wanted, task.retries, task.reason)
    return present != (step.state, step.wanted, step.retries, step.reason) or not same_time


async def write_moves(
    connection: Connection, moves: Sequence[Move], policy: Policy, now: datetime
) -> None:
    """Write what becomes of locked tasks: states, verdicts, money, trust and events."""
    decisions = [decision for move in moves for decision in move.step.decisions]
    await store.write_steps(connection, {move.task.id: move.step for move in moves}, now)
    await store.write_decisions(connection, decisions, now)
    await _move_money(connection, moves, policy, now)
    await judge_devices(connection, _judgements(moves, policy), policy, now)
    await append(connection, _events(moves), now)


async def _move_money(
    connection: Connection, moves: Sequence[Move], policy: Policy, now: datetime
) -> None:
    """Pay what was accepted, charge what was run again, give back the rest of ended tasks."""
    final = [move for move in moves if move.step.is_final]
    await ledger.settle(
        connection,
        [
            ledger.Settlement(
                task_id=move.task.id,
                attempt_id=decision.attempt.id,
                owner=decision.attempt.account_id,
                device_id=decision.attempt.device_id,
                amount=move.task.reward,
                fee=move.task.fee,
                final_at=_final_at(decision, policy, now),
                kept_until=_kept_until(decision, policy, now),
            )
            for move in final
            for decision in move.step.accepted
        ],
        now,
        holdback=policy.holdback_rewards,
    )
    await ledger.charge_referee(
        connection,
        [
            ledger.RefereeCharge(move.task.id, move.run.id, referee_cost(fuel, policy))
            for move in final
            if move.run is not None and (fuel := _fuel_to_pay(move.task, move.run))
        ],
        now,
    )
    await ledger.refund_tasks(connection, [move.task.id for move in final], now)


def _final_at(decision: Decision, policy: Policy, now: datetime) -> datetime:
    """A proved result vests at the next sweep, another after the challenge window."""
    if decision.verdict is Verdict.PROVED:
        return now
    return now + timedelta(seconds=policy.challenge_window_s)


def _kept_until(decision: Decision, policy: Policy, now: datetime) -> datetime | None:
    """Until when an unproved result may be kept back."""
    if decision.verdict is Verdict.PROVED:
        return None
    return now + timedelta(seconds=max(policy.holdback_s, policy.challenge_window_s))


def _fuel_to_pay(task: Task, run: RefereeRun) -> int:
    """The fuel of a run this task asked for. Work that was known before costs nothing."""
    if run.state is not RunState.DONE or run.asked_by != task.id or run.result is None:
        return 0
    return run.result.fuel


def referee_cost(fuel: int, policy: Policy) -> int:
    """Nano for re-executing ``fuel``, rounded up."""
    return -(-fuel * policy.referee_nano_per_gfuel // FUEL_PER_GFUEL)


def _judgements(moves: Sequence[Move], policy: Policy) -> list[Judgement]:
    """What devices did. The tasks of one's own account earn no trust and measure no speed."""
    right: dict[UUID, int] = defaultdict(int)
    wrong: dict[UUID, int] = defaultdict(int)
    own: dict[UUID, int] = defaultdict(int)
    speeds: dict[UUID, list[float]] = defaultdict(list)
    for move in moves:
        for decision in move.step.decisions:
            attempt = decision.attempt
            wrong[attempt.device_id] += decision.verdict is Verdict.WRONG
            if decision.state is not AttemptState.ACCEPTED:
                continue
            if attempt.account_id == move.task.owner:
                own[attempt.device_id] += 1
            else:
                right[attempt.device_id] += 1
                speeds[attempt.device_id] += _speed(attempt, policy)
    return [
        Judgement(
            device,
            right[device],
            wrong[device],
            own=own[device],
            speeds=tuple(speeds[device]),
        )
        for device in sorted({*right, *wrong, *own})
        if right[device] or wrong[device] or own[device]
    ]


def _speed(attempt: Attempt, policy: Policy) -> list[float]:
    """Fuel per millisecond, of a run long enough to say more of the device than of the network."""
    fuel = attempt.result.fuel if attempt.result is not None else 0
    is_measured = fuel >= policy.measured_fuel and attempt.run_ms > 0
    return [fuel / attempt.run_ms] if is_measured else []


def _events(moves: Sequence[Move]) -> list[Event]:
    return [event for move in moves for event in _events_of(move)]


def _events_of(move: Move) -> Iterator[Event]:
    task, step = move.task, move.step
    for decision in step.decisions:
        yield Event(
            kind=f"attempt.{decision.state}",
            accounts=(task.owner, decision.attempt.account_id),
            job_id=task.job_id,
            task_id=task.id,
            attempt_id=decision.attempt.id,
            data={"verdict": decision.verdict},
        )
    if step.state is not task.state:
        yield Event(
            kind=f"task.{step.state}",
            accounts=(task.owner,),
            job_id=task.job_id,
            task_id=task.id,
            data={"reason": step.reason},
        )


async def expire_leases(connection: Connection, policy: Policy, now: datetime) -> int:
    """End attempts that nobody can finish and give their tasks on; returns how many ended.

    That is after the end of the lease, and at once when the device was suspended or revoked, which
    is not the task's fault and uses up none of its retries.
    """
    rows = await connection.fetch(store.sql["overdue_attempts"], now)
    if not rows:
        return 0
    tasks = await store.lock_tasks(connection, [row["task_id"] for row in rows])
    jobs = {task.id: task for task in tasks}
    ended = await connection.fetch(store.sql["expire_attempts"], list(jobs), now)
    events = [
        Event(
            kind="attempt.expired",
            accounts=(jobs[row["task_id"]].owner, row["account_id"]),
            job_id=jobs[row["task_id"]].job_id,
            task_id=row["task_id"],
            attempt_id=row["id"],
            data={"verdict": row["verdict"]},
        )
        for row in ended
    ]
    await append(connection, events, now)
    await advance(connection, jobs, policy, now, locked=True)
    silent = [row["device_id"] for row in ended if row["verdict"] == Verdict.LEASE_EXPIRED]
    await blame_devices(connection, silent, policy, now)
    return len(ended)


async def blame_devices(
    connection: Connection, devices: Sequence[UUID], policy: Policy, now: datetime
) -> None:
    """Count attempts that these devices did not end; each is named once per attempt."""
    counts = Counter(devices)
    judgements = [Judgement(device, faults=counts[device]) for device in sorted(counts)]
    await judge_devices(connection, judgements, policy, now)


async def admit_delayed(connection: Connection, now: datetime) -> int:
    """Let tasks whose retry delay is over be claimed again; returns how many."""
    rows = await connection.fetch(store.sql["admit_delayed"], now, ADMITTED_AT_ONCE)
    note_queued(row["id"] for row in rows)
    return len(rows)


async def expire_tasks(connection: Connection, policy: Policy, now: datetime) -> int:
    """End tasks whose deadline has passed; returns how many moved."""
    rows = await connection.fetch(store.sql["tasks_past_deadline"], now)
    moved = await advance(connection, [row["id"] for row in rows], policy, now)
    return sum(step.state is TaskState.EXPIRED for step in moved.values())


async def reconsider(
    connection: Connection, policy: Policy, now: datetime, *, after: UUID, quiet_s: float
) -> UUID | None:
    """Advance a page of tasks that have not moved for a while; returns where to go on."""
    page = 500
    before = now - timedelta(seconds=quiet_s)
    rows = await connection.fetch(store.sql["tasks_to_reconsider"], before, after, page)
    ids = [row["id"] for row in rows]
    await advance(connection, ids, policy, now)
    return ids[-1] if len(ids) == page else None
