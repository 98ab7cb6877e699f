"""What requesters read: jobs, tasks with their attempts, accepted results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, Row, to_struct, to_structs
from gstd.ledger import service as ledger
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import Feed, OnFailure, ParentView
from gstd.protocol.jobs import (
    AttemptView,
    DeviceShare,
    JobCounts,
    JobPage,
    JobSummary,
    JobView,
    Quote,
    ResultPage,
    TaskResult,
    TaskView,
)
from gstd.protocol.types import Asset, Priority, Tier
from gstd.tasks import waits
from gstd.tasks.errors import JobNotFoundError, OutputHiddenError, TaskNotFoundError
from gstd.tasks.model import FINAL_STATES, TaskState
from gstd.tasks.store import sql

PAGE = 200
PAGE_BYTES = 8 << 20
"""Result pages that carry outputs end before this size."""

PRIORITIES = tuple(Priority)


async def job_view(connection: Connection, job_id: UUID, reader: UUID | None) -> JobView:
    """A job with its counts and money. ``reader`` None reads everybody's."""
    row = await connection.fetchrow(sql["job"], job_id, reader)
    if row is None:
        raise JobNotFoundError
    parents = await waits.parents_of_job(connection, row["root"])
    counts = await _counts(connection, row, bool(parents))
    return JobView(
        id=row["id"],
        name=row["name"],
        state=row["state"],
        reason=_job_reason(row["state"], counts, parents, row["stopped"]),
        module=row["module_hash"].hex(),
        tier=Tier(row["tier"]),
        quorum=row["quorum"],
        priority=PRIORITIES[row["priority"]],
        asset=Asset(row["asset"]),
        limits=msgspec.convert(row["limits"], Limits),
        profile=row["profile"],
        quote=Quote(
            tasks=row["task_count"],
            copies=row["quorum"],
            reward_nano=str(row["reward"]),
            fee_nano=str(row["fee"]),
            referee_nano=str(row["referee"]),
            task_nano=str(row["task_lock"]),
            total_nano=str(row["task_lock"] * row["task_count"]),
            asset=Asset(row["asset"]),
        ),
        counts=counts,
        money=await ledger.job_money(connection, job_id),
        created_at=row["created_at"],
        deadline=row["deadline"],
        closed_at=row["closed_at"],
        min_trust=row["min_trust"],
        pool=row["pool_id"],
        after=parents,
        feed=Feed(row["feed"]),
        on_failure=OnFailure(row["on_failure"]),
        rerun_of=None if row["root"] == job_id else row["root"],
    )


async def _counts(connection: Connection, job: Row, has_parents: bool) -> JobCounts:
    facts = dict(job.items())
    rows = await connection.fetch(sql["count_states"], facts["id"])
    states = defaultdict(int, {row["state"]: row["tasks"] for row in rows})
    is_cut = facts["state"] == "cancelled" or facts["stopped"] is not None
    dropped = "cancelled" if is_cut else "expired"
    states[dropped] += facts["dropped"]
    unmade = "blocked" if has_parents else "queued"
    states[unmade] += facts["task_count"] - facts["made"] - facts["dropped"]
    return JobCounts(
        tasks=facts["task_count"],
        paid=await connection.fetchval(sql["count_paid"], facts["id"]),
        rejected_results=await connection.fetchval(sql["count_wrong"], facts["id"]),
        **states,
    )


def _job_reason(
    state: str, counts: JobCounts, parents: Sequence[ParentView], stopped: str | None
) -> str:
    if state == "cancelled":
        return "cancelled by its requester"
    if state == "idle":
        return "nothing happened to it for too long; what its escrow had left went back"
    if state == "closed":
        words = f"{counts.accepted} of {counts.tasks} tasks accepted"
        return f"{words}; {stopped}" if stopped else words
    open_states = ("queued", "running", "verifying", "blocked")
    parts = [f"{getattr(counts, name)} {name}" for name in open_states if getattr(counts, name)]
    if counts.blocked and (words := waits.of_jobs(parents)):
        parts[-1] += f" ({words})"
    return ", ".join(parts) or "all tasks have ended, closing"


async def jobs_of(
    connection: Connection, account_id: UUID, *, before: UUID | None, limit: int
) -> JobPage:
    """An account's jobs, newest first."""
    rows = await connection.fetch(sql["jobs_of_account"], account_id, before, limit)
    items = [
        JobSummary(
            id=row["id"],
            name=row["name"],
            state=row["state"],
            module=row["module_hash"].hex(),
            tier=Tier(row["tier"]),
            tasks=row["task_count"],
            total_nano=str(row["task_lock"] * row["task_count"]),
            asset=Asset(row["asset"]),
            created_at=row["created_at"],
            closed_at=row["closed_at"],
        )
        for row in rows
    ]
    return JobPage(items=items, next=items[-1].id if len(items) == limit else None)


async def tasks_of_job(
    connection: Connection,
    job_id: UUID,
    reader: UUID | None,
    *,
    after: int,
    limit: int,
    state: TaskState | None = None,
) -> list[TaskView]:
    """A job's tasks whose rows exist, with all their attempts, in order of index.

    With ``state`` only those in it: the failed ones are the job's dead letters.
    """
    if await connection.fetchrow(sql["job"], job_id, reader) is None:
        raise JobNotFoundError
    rows = await connection.fetch(sql["tasks"], job_id, None, reader, after, limit, state)
    return await _with_attempts(connection, [dict(row) for row in rows])


async def task_view(connection: Connection, task_id: UUID, reader: UUID | None) -> TaskView:
    """One task with all its attempts. Raises ``TaskNotFoundError`` for somebody else's."""
    rows = await connection.fetch(sql["tasks"], None, task_id, reader, -1, 1, None)
    views = await _with_attempts(connection, [dict(row) for row in rows])
    if not views:
        raise TaskNotFoundError
    return views[0]


async def _with_attempts(connection: Connection, tasks: list[dict[str, Any]]) -> list[TaskView]:
    attempts: dict[UUID, list[AttemptView]] = defaultdict(list)
    for row in await connection.fetch(sql["attempt_views"], [task["id"] for task in tasks]):
        attempts[row["task_id"]].append(to_struct(row, AttemptView))
    blocked = [task["id"] for task in tasks if task["state"] == "blocked"]
    words = await waits.reasons(connection, blocked)
    return [
        msgspec.convert(
            {
                **task,
                "priority": PRIORITIES[task["priority"]],
                "reason": words.get(task["id"], task["reason"]),
                "attempts": attempts.get(task["id"], []),
            },
            TaskView,
        )
        for task in tasks
    ]


async def devices_of_job(
    connection: Connection, job_id: UUID, reader: UUID | None
) -> list[DeviceShare]:
    """Who worked on a job, how it was judged and what it earned."""
    if await connection.fetchrow(sql["job"], job_id, reader) is None:
        raise JobNotFoundError
    return to_structs(await connection.fetch(sql["devices_of_job"], job_id), DeviceShare)


async def results_of_job(
    connection: Connection,
    blobs: Blobs,
    job_id: UUID,
    reader: UUID | None,
    *,
    after: int,
    with_output: bool,
) -> ResultPage:
    """Accepted results after an index, with their outputs if asked, at most ``PAGE_BYTES``."""
    if await connection.fetchrow(sql["job"], job_id, reader) is None:
        raise JobNotFoundError
    rows = await connection.fetch(sql["results"], job_id, reader, after, PAGE)
    results = to_structs(rows, TaskResult)
    page: list[TaskResult] = []
    size = 0
    for result in results:
        size += result.output_bytes if with_output else 0
        if page and size > PAGE_BYTES:
            break
        output = await blobs.get(bytes.fromhex(result.output_hash)) if with_output else None
        page.append(msgspec.structs.replace(result, output=output))
    is_last = len(page) == len(results) < PAGE
    return ResultPage(items=page, next=None if is_last or not page else page[-1].index)


async def output_of_task(
    connection: Connection, blobs: Blobs, task_id: UUID, reader: UUID | None
) -> bytes:
    """The accepted output of one task. Raises ``OutputHiddenError`` before acceptance."""
    row = await connection.fetchrow(sql["output_of"], task_id, reader)
    if row is None:
        raise TaskNotFoundError
    if row["state"] != "accepted":
        raise OutputHiddenError(f"the task is {row['state']}")
    return await blobs.get(row["output_hash"])


async def unfinished_tasks(connection: Connection, *, at_most: int) -> dict[TaskState, int]:
    """How many tasks are in each state that is not final, counted up to ``at_most`` in all."""
    rows = await connection.fetch(sql["count_unfinished"], at_most)
    counted = {TaskState(row["state"]): row["tasks"] for row in rows}
    return {state: counted.get(state, 0) for state in TaskState if state not in FINAL_STATES}


async def open_jobs(connection: Connection) -> int:
    """How many jobs still have tasks to do."""
    count: int = await connection.fetchval(sql["count_open_jobs"])
    return count
