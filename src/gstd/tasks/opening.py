"""Opening what waited: news of ended tasks are taken, and their children queued or ended.

News are rows written by the transaction that caused them, so nothing is lost when nobody comes to
look; whoever looks derives everything from the parents as they are then, under the children's
locks. So it may be done by anybody, at any time, any number of times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, Row, to_structs
from gstd.database.notebook import note_queued
from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.protocol.execution import TaskInput
from gstd.tasks import store
from gstd.tasks.advance import Move, write_moves
from gstd.tasks.edges import tell_unmade
from gstd.tasks.feeding import Waiting, inputs_of
from gstd.tasks.graph import Fate, Prospect, fate
from gstd.tasks.leads import lock_leads, write_leads
from gstd.tasks.model import Step, Task, TaskState, is_closing
from gstd.tasks.order import lead_after, task_keys
from gstd.tasks.store import sql

NEWS_AT_ONCE = 500
RECONSIDERED_AT_ONCE = 500

_encode = msgspec.msgpack.Encoder().encode


async def open_children(connection: Connection, blobs: Blobs, policy: Policy, now: datetime) -> int:
    """Look at what waits for tasks that ended; returns how many news there were."""
    rows = await connection.fetch(sql["take_news"], False, NEWS_AT_ONCE)
    if not rows:
        return 0
    made = [row for row in rows if row["about"] == "made"]
    ended = [row for row in rows if row["about"] == "ended"]
    found = await connection.fetch(sql["blocked_between"], *_ranges(made))
    found += await connection.fetch(sql["children_of"], *_ranges(ended), True)
    await look(connection, blobs, [row["id"] for row in found], policy, now)
    return len(rows)


async def stop_jobs(connection: Connection, policy: Policy, now: datetime) -> int:
    """End what still waits in jobs whose policy is to stop; returns how many news there were.

    Locks jobs before tasks, which is why ``open_children`` leaves it to another transaction.
    """
    rows = await connection.fetch(sql["take_news"], True, NEWS_AT_ONCE)
    if not rows:
        return 0
    reasons = {row["job_id"]: row["reason"] for row in rows}
    jobs = sorted(reasons)
    await connection.execute(sql["lock_stopped"], jobs)
    await tell_unmade(connection, jobs)
    await connection.execute(sql["drop_rest"], jobs, [reasons[job_id] for job_id in jobs])
    ids = [row["id"] for row in await connection.fetch(sql["blocked_of_jobs"], jobs)]
    tasks = await _lock_waiting(connection, ids, now)
    moves = [
        _end(task, TaskState.CANCELLED, reasons[task.job_id] or "stopped")
        for task in tasks.values()
    ]
    await write_moves(connection, moves, policy, now)
    await ledger.refund_unmade(connection, jobs, now)
    return len(rows)


async def reconsider_blocked(
    connection: Connection,
    blobs: Blobs,
    policy: Policy,
    now: datetime,
    *,
    after: UUID,
    quiet_s: float,
) -> UUID | None:
    """Look at a page of blocked tasks that have not moved for a while; returns where to go on."""
    before = now - timedelta(seconds=quiet_s)
    page = RECONSIDERED_AT_ONCE
    rows = await connection.fetch(sql["blocked_to_reconsider"], before, after, page)
    ids = [row["id"] for row in rows]
    await look(connection, blobs, ids, policy, now)
    return ids[-1] if len(ids) == page else None


async def look(
    connection: Connection, blobs: Blobs, ids: Iterable[UUID], policy: Policy, now: datetime
) -> None:
    """Open or end those of these tasks whose parents say so; leave the others as they are."""
    tasks = await _lock_waiting(connection, ids, now)
    if not tasks:
        return
    rows = await connection.fetch(sql["waiting_tasks"], list(tasks))
    waiting = to_structs(rows, Waiting)
    prospects = await _prospects(connection, waiting)
    fates = {item.id: fate(item.on_failure, prospects[item.id]) for item in waiting}
    words = {item.id: f"parent failed: {prospects[item.id].failed}" for item in waiting}
    stopped = {item.job_id: words[item.id] for item in waiting if fates[item.id] is Fate.STOP}
    if stopped:
        await connection.execute(sql["tell_stopped"], list(stopped), list(stopped.values()))
    opening = [item for item in waiting if fates[item.id] is Fate.OPEN]
    inputs = await inputs_of(connection, blobs, opening, policy)
    moves = [
        _end(tasks[item.id], TaskState.CANCELLED, words[item.id])
        for item in waiting
        if fates[item.id] is Fate.SKIP
    ]
    for item in opening:
        ready = inputs[item.id]
        task = tasks[item.id]
        moves.append(_end(task, TaskState.FAILED, ready) if isinstance(ready, str) else _open(task))
    if moves:
        await write_moves(connection, moves, policy, now)
    ready_now = {key: value for key, value in inputs.items() if not isinstance(value, str)}
    await _queue(connection, tasks, opening, ready_now, policy, now)


async def _lock_waiting(
    connection: Connection, ids: Iterable[UUID], now: datetime
) -> dict[UUID, Task]:
    """Those of the tasks that wait. What is closing is left to ``advance``."""
    locked = await store.lock_tasks(connection, sorted(set(ids)))
    return {
        task.id: task
        for task in locked
        if task.state is TaskState.BLOCKED and not is_closing(task, now)
    }


def _ranges(rows: Sequence[Row]) -> tuple[list[UUID], list[int], list[int]]:
    facts = [dict(row.items()) for row in rows]
    return (
        [row["job_id"] for row in facts],
        [row["first"] for row in facts],
        [row["last"] for row in facts],
    )


def _end(task: Task, state: TaskState, reason: str) -> Move:
    return Move(task, Step(state=state, reason=reason), None)


def _open(task: Task) -> Move:
    step = Step(state=TaskState.QUEUED, reason="waiting for a device", wanted=task.quorum)
    return Move(task, step, None)


async def _prospects(connection: Connection, waiting: Sequence[Waiting]) -> dict[UUID, Prospect]:
    """What the parents of each task are, as they are now."""
    found = defaultdict(list)
    roots = list({item.root for item in waiting})
    for row in await connection.fetch(sql["whole_jobs"], roots):
        found[row["child"]].append(_prospect(row["waiting"], row["parent"], row["bad_index"]))
    for row in await connection.fetch(sql["prospects"], [item.id for item in waiting]):
        found[row["id"]].append(_prospect(row["waiting"], row["bad_job"], row["bad_index"]))
    return {item.id: _both([*found[item.root], *found[item.id]]) for item in waiting}


def _prospect(waiting: bool, job: UUID, index: int | None) -> Prospect:
    failed = None if index is None else f"task {index} of job {job} has no good result"
    return Prospect(waiting=waiting, failed=failed)


def _both(parts: Sequence[Prospect]) -> Prospect:
    failed = next((part.failed for part in parts if part.failed), None)
    return Prospect(waiting=any(part.waiting for part in parts), failed=failed)


async def _queue(
    connection: Connection,
    tasks: Mapping[UUID, Task],
    opening: Sequence[Waiting],
    inputs: Mapping[UUID, TaskInput],
    policy: Policy,
    now: datetime,
) -> None:
    """Give opened tasks their input and their turn. Comes after money: accounts before leads."""
    turns: dict[tuple[UUID, int, datetime], list[Waiting]] = defaultdict(list)
    for item in opening:
        if item.id in inputs:
            turns[item.job_id, item.priority, tasks[item.id].deadline].append(item)
    lanes = sorted({(tasks[items[0].id].owner, items[0].priority) for items in turns.values()})
    leads = await lock_leads(connection, lanes, policy, now)
    for (_, level, deadline), items in turns.items():
        lane, limits = (tasks[items[0].id].owner, level), items[0].limits
        items.sort(key=lambda item: item.index)
        keys = task_keys(
            level=level,
            count=len(items),
            lead_ms=leads[lane],
            deadline=deadline,
            limits=limits,
            policy=policy,
            now=now,
        )
        leads[lane] += lead_after(len(items), limits, policy)
        await connection.execute(
            sql["set_inputs"],
            [item.id for item in items],
            [_encode(inputs[item.id]) for item in items],
            [inputs[item.id].hash() for item in items],
            keys,
        )
    await write_leads(connection, leads, now)
    note_queued(list(inputs))
