"""Changes of priority and deadline while work is queued: new keys, seen by the next look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_struct
from gstd.database.notebook import note_queued
from gstd.events.service import Event, append
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.jobs import OrderChange
from gstd.protocol.types import Priority
from gstd.tasks.errors import (
    InvalidJobError,
    JobNotFoundError,
    JobOverError,
    TaskNotFoundError,
    TaskOverError,
)
from gstd.tasks.leads import lock_leads
from gstd.tasks.model import FINAL_STATES
from gstd.tasks.order import PRIORITY_LEVELS, task_keys
from gstd.tasks.store import sql


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """What decides a turn, as a job or task has it."""

    state: str
    priority: int
    deadline: datetime
    limits: Limits
    created_at: datetime

    def changed(self, change: OrderChange, policy: Policy, now: datetime) -> Ordered:
        """With the change applied. Raises ``InvalidJobError``."""
        deadline = change.deadline or self.deadline
        if deadline.tzinfo is None:
            raise InvalidJobError("`deadline` needs a time zone, such as 2026-01-01T12:00:00Z")
        latest = self.created_at + timedelta(seconds=policy.max_job_life_s)
        if change.deadline is not None and not now < deadline <= latest:
            raise InvalidJobError(f"`deadline` must lie between now and {latest.isoformat()}")
        level = self.priority if change.priority is None else PRIORITY_LEVELS[change.priority]
        return msgspec.structs.replace(self, priority=level, deadline=deadline)


async def change_job(
    connection: Connection,
    owner: UUID,
    job_id: UUID,
    change: OrderChange,
    policy: Policy,
    now: datetime,
) -> None:
    """Give a job another priority or deadline, and with it every task of it that has not ended.

    Raises ``JobNotFoundError``, ``JobOverError`` or ``InvalidJobError``.
    """
    row = await connection.fetchrow(sql["lock_job"], job_id, owner)
    if row is None:
        raise JobNotFoundError
    if row["state"] != "open":
        raise JobOverError(f"the job is {row['state']}")
    new = to_struct(row, Ordered).changed(change, policy, now)
    await connection.execute(sql["change_job"], job_id, new.priority, new.deadline)
    rows = await connection.fetch(sql["queued_of_job"], job_id)
    ids = [row["id"] for row in rows]
    await connection.execute(sql["lock_tasks"], ids)
    await _reorder(connection, owner, ids, new, policy, now)
    await append(connection, [_event("job.reordered", owner, job_id, None, new)], now)


async def change_task(
    connection: Connection,
    owner: UUID,
    task_id: UUID,
    change: OrderChange,
    policy: Policy,
    now: datetime,
) -> None:
    """Give one task another priority or deadline; its job keeps its own.

    Raises ``TaskNotFoundError``, ``TaskOverError`` or ``InvalidJobError``.
    """
    row = await connection.fetchrow(sql["task_to_change"], task_id, owner)
    if row is None:
        raise TaskNotFoundError
    if row["state"] in FINAL_STATES:
        raise TaskOverError(f"the task is {row['state']}")
    new = to_struct(row, Ordered).changed(change, policy, now)
    await _reorder(connection, owner, [task_id], new, policy, now)
    event = _event("task.reordered", owner, row["job_id"], task_id, new)
    await append(connection, [event], now)


async def _reorder(
    connection: Connection,
    owner: UUID,
    tasks: Sequence[UUID],
    new: Ordered,
    policy: Policy,
    now: datetime,
) -> None:
    """New keys in the old order. They cost their requester no more of its share."""
    leads = await lock_leads(connection, [(owner, new.priority)], policy, now)
    keys = task_keys(
        level=new.priority,
        count=len(tasks),
        lead_ms=leads[owner, new.priority],
        deadline=new.deadline,
        limits=new.limits,
        policy=policy,
        now=now,
    )
    await connection.execute(sql["reorder_tasks"], tasks, keys, new.priority, new.deadline)
    note_queued(tasks)


def _event(kind: str, owner: UUID, job_id: UUID, task_id: UUID | None, new: Ordered) -> Event:
    data = {"priority": list(Priority)[new.priority], "deadline": new.deadline.isoformat()}
    return Event(kind=kind, accounts=(owner,), job_id=job_id, task_id=task_id, data=data)
